//! The other ends of datagrams that go through sockets without one.
//!
//! Where a datagram comes from is noted where the kernel asks programs of the cgroup about it (`cgroup/recvmsg4` and `6`, since 5.2,
//! 983695fa6765), in the thread that receives, before the receiving is told. Where one goes, the call names. After the end of a system call its
//! memory tells both. Nothing is changed, and everything allowed.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock, helpers::generated::bpf_get_socket_cookie,
    programs::SockAddrContext,
};
use weir_common::tap::RECEIVED;

use crate::{
    copy::{Call, read_user},
    judge::in_force,
    maps::{CALLS, NOTES, SOCKETS},
    places::place,
    socket::{AF_INET, AF_INET6, Socket, is_of_datagrams, mapped, write_words},
    system_call::{current, is_compat, is_in_progress, locate},
    thread,
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

/// Notes an end of a socket that has no other one. By thread, because others may receive from the socket at the same time.
#[inline(always)]
fn note(context: &SockAddrContext, address: [u64; 2]) {
    let Some((control, set)) = in_force() else { return };
    // SAFETY: the context is valid.
    let socket = unsafe { &raw const (*context.sock_addr).__bindgen_anon_1 }.cast::<*const bpf_sock>();
    // SAFETY: the kernel passes the socket, and the verifier checks the load.
    let socket = unsafe { socket.read() };
    // SAFETY: as above.
    if socket.is_null() || unsafe { (*socket).dst_port } != 0 {
        return;
    }
    let thread = thread();
    // A verdict that depends on the command or the cgroup may be another one by the end of the call.
    if place!(table) == 0 && set.commands | set.cgroups == 0 {
        // SAFETY: the socket is that of the context.
        let entry = unsafe { SOCKETS.get_ptr_mut(context) };
        if !entry.is_null() {
            // SAFETY: the kernel keeps it as long as the socket.
            let entry = unsafe { &*entry };
            let is_for_this = entry.generation == control.generation
                && u64::from(entry.pid) == thread >> 32
                && entry.remote == 0;
            // Nobody will ask.
            if is_for_this && entry.verdict[usize::from(RECEIVED)] == 0 {
                return;
            }
        }
    }
    // SAFETY: the context is valid.
    let port = u16::from_be(unsafe { (*context.sock_addr).user_port } as u16);
    // SAFETY: as above.
    let socket = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    let _full = NOTES.insert(thread, [socket, address[0], address[1], port.into()], 0);
}

/// Takes what this thread was told of the datagram that it has received from the socket. The kernel tells it only to calls that
/// ask: the next one may not.
#[inline(always)]
pub(crate) fn take_note<S: Socket>(socket: S, call: &mut Call) {
    // SAFETY: the value is copied, and this thread alone writes it.
    let Some([noted, high, low, port]) = unsafe { NOTES.get(thread()) }.copied() else { return };
    let _gone = NOTES.remove(thread());
    if noted == socket.cookie() {
        write_words(&mut call.header.peer, [high, low]);
        call.header.peer_port = port as u16;
        call.header.has_peer = 1;
    }
}

/// Forgets what this thread was told of a datagram that it has only looked at.
#[inline(always)]
pub(crate) fn forget_note<S: Socket>(socket: S) {
    if is_of_datagrams(socket.field(place!(sock_protocol))) {
        let _none = NOTES.remove(thread());
    }
}

/// Finds the other end of the datagram that the call in the slot has moved, before it is judged. 0 if nobody tells it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_peer(slot: u64, way: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    let way = way as u8;
    let is_named = way != RECEIVED || place!(ended) != 0;
    call.name = 0;
    if is_named && is_in_progress() && !is_compat() && locate(call, &current(), way, 0).is_ok() {
        named_peer(call);
    }
    if call.header.has_peer == 0 {
        return 0;
    }
    call.ends.remote = call.header.peer;
    call.ends.remote_port = call.header.peer_port;
    1
}

/// The other end of a datagram, where the call names it.
#[inline(always)]
pub(crate) fn named_peer(call: &mut Call) {
    // Family and port, then the address: that of IPv6 begins four bytes later.
    let mut name = [0_u32; 2];
    if call.name == 0 || call.name_length < 8 || !read_user(&mut name, call.name) {
        return;
    }
    let family = name[0] as u16;
    if family == AF_INET {
        write_words(&mut call.header.peer, mapped(name[1]));
    } else if family == AF_INET6 && call.name_length >= 24 {
        let mut address = [0_u64; 2];
        if !read_user(&mut address, call.name.wrapping_add(8)) {
            return;
        }
        write_words(&mut call.header.peer, address);
    } else {
        return;
    }
    call.header.peer_port = u16::from_be((name[0] >> 16) as u16);
    call.header.has_peer = 1;
}
