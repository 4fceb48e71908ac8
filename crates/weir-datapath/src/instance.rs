//! Which Weir is which: the number that marks what a running Weir attaches, and how others see that it is alive.
//!
//! Several Weirs may run at once. Each claims a random number and marks its clsact filters with it (the filter handle),
//! so each detaches its own filters only, and `weir cleanup` can tell the filters of a dead Weir from those of a live
//! one. A live Weir holds an abstract Unix socket named after its number in the network namespace that it attaches
//! in. That name lives exactly as long as the process, also under `kill -9`, and is seen by whoever sees the filters:
//! it needs no file system, no privilege and no pid namespace in common.
//!
//! TCX links need no mark: they go away with the process.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use thiserror::Error;

/// How the names of all filters (and of the programs behind them) begin.
pub const FILTER_NAME_PREFIX: &str = "weir_";

/// Top byte of every filter handle of ours: the letter W. The kernel chooses handles from 1 upwards, so it does not
/// come near.
const HANDLE_MARK: u32 = 0x57 << 24;
const HANDLE_MARK_MASK: u32 = 0xff << 24;
/// Set in the handle where the Weir that attached the filter had to add the clsact qdisc.
const HANDLE_ADDED_QDISC: u32 = 1 << 23;
const NUMBER_MASK: u32 = HANDLE_ADDED_QDISC - 1;

/// Attempts to find a free number. With 2^23 numbers, two attempts only happen by bad luck.
const CLAIM_ATTEMPTS: usize = 16;

/// Why this Weir cannot be told from others.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// No number was free.
    #[error(
        "cannot claim an instance number: {CLAIM_ATTEMPTS} random ones are taken, remove whatever holds \
             abstract Unix sockets named weir/… (see /proc/net/unix)"
    )]
    AllTaken,
    /// The socket that shows that we are alive cannot be made.
    #[error("cannot hold the abstract Unix socket that marks a running weir")]
    Socket(#[source] io::Error),
}

/// Number of a running Weir: random, not zero, 23 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceNumber(u32);

/// Who added the clsact qdisc that a filter is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qdisc {
    /// It was there before; nobody may delete it on our behalf.
    Found,
    /// This Weir added it, and may delete it once it is empty.
    Added,
}

/// This Weir. Dropping it tells everybody that what it attached may be removed.
#[derive(Debug)]
pub struct Instance {
    number: InstanceNumber,
    /// Its name is what others see.
    _presence: UnixListener,
}

impl Instance {
    /// Claims a number of our own, in the network namespace of the calling thread: the one to attach in.
    pub fn claim() -> Result<Self, InstanceError> {
        for _ in 0..CLAIM_ATTEMPTS {
            let Some(number) = InstanceNumber::random() else { continue };
            match number.bind() {
                Ok(presence) => return Ok(Self { number, _presence: presence }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(InstanceError::Socket(error)),
            }
        }
        Err(InstanceError::AllTaken)
    }

    /// Our number.
    pub fn number(&self) -> InstanceNumber {
        self.number
    }

    /// The handle that every clsact filter of ours is attached with, whatever its priority.
    ///
    /// Two Weirs can share a priority, because their handles differ. Convert with `TcHandle::from`.
    pub fn filter_handle(&self, qdisc: Qdisc) -> u32 {
        self.number.filter_handle(qdisc)
    }
}

impl InstanceNumber {
    /// Draws a number from the seed that the standard library takes from the system for its hash tables.
    fn random() -> Option<Self> {
        Self::from_bits(RandomState::new().hash_one(std::process::id()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "23 bits are kept")]
    fn from_bits(bits: u64) -> Option<Self> {
        let number = (bits & u64::from(NUMBER_MASK)) as u32;
        (number != 0).then_some(Self(number))
    }

    fn filter_handle(self, qdisc: Qdisc) -> u32 {
        let added = match qdisc {
            Qdisc::Found => 0,
            Qdisc::Added => HANDLE_ADDED_QDISC,
        };
        HANDLE_MARK | added | self.0
    }

    /// Reads the number and the origin of the qdisc from the handle of a filter, or `None` where the handle is not
    /// one of ours.
    pub fn from_filter_handle(handle: u32) -> Option<(Self, Qdisc)> {
        if handle & HANDLE_MARK_MASK != HANDLE_MARK {
            return None;
        }
        let qdisc = if handle & HANDLE_ADDED_QDISC == 0 { Qdisc::Found } else { Qdisc::Added };
        Some((Self::from_bits(u64::from(handle))?, qdisc))
    }

    /// Takes the name of this number in the network namespace of the calling thread, so that nobody else can.
    ///
    /// Fails with [`io::ErrorKind::AddrInUse`] while a Weir of that number is alive. Whoever removes what a dead one
    /// left holds on to the result meanwhile, so that no new Weir can draw the number in between.
    pub(crate) fn bind(self) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("weir/{self}"))?)
    }
}

impl fmt::Display for InstanceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_instances_live_side_by_side_with_different_handles() {
        let first = Instance::claim().unwrap();
        let second = Instance::claim().unwrap();
        assert_ne!(first.number(), second.number());
        assert_ne!(first.filter_handle(Qdisc::Found), second.filter_handle(Qdisc::Found));
    }

    #[test]
    fn a_handle_tells_the_instance_and_who_added_the_qdisc() {
        let instance = Instance::claim().unwrap();
        for qdisc in [Qdisc::Found, Qdisc::Added] {
            let handle = instance.filter_handle(qdisc);
            assert!(handle > 0 && handle < 0x8000_0000, "{handle:#x}");
            assert_eq!(InstanceNumber::from_filter_handle(handle), Some((instance.number(), qdisc)));
        }
    }

    #[test]
    fn handles_of_others_are_not_ours() {
        for handle in [0, 1, 0x0001_0000, 0x5700_0000, 0x5780_0000, 0x5800_0001, 0xd700_0001, u32::MAX] {
            assert_eq!(InstanceNumber::from_filter_handle(handle), None, "{handle:#x}");
        }
    }

    #[test]
    fn a_number_is_taken_exactly_as_long_as_its_instance_lives() {
        let instance = Instance::claim().unwrap();
        let number = instance.number();
        assert_eq!(number.bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(instance);
        number.bind().unwrap();
    }
}
