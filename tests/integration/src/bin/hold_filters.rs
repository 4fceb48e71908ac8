//! Counts by clsact filters until its input ends or it is killed: `hold-filters INTERFACE…`.
//!
//! Prints its instance number when everything is attached.

use std::{
    env,
    error::Error,
    io::{self, Read},
    sync::Arc,
};

use weir_datapath::{
    flow::{AttachBy, Device, Directions, FlowOptions, load},
    interface,
    netns::Netns,
};

fn main() -> Result<(), Box<dyn Error>> {
    let options = FlowOptions { attach_by: AttachBy::Clsact, slots: Some(16), ..FlowOptions::default() };
    let (mut attacher, _reader) = load(&options)?;
    let interfaces = interface::list(&Netns::current()?)?;
    for name in env::args().skip(1) {
        let interface = interfaces.iter().find(|interface| *interface.name == *name);
        let interface = interface.ok_or_else(|| format!("there is no interface {name}"))?;
        let device = Device {
            index: interface.index,
            name: Arc::clone(&interface.name),
            link: interface.link,
            role: interface.role,
        };
        attacher.attach(&device, Directions::Both, false)?;
    }
    println!("{}", attacher.instance().number());
    io::stdin().read_to_end(&mut Vec::new())?;
    attacher.detach_all();
    Ok(())
}
