//! Somebody else's program for TCP sockets: it asks for a callback per round-trip time and counts those.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::cannot_run;

/// The program, attached to the topmost cgroup by a link.
#[derive(Debug)]
pub struct Foreign {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Commands of bpf(2).
pub(crate) mod command {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub(super) const PROG_LOAD: libc::c_long = 5;
    pub(crate) const LINK_CREATE: libc::c_long = 28;
}

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;

impl Foreign {
    /// Attaches it; says why it cannot, if there is no cgroup v2.
    pub fn attach() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("there is a list of mounts");
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let Some(path) = mount.and_then(|line| line.split(' ').nth(1)) else {
            cannot_run("no cgroup v2 is mounted");
            return None;
        };
        let cgroup = File::open(path).expect("root may open it");
        // map_type, key_size, value_size, max_entries
        let map = bpf(command::MAP_CREATE, &mut [MAP_TYPE_ARRAY, 4, 8, 1]);
        let program = load(PROG_TYPE_SOCK_OPS, CGROUP_SOCK_OPS, &program(map.as_raw_fd()));
        // prog_fd, target_fd, attach_type, flags
        let [program_fd, cgroup_fd] = [program.as_raw_fd(), cgroup.as_raw_fd()].map(i32::cast_unsigned);
        let link = bpf(command::LINK_CREATE, &mut [program_fd, cgroup_fd, CGROUP_SOCK_OPS, 0]);
        Some(Self { map, _program: program, _link: link })
    }

    /// Callbacks so far.
    pub fn calls(&self) -> u64 {
        let (key, mut calls) = (0_u32, 0_u64);
        let [key_low, key_high] = halves((&raw const key).addr());
        let [value_low, value_high] = halves((&raw mut calls).addr());
        // map_fd, padding, key, value, flags
        let mut lookup =
            [self.map.as_raw_fd().cast_unsigned(), 0, key_low, key_high, value_low, value_high, 0, 0];
        let outcome = call(command::MAP_LOOKUP_ELEM, &mut lookup);
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has written it, which the compiler did not see.
        unsafe { (&raw const calls).read_volatile() }
    }
}

/// Loads a program.
pub(crate) fn load(program_type: u32, attach_type: u32, instructions: &[u64]) -> OwnedFd {
    let [low, high] = halves(instructions.as_ptr().addr());
    let license = c"GPL";
    let [license_low, license_high] = halves(license.as_ptr().addr());
    let count = u32::try_from(instructions.len()).expect("it is short");
    // prog_type, insn_cnt, insns, license, log (none), kern_version, flags, name, ifindex, expected_attach_type
    let mut load = [0_u32; 18];
    load[..6].copy_from_slice(&[program_type, count, low, high, license_low, license_high]);
    load[17] = attach_type;
    bpf(command::PROG_LOAD, &mut load)
}

/// An instruction.
pub(crate) fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    u64::from_ne_bytes([code, registers, offset_low, offset_high, a, b, c, d])
}

/// On an established connection: set the flags to "call per round-trip time" and nothing else. On such a call: count.
fn program(map: i32) -> Vec<u64> {
    vec![
        op(0xbf, 0x16, 0, 0),   // r6 = r1
        op(0x61, 0x12, 0, 0),   // r2 = context.op
        op(0x15, 0x02, 9, 12),  // if r2 == BPF_SOCK_OPS_RTT_CB: count
        op(0x15, 0x02, 3, 4),   // if r2 == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB: set
        op(0x15, 0x02, 2, 5),   // if r2 == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB: set
        op(0xb7, 0x00, 0, 1),   // r0 = 1
        op(0x95, 0x00, 0, 0),   // exit
        op(0xbf, 0x61, 0, 0),   // set: r1 = r6
        op(0xb7, 0x02, 0, 8),   // r2 = BPF_SOCK_OPS_RTT_CB_FLAG
        op(0x85, 0x00, 0, 59),  // bpf_sock_ops_cb_flags_set
        op(0xb7, 0x00, 0, 1),   // r0 = 1
        op(0x95, 0x00, 0, 0),   // exit
        op(0x62, 0x0a, -4, 0),  // count: key = 0
        op(0xbf, 0xa2, 0, 0),   // r2 = r10
        op(0x07, 0x02, 0, -4),  // r2 += -4
        op(0x18, 0x11, 0, map), // r1 = map
        op(0x00, 0x00, 0, 0),   // (second half)
        op(0x85, 0x00, 0, 1),   // bpf_map_lookup_elem
        op(0x15, 0x00, 2, 0),   // if r0 == 0: exit
        op(0xb7, 0x01, 0, 1),   // r1 = 1
        op(0xdb, 0x10, 0, 0),   // *r0 += r1, atomically
        op(0xb7, 0x00, 0, 1),   // r0 = 1
        op(0x95, 0x00, 0, 0),   // exit
    ]
}

/// An address as two words of the arguments of bpf(2).
fn halves(address: usize) -> [u32; 2] {
    let bytes = (address as u64).to_ne_bytes();
    let half =
        |from: usize| u32::from_ne_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]]);
    [half(0), half(4)]
}

fn call(number: libc::c_long, arguments: &mut [u32]) -> libc::c_long {
    // SAFETY: the callers pass addresses of what outlives the call and is as long as the kernel expects.
    unsafe { libc::syscall(libc::SYS_bpf, number, arguments.as_mut_ptr(), size_of_val(arguments)) }
}

/// A call that answers with a descriptor.
pub(crate) fn bpf(number: libc::c_long, arguments: &mut [u32]) -> OwnedFd {
    let outcome = call(number, arguments);
    assert!(outcome >= 0, "command {number}: {}", io::Error::last_os_error());
    // SAFETY: the kernel just gave us this descriptor.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(outcome).expect("descriptors are small")) }
}
