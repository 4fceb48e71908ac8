//! Fields of kernel structures, by the places that user space found, and memory access.

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_get_current_task};
use weir_common::tap::Places;

/// Where the fields are. Set by the loader.
#[unsafe(no_mangle)]
pub(crate) static PLACES: Places = Places {
    ready: 0,
    unix: 0,
    own_pid: 0,
    wake: 0,
    messages: 0,
    table: 0,
    ended: 0,
    sock_family: 0,
    sock_protocol: 0,
    sock_state: 0,
    sock_local_port: 0,
    sock_remote_port: 0,
    sock_local_v4: 0,
    sock_remote_v4: 0,
    sock_local_v6: 0,
    sock_remote_v6: 0,
    sock_cookie: 0,
    sock_socket: 0,
    inode_number: 0,
    sock_flags: 0,
    sock_net: 0,
    sock_kernel: 0,
    sock_kernel_mask: 0,
    net_inode: 0,
    tcp_write: 0,
    tcp_copied: 0,
    tcp_next: 0,
    tcp_unacknowledged: 0,
    tcp_acknowledged: 0,
    tcp_received: 0,
    task_status: 0,
    task_leader: 0,
    task_command: 0,
    task_tgid: 0,
    task_pid: 0,
    task_cgroups: 0,
    task_cred: 0,
    task_files: 0,
    cred_user: 0,
    set_cgroup: 0,
    cgroup_node: 0,
    cgroup_parent: 0,
    state_cgroup: 0,
    node_id: 0,
    regs_number: 0,
    regs_result: 0,
    regs_arguments: [0; 6],
    socket_sock: 0,
    socket_file: 0,
    file_private: 0,
    file_inode: 0,
    inode_mode: 0,
    files_table: 0,
    table_files: 0,
    table_length: 0,
};

/// Reads one of [`PLACES`]. The loader changes them after compilation, so the compiler must not look inside.
macro_rules! place {
    ($field:ident $([$index:literal])?) => {{
        // SAFETY: the pointer is to a member of a static.
        unsafe { (&raw const $crate::places::PLACES.$field $([$index])?).read_volatile() }
    }};
}
pub(crate) use place;

/// The task that runs this, as a number.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_get_current_task() }
}

/// Reads a value out of kernel memory.
#[inline(always)]
pub(crate) fn read<T>(structure: u64, place: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel(structure.wrapping_add(u64::from(place)) as *const T) }.ok()
}
