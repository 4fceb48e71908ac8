//! Where datagrams come from: noted where the kernel asks programs of the cgroup about it (`cgroup/recvmsg4` and `6`, since 5.2,
//! 983695fa6765), in the thread that receives, before the receiving is told. Nothing is changed, and everything allowed.

use aya_ebpf::{helpers::generated::bpf_get_current_pid_tgid, programs::SockAddrContext};
use weir_common::tap::Entry;

use crate::{
    judge::in_force,
    maps::SOCKETS,
    socket::{mapped, write_words},
};

/// The datagram may be received.
pub(crate) const ALLOW: i32 = 1;

/// Notes an IPv4 address.
#[inline(always)]
pub(crate) fn note_4(context: &SockAddrContext) {
    // SAFETY: the context is valid; the verifier checks the load.
    let address = unsafe { (*context.sock_addr).user_ip4 };
    note(context, mapped(address));
}

/// Notes an IPv6 address.
#[inline(always)]
pub(crate) fn note_6(context: &SockAddrContext) {
    // SAFETY: as above.
    let words = unsafe { &raw const (*context.sock_addr).user_ip6 }.cast::<u32>();
    let word = |index: usize| {
        let word = words.wrapping_add(index);
        // SAFETY: as above. One by one: the kernel allows no other access.
        u64::from(unsafe { word.read_volatile() })
    };
    note(context, [word(1) << 32 | word(0), word(3) << 32 | word(2)]);
}

#[inline(always)]
fn note(context: &SockAddrContext, address: [u64; 2]) {
    if in_force().is_none() {
        return;
    }
    // SAFETY: the socket is that of the context.
    let entry: *mut Entry = unsafe { SOCKETS.get_or_insert_ptr_mut(context, None) };
    if entry.is_null() {
        return;
    }
    // SAFETY: the kernel keeps it as long as the socket.
    let entry = unsafe { &mut *entry };
    // SAFETY: as above.
    let port = unsafe { (*context.sock_addr).user_port };
    write_words(&mut entry.peer, address);
    entry.peer_port = u16::from_be(port as u16);
    // SAFETY: no arguments, no preconditions.
    entry.peer_tid = unsafe { bpf_get_current_pid_tgid() } as u32;
    entry.peer_is_known = 1;
}
