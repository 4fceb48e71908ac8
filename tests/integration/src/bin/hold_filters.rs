//! Counts or captures by clsact filters until its input ends or it is killed: `hold-filters flow|packets INTERFACE…`.
//!
//! Prints its instance number when everything is attached.

use std::{
    env,
    error::Error,
    io::{self, Read},
    sync::Arc,
};

use weir_datapath::{
    flow::{self, AttachBy, Device, Directions, FlowOptions},
    interface,
    netns::Netns,
    packets::{self, PacketOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let devices = devices()?;
    let attach_by = AttachBy::Clsact;
    match env::args().nth(1).as_deref() {
        Some("flow") => {
            let options = FlowOptions { attach_by, slots: Some(16), ..FlowOptions::default() };
            let (mut attacher, _reader) = flow::load(&options)?;
            for device in &devices {
                attacher.attach(device, Directions::Both, false)?;
            }
            println!("{}", attacher.instance().number());
            io::stdin().read_to_end(&mut Vec::new())?;
            attacher.detach_all();
        }
        Some("packets") => {
            let (mut attacher, _reader) =
                packets::load(&PacketOptions { attach_by, ..PacketOptions::default() })?;
            for device in &devices {
                attacher.attach(device, Directions::Both)?;
            }
            println!("{}", attacher.instance().number());
            io::stdin().read_to_end(&mut Vec::new())?;
            attacher.detach_all();
        }
        _ => return Err("usage: hold-filters flow|packets INTERFACE…".into()),
    }
    Ok(())
}

fn devices() -> Result<Vec<Device>, Box<dyn Error>> {
    let interfaces = interface::list(&Netns::current()?)?;
    let device = |name: String| {
        let interface = interfaces.iter().find(|interface| *interface.name == *name);
        let interface = interface.ok_or_else(|| format!("there is no interface {name}"))?;
        Ok(Device {
            index: interface.index,
            name: Arc::clone(&interface.name),
            link: interface.link,
            role: interface.role,
        })
    };
    env::args().skip(2).map(device).collect()
}
