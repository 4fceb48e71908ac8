//! Watches TCP sockets and dropped packets until its input ends or it is killed; says `ready` when it does.

use std::{
    error::Error,
    io::{self, Read},
};

use weir_datapath::{drops::Drops, quality::TcpQuality};

fn main() -> Result<(), Box<dyn Error>> {
    let (_quality, _drops) = (TcpQuality::attach()?, Drops::attach()?);
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
