//! The `flow` object in user space: counts every packet of the interfaces it is attached to.
//!
//! [`load`] gives two halves that live on different threads: a [`FlowAttacher`], which puts programs on interfaces,
//! and a [`FlowReader`], which reads what they counted. Both directions of an interface are two observation points.
//! What was seen equals what was read plus what the ledger names, in every drain.

mod attach;
pub(crate) mod clock;
mod drain;
mod load;
mod packet_socket;
mod points;
pub(crate) mod shared;
mod sizes;

pub use attach::FlowAttacher;
pub use clock::ClockError;
pub use drain::{DrainError, Drained, FlowReader, TableState};
pub use load::{FlowOptions, Hook, load};
pub use sizes::Sizes;

pub(crate) use points::Points;

pub use crate::{
    attach::{AttachBy, AttachError, Attached, Device, Directions, Mechanism},
    object::{LoadError, ProgramCost},
};
