//! DNS as it passes the interfaces: which lookups there were and what came of them, and which name led to which address.
//!
//! [`Observer`] is the whole of it without I/O and clock: it hears messages, and completes records with what they said.
//! [`DnsWatch`] reads the messages from the kernel. The same message at several interfaces is one lookup; on the records
//! of a flow it counts at each interface where the flow does. A response is believed only if the same client was seen to
//! ask that question, with that number, from that port.
//!
//! Everything has a bound. What does not fit, and what makes no sense, is counted by name ([`Loss`]).

mod chain;
mod counts;
mod lookups;
mod names;
mod observer;
mod settled;
mod talks;
mod watch;

#[cfg(test)]
mod tests;

pub use self::{
    counts::{Counts, DURATION_BOUNDS, Loss, RoleCounts},
    observer::{Fill, Observer},
    watch::{DnsState, DnsWatch, DnsWatchError},
};
