//! Real attempts at what the datapath will do later, each on objects of its own that vanish at once.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    thread,
    time::Instant,
};

use aya::programs::tc::{TcError, qdisc_add_clsact};

use super::capability::{Capability, CapabilitySet};
use crate::bpf::{Command, bpf, bpf_descriptor, number};

/// Outcome of trying something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attempt {
    /// Not tried, and why.
    #[default]
    NotTried,
    /// Not tried, because what it would decide is decided already.
    NotNeeded,
    /// It works; with what was learnt on the way, if anything.
    Works(String),
    /// The kernel refused with this error number.
    Refused(i32),
}

impl Attempt {
    /// Whether it was tried and worked.
    pub fn works(&self) -> bool {
        matches!(self, Self::Works(_))
    }

    /// Whether the kernel refused for lack of privilege, which says nothing about the kernel's abilities.
    pub fn lacks_privilege(&self) -> bool {
        matches!(self, Self::Refused(libc::EPERM | libc::EACCES))
    }

    fn from_result<T>(result: io::Result<T>, detail: impl FnOnce(T) -> String) -> Self {
        match result {
            Ok(value) => Self::Works(detail(value)),
            Err(error) => Self::Refused(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => f.write_str("not tried"),
            Self::NotNeeded => f.write_str("not needed"),
            Self::Works(detail) if detail.is_empty() => f.write_str("works"),
            Self::Works(detail) => f.write_str(detail),
            Self::Refused(number) => write!(f, "{}", io::Error::from_raw_os_error(*number)),
        }
    }
}

/// Numbers of include/uapi/linux/bpf.h.
mod uapi {
    pub(super) const MAP_TYPE_HASH: u32 = 1;
    pub(super) const MAP_TYPE_ARRAY: u32 = 2;
    pub(super) const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
    pub(super) const PROG_TYPE_SCHED_CLS: u32 = 3;
    pub(super) const TCX_INGRESS: u32 = 46;
    pub(super) const CGROUP_SOCK_OPS: u32 = 3;
    pub(super) const F_ALLOW_MULTI: u32 = 2;
}

/// Arguments of bpf(2) as 32-bit words, as long as any kernel's, so that what is not set is zero.
struct Arguments([u32; 36]);

impl Arguments {
    fn new(words: &[u32]) -> Self {
        let mut arguments = Self([0; 36]);
        arguments.0[..words.len()].copy_from_slice(words);
        arguments
    }

    /// Stores an address in the two words from `position`, in the machine's byte order, as the kernel reads a u64.
    fn pointing_to<T>(mut self, position: usize, target: *const T) -> Self {
        let bytes = (target.addr() as u64).to_ne_bytes();
        for (word, half) in self.0[position..position + 2].iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
        }
        self
    }

    /// Makes the call.
    ///
    /// # Safety
    /// Every address in the arguments must be valid for what `command` does with it.
    unsafe fn call(&mut self, command: Command) -> io::Result<libc::c_long> {
        // SAFETY: the caller vouches for what the arguments point to.
        unsafe { bpf(command, &mut self.0) }
    }

    /// Makes a call that returns a descriptor.
    ///
    /// # Safety
    /// As of [`Self::call`].
    unsafe fn open(&mut self, command: Command) -> io::Result<OwnedFd> {
        // SAFETY: the caller vouches for what the arguments point to.
        unsafe { bpf_descriptor(command, &mut self.0) }
    }
}

fn create_map(kind: u32, inner: Option<&OwnedFd>, max_entries: u32) -> io::Result<OwnedFd> {
    const U32: u32 = 4;
    let inner = inner.map_or(0, |inner| number(inner.as_fd()));
    // map_type, key_size, value_size, max_entries, map_flags, inner_map_fd
    let mut arguments = Arguments::new(&[kind, U32, U32, max_entries, 0, inner]);
    // SAFETY: BPF_MAP_CREATE follows no address here.
    unsafe { arguments.open(Command::MapCreate) }
}

fn update(map: &OwnedFd, key: u32, value: u32) -> io::Result<()> {
    // map_fd, padding, key, value, flags
    let mut arguments = Arguments::new(&[number(map.as_fd())])
        .pointing_to(2, &raw const key)
        .pointing_to(4, &raw const value);
    // SAFETY: key and value are as long as the map was created with and outlive the call.
    unsafe { arguments.call(Command::MapUpdateElem) }.map(drop)
}

/// Loads a TC program that returns 0.
pub(super) fn load_program() -> Attempt {
    // mov r0, 0; exit: the operation is in the first byte.
    let instructions = [0xb7, 0x95].map(|operation| u64::from_ne_bytes([operation, 0, 0, 0, 0, 0, 0, 0]));
    let license = c"GPL";
    // prog_type, insn_cnt, insns, license
    let mut arguments = Arguments::new(&[uapi::PROG_TYPE_SCHED_CLS, 2])
        .pointing_to(2, instructions.as_ptr())
        .pointing_to(4, license.as_ptr());
    // SAFETY: two instructions and a terminated string, both of which outlive the call.
    let result = unsafe { arguments.open(Command::ProgLoad) };
    Attempt::from_result(result, |_| String::new())
}

/// Asks which TCX programs the first interface of this namespace (loopback) has.
pub(super) fn query_tcx() -> Attempt {
    const LOOPBACK: u32 = 1;
    let mut arguments = Arguments::new(&[LOOPBACK, uapi::TCX_INGRESS]);
    // SAFETY: with a count of zero, BPF_PROG_QUERY follows no address.
    let result = unsafe { arguments.call(Command::ProgQuery) };
    // words: target, type, query flags, attach flags, two of address, count
    Attempt::from_result(result, |_| match arguments.0[6] {
        0 => "nothing else attached to lo".to_owned(),
        count => format!("{count} attached to lo already"),
    })
}

/// Asks which programs watch TCP sockets at a cgroup. Refused as [`libc::EBUSY`] where one has the place for itself.
pub(super) fn query_sock_ops(cgroup: &Path) -> Attempt {
    let Ok(directory) = File::open(cgroup) else { return Attempt::NotTried };
    let mut arguments = Arguments::new(&[number(directory.as_fd()), uapi::CGROUP_SOCK_OPS]);
    // SAFETY: with a count of zero, BPF_PROG_QUERY follows no address.
    let result = unsafe { arguments.call(Command::ProgQuery) };
    // words: target, type, query flags, attach flags, two of address, count
    let (flags, count) = (arguments.0[3], arguments.0[6]);
    match result {
        Ok(_) if count > 0 && flags & uapi::F_ALLOW_MULTI == 0 => Attempt::Refused(libc::EBUSY),
        _ => Attempt::from_result(result, |_| match count {
            0 => "no other program watches TCP sockets".to_owned(),
            count => format!("beside {count} of others"),
        }),
    }
}

/// Adds a clsact qdisc to the loopback interface of a network namespace that vanishes afterwards.
pub(super) fn add_clsact(capabilities: CapabilitySet, tcx: &Attempt) -> Attempt {
    if tcx.works() {
        return Attempt::NotNeeded;
    }
    if !capabilities.permits(Capability::SysAdmin) {
        return Attempt::NotTried;
    }
    let add = || {
        // SAFETY: only this thread moves to the new namespace, and it ends right after.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Attempt::NotTried;
        }
        match qdisc_add_clsact("lo") {
            Ok(()) => Attempt::Works(String::new()),
            Err(TcError::NetlinkError(error)) => {
                Attempt::Refused(error.raw_os_error().unwrap_or(libc::EINVAL))
            }
            Err(_) => Attempt::Refused(libc::EINVAL),
        }
    };
    thread::scope(|scope| scope.spawn(add).join()).unwrap_or_default()
}

/// Replaces the inner map of a map of maps, which returns after a grace period (1ae80cf31938).
pub(super) fn update_map_in_map() -> Attempt {
    let duration = || -> io::Result<_> {
        let inner = create_map(uapi::MAP_TYPE_ARRAY, None, 1)?;
        let outer = create_map(uapi::MAP_TYPE_ARRAY_OF_MAPS, Some(&inner), 1)?;
        let start = Instant::now();
        update(&outer, 0, number(inner.as_fd()))?;
        Ok(start.elapsed())
    };
    Attempt::from_result(duration(), |duration| format!("{duration:.1?} just now"))
}

/// Reads and deletes the one entry of a hash map in a batch.
pub(super) fn delete_batch() -> Attempt {
    let count = || -> io::Result<u32> {
        let map = create_map(uapi::MAP_TYPE_HASH, None, 4)?;
        update(&map, 1, 1)?;
        let (mut position, mut keys, mut values) = ([0u64; 2], [0u32; 4], [0u32; 4]);
        // in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
        let mut arguments = Arguments::new(&[0, 0, 0, 0, 0, 0, 0, 0, 4, number(map.as_fd())])
            .pointing_to(2, position.as_mut_ptr())
            .pointing_to(4, keys.as_mut_ptr())
            .pointing_to(6, values.as_mut_ptr());
        // SAFETY: position is larger than a hash map needs, and there is room for the four entries asked for.
        let result = unsafe { arguments.call(Command::MapLookupAndDeleteBatch) };
        match result {
            // The end of the map is reported as an error, with the count of entries up to it.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(arguments.0[8]),
        }
    };
    match count() {
        Ok(1) => Attempt::Works(String::new()),
        Ok(_) => Attempt::Refused(libc::EINVAL),
        Err(error) => Attempt::from_result(Err::<(), _>(error), |()| String::new()),
    }
}
