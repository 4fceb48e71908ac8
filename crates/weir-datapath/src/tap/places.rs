//! Where the running kernel keeps what the programs look at.

use std::process;

use weir_common::tap::Places;

use super::settings::{Settings, Tier};
use crate::sockets::kernel_types::{KernelTypes, KernelTypesError};

/// Bytes in the ring at which user space is woken. Less wakes it too often, more does not make it cheaper.
const WAKE: u32 = 512 << 10;

/// Registers that hold the arguments of a system call on x86-64, in order.
const ARGUMENTS: [&str; 6] = ["di", "si", "dx", "r10", "r8", "r9"];

/// Finds all fields.
pub(super) fn find(types: &KernelTypes, tier: Tier, settings: &Settings) -> Result<Places, KernelTypesError> {
    let at = |structure, field| types.offset(structure, field);
    let sock = |field| types.sock_offset(field);
    let owner = types.required("sock", "sk_kern_sock")?;
    let mut regs_arguments = [0; 6];
    for (place, register) in regs_arguments.iter_mut().zip(ARGUMENTS) {
        *place = at("pt_regs", register)?;
    }
    Ok(Places {
        ready: 1,
        unix: settings.unix.into(),
        own_pid: process::id(),
        wake: WAKE.min(settings.ring / 4),
        messages: settings.count_messages.into(),
        // Programs of these tiers get no typed sockets, in which alone the kernel keeps entries.
        table: matches!(tier, Tier::Probes | Tier::Syscalls).into(),
        ended: (tier == Tier::Syscalls).into(),
        sock_family: sock("skc_family")?,
        sock_protocol: at("sock", "sk_protocol")?,
        sock_state: sock("skc_state")?,
        sock_local_port: sock("skc_num")?,
        sock_remote_port: sock("skc_dport")?,
        sock_local_v4: sock("skc_rcv_saddr")?,
        sock_remote_v4: sock("skc_daddr")?,
        sock_local_v6: sock("skc_v6_rcv_saddr")?,
        sock_remote_v6: sock("skc_v6_daddr")?,
        sock_cookie: sock("skc_cookie")?,
        sock_socket: at("sock", "sk_socket")?,
        inode_number: at("inode", "i_ino")?,
        sock_flags: sock("skc_flags")?,
        // possible_net_t has the pointer as its only member.
        sock_net: sock("skc_net")?,
        sock_kernel: owner.bit_offset / 8,
        sock_kernel_mask: 1 << (owner.bit_offset % 8),
        net_inode: at("net", "ns")? + at("ns_common", "inum")?,
        tcp_write: at("tcp_sock", "write_seq")?,
        tcp_copied: at("tcp_sock", "copied_seq")?,
        tcp_next: at("tcp_sock", "rcv_nxt")?,
        tcp_unacknowledged: at("tcp_sock", "snd_una")?,
        tcp_acknowledged: at("tcp_sock", "bytes_acked")?,
        tcp_received: at("tcp_sock", "bytes_received")?,
        task_status: at("task_struct", "thread_info")? + at("thread_info", "status")?,
        task_leader: at("task_struct", "group_leader")?,
        task_command: at("task_struct", "comm")?,
        task_tgid: at("task_struct", "tgid")?,
        task_pid: at("task_struct", "pid")?,
        task_cgroups: at("task_struct", "cgroups")?,
        task_cred: at("task_struct", "cred")?,
        task_files: at("task_struct", "files")?,
        cred_user: at("cred", "uid")?,
        set_cgroup: at("css_set", "dfl_cgrp")?,
        cgroup_node: at("cgroup", "kn")?,
        cgroup_parent: at("cgroup", "self")? + at("cgroup_subsys_state", "parent")?,
        state_cgroup: at("cgroup_subsys_state", "cgroup")?,
        node_id: at("kernfs_node", "id")?,
        regs_number: at("pt_regs", "orig_ax")?,
        regs_result: at("pt_regs", "ax")?,
        regs_arguments,
        socket_sock: at("socket", "sk")?,
        socket_file: at("socket", "file")?,
        file_private: at("file", "private_data")?,
        file_inode: at("file", "f_inode")?,
        inode_mode: at("inode", "i_mode")?,
        files_table: at("files_struct", "fdt")?,
        table_files: at("fdtable", "fd")?,
        table_length: at("fdtable", "max_fds")?,
    })
}
