//! The `packets` object in user space: every packet that meets a filter, one by one.
//!
//! [`load`] gives two halves that may live on different threads: a [`PacketAttacher`], which puts programs on
//! interfaces, and a [`PacketReader`], which hands packets over from the ring buffer. What the kernel's filter lets
//! through is a superset of what was asked for; the exact filter is the caller's. What does not fit the ring is lost
//! and counted: for each observation point, what was seen is what was filtered, lost and written.

mod attach;
mod load;
mod packet;
mod points;
mod reader;

pub use attach::PacketAttacher;
pub use load::{PacketOptions, load};
pub use packet::{Packet, PacketLedger};
pub use reader::{PacketReader, ReadError};

pub use crate::{
    attach::{AttachBy, AttachError, Attached, Device, Directions, Mechanism},
    object::{LoadError, ProgramCost},
};
