//! Fields of kernel structures, by the offsets that user space found.

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_get_current_task};
use weir_common::sockets::{Offsets, ProcessRecord};

/// Where the fields are. Set by the loader.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets {
    file_inode: 0,
    file_private: 0,
    inode_mode: 0,
    socket_file: 0,
    socket_sock: 0,
    sock_family: 0,
    sock_protocol: 0,
    sock_state: 0,
    sock_v6only: 0,
    sock_local_port: 0,
    sock_remote_port: 0,
    sock_local_v4: 0,
    sock_remote_v4: 0,
    sock_local_v6: 0,
    sock_remote_v6: 0,
    sock_net: 0,
    sock_cookie: 0,
    net_inode: 0,
    task_leader: 0,
    task_pid: 0,
    task_started: 0,
    task_command: 0,
    pid_level: 0,
    pid_numbers: 0,
    pid_number_size: 0,
    pid_number: 0,
};

/// The process that a task belongs to, with its number in the pid namespace of that level.
#[inline(always)]
pub(crate) fn process(task: u64, level: u32) -> Option<ProcessRecord> {
    let leader = read::<u64>(task, at(&raw const OFFSETS.task_leader))?;
    let pid = read::<u64>(leader, at(&raw const OFFSETS.task_pid))?;
    if read::<u32>(pid, at(&raw const OFFSETS.pid_level))? < level {
        return None;
    }
    let numbers = pid.wrapping_add(at(&raw const OFFSETS.pid_numbers));
    let number = numbers.wrapping_add(u64::from(level).wrapping_mul(at(&raw const OFFSETS.pid_number_size)));
    Some(ProcessRecord {
        started: read(leader, at(&raw const OFFSETS.task_started))?,
        pid: read(number, at(&raw const OFFSETS.pid_number))?,
        reserved: 0,
        command: read(leader, at(&raw const OFFSETS.task_command))?,
    })
}

/// The task that runs this.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_get_current_task() }
}

/// How deep the pid namespace of a task lies.
#[inline(always)]
pub(crate) fn level_of(task: u64) -> Option<u32> {
    let pid = read::<u64>(task, at(&raw const OFFSETS.task_pid))?;
    read(pid, at(&raw const OFFSETS.pid_level))
}

/// Reads one of [`OFFSETS`]. The loader changes them after compilation, so the compiler must not look inside.
#[inline(always)]
pub(crate) fn at(offset: *const u32) -> u64 {
    // SAFETY: the pointer is to a member of a static.
    u64::from(unsafe { offset.read_volatile() })
}

/// Reads a value out of kernel memory.
#[inline(always)]
pub(crate) fn read<T>(structure: u64, offset: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel(structure.wrapping_add(offset) as *const T) }.ok()
}
