//! A socket: its fields, what is kept in it, and its ends. Typed where the kernel gives us a typed pointer, which the
//! verifier lets us read without a helper, else a plain address.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock},
};
use weir_common::tap::{Ends, Entry, SENT, base};

use crate::{
    maps::{EMPTY_ENTRY, SOCKET_TABLE, SOCKETS},
    places::{place, read},
};

/// The entry must be new.
const NEW: u64 = aya_ebpf::bindings::BPF_NOEXIST as u64;

/// Bit of numbers that are no cookies.
const BY_INODE: u64 = 1 << 63;

pub(crate) const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const TCP: u16 = 6;
pub(crate) const UDP: u16 = 17;
/// Multipath TCP.
pub(crate) const MPTCP: u16 = 262;
pub(crate) const UDP_LITE: u16 = 136;

/// Whether sockets of this protocol exchange datagrams.
#[inline(always)]
pub(crate) fn is_of_datagrams(protocol: u16) -> bool {
    protocol == UDP || protocol == UDP_LITE
}

/// Sequence numbers and counts of a TCP socket.
#[derive(Clone, Copy)]
pub(crate) struct Sequences {
    /// Where the next byte sent goes, and the next byte read is.
    pub(crate) now: [u32; 2],
    /// Bytes sent and read since the beginning, in 64 bits. Only right while the socket is locked; else off by what moves at
    /// that moment.
    pub(crate) totals: [u64; 2],
}

/// Access to a socket.
pub(crate) trait Socket: Copy {
    /// Reads a field of `struct sock`.
    fn field<T: Copy + Default>(self, place: u32) -> T;

    /// The entry of the socket; makes one if `create`. Null without memory, or if there is none.
    fn entry(self, create: bool) -> *mut Entry;

    /// The cookie.
    fn cookie(self) -> u64;

    /// Sequence numbers, of a TCP socket.
    fn sequences(self) -> Option<Sequences>;

    /// The next byte sent or read, of a TCP socket.
    fn sequence(self, way: u8) -> Option<u32>;
}

/// A pointer whose type the verifier knows.
#[derive(Clone, Copy)]
pub(crate) struct Typed(pub(crate) *mut u8);

/// An address.
#[derive(Clone, Copy)]
pub(crate) struct Plain(pub(crate) u64);

/// The entry of the socket at an address, where entries are kept in a table.
#[inline(always)]
fn in_table(address: u64, create: bool) -> *mut Entry {
    if let Some(entry) = SOCKET_TABLE.get_ptr_mut(address) {
        return entry;
    }
    if !create {
        return ptr::null_mut();
    }
    let Some(empty) = EMPTY_ENTRY.get(0) else { return ptr::null_mut() };
    // Another CPU may have been quicker, so the outcome is looked at, not the result.
    let _exists = SOCKET_TABLE.insert(address, empty, NEW);
    SOCKET_TABLE.get_ptr_mut(address).unwrap_or_default()
}

/// The entry of a typed socket, where they are kept in the sockets.
#[inline(always)]
fn in_socket(socket: *mut u8, flags: u64) -> *mut Entry {
    // SAFETY: a typed socket, which the verifier has seen to be there.
    unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), socket.cast(), ptr::null_mut(), flags)
    }
    .cast()
}

/// Forgets the entry of a socket that is gone, where entries are kept in a table.
#[inline(always)]
pub(crate) fn forget(socket: Typed) {
    if place!(table) != 0 {
        let _none = SOCKET_TABLE.remove(socket.0 as u64);
    }
}

/// Forgets the last connection of the socket.
#[inline(always)]
pub(crate) fn renew(entry: &mut Entry) {
    let mut way = 0;
    while way < 2 {
        let side = &mut entry.sides[way];
        side.seen = 0;
        side.captured = 0;
        side.lost = 0;
        side.untold = 0;
        side.rejected = 0;
        let mut reason = 0;
        while reason < side.gaps.len() {
            side.gaps[reason] = 0;
            reason += 1;
        }
        entry.finished[way] = 0;
        entry.positions[way] = 0;
        entry.totals[way] = 0;
        way += 1;
    }
    entry.told = 0;
    entry.base = base::UNKNOWN;
    entry.has_totals = 0;
    entry.speaker = 0;
    entry.spoken = 0;
}

/// The number of a socket, which stays the same, also if the kernel gives it a cookie later.
#[inline(always)]
pub(crate) fn identity<S: Socket>(entry: &mut Entry, socket: S) -> u64 {
    if entry.identity == 0 {
        entry.identity = socket.cookie();
    }
    entry.identity
}

/// Reads a member of a structure whose type the verifier knows.
#[inline(always)]
pub(crate) fn typed<T: Copy>(structure: *const u8, place: u32) -> T {
    let field = structure.wrapping_add(place as usize).cast::<T>();
    // SAFETY: the verifier checks that there is such a field; a fault reads zero.
    unsafe { field.read_volatile() }
}

impl Socket for Typed {
    #[inline(always)]
    fn field<T: Copy + Default>(self, place: u32) -> T {
        typed(self.0, place)
    }

    #[inline(always)]
    fn entry(self, create: bool) -> *mut Entry {
        if place!(table) != 0 {
            return in_table(self.0 as u64, create);
        }
        let entry = in_socket(self.0, if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 });
        if create && entry.is_null() {
            // Another CPU may have been quicker.
            return in_socket(self.0, 0);
        }
        entry
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    #[inline(always)]
    fn sequences(self) -> Option<Sequences> {
        // SAFETY: as above.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast()) }.cast::<u8>();
        if tcp.is_null() {
            return None;
        }
        let write: u32 = typed(tcp, place!(tcp_write));
        let next: u32 = typed(tcp, place!(tcp_next));
        let copied = without_end(self, typed(tcp, place!(tcp_copied)), next);
        let unacknowledged: u32 = typed(tcp, place!(tcp_unacknowledged));
        Some(together(
            [write, copied],
            next,
            unacknowledged,
            typed(tcp, place!(tcp_acknowledged)),
            typed(tcp, place!(tcp_received)),
        ))
    }

    #[inline(always)]
    fn sequence(self, way: u8) -> Option<u32> {
        // SAFETY: as above.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast()) }.cast::<u8>();
        if tcp.is_null() {
            return None;
        }
        if way == SENT {
            return Some(typed(tcp, place!(tcp_write)));
        }
        Some(without_end(self, typed(tcp, place!(tcp_copied)), typed(tcp, place!(tcp_next))))
    }
}

impl Plain {
    /// A number that no other socket has, while nobody has asked for the cookie: that of the inode.
    #[inline(always)]
    fn inode(self) -> u64 {
        let socket: u64 = self.field(place!(sock_socket));
        let file = read::<u64>(socket, place!(socket_file)).unwrap_or(0);
        let inode = read::<u64>(file, place!(file_inode)).unwrap_or(0);
        BY_INODE | read::<u64>(inode, place!(inode_number)).unwrap_or(0)
    }
}

impl Socket for Plain {
    #[inline(always)]
    fn field<T: Copy + Default>(self, place: u32) -> T {
        read(self.0, place).unwrap_or_default()
    }

    #[inline(always)]
    fn entry(self, create: bool) -> *mut Entry {
        let entry = in_table(self.0, create);
        if entry.is_null() {
            return entry;
        }
        // SAFETY: the kernel keeps it as long as the program runs.
        let known = unsafe { &mut *entry };
        // Only TCP sockets are taken out of the table when they are gone; another may lie where one was.
        let now = if known.identity & BY_INODE == 0 { self.field(place!(sock_cookie)) } else { self.inode() };
        if known.identity != 0 && known.identity != now {
            renew(known);
            known.identity = 0;
            known.role = 0;
            known.generation = 0;
        }
        entry
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        match self.field::<u64>(place!(sock_cookie)) {
            // Nobody has asked for it yet.
            0 => self.inode(),
            cookie => cookie,
        }
    }

    #[inline(always)]
    fn sequences(self) -> Option<Sequences> {
        let write: u32 = self.field(place!(tcp_write));
        let next: u32 = self.field(place!(tcp_next));
        let copied = without_end(self, self.field(place!(tcp_copied)), next);
        let unacknowledged: u32 = self.field(place!(tcp_unacknowledged));
        Some(together(
            [write, copied],
            next,
            unacknowledged,
            self.field(place!(tcp_acknowledged)),
            self.field(place!(tcp_received)),
        ))
    }

    #[inline(always)]
    fn sequence(self, way: u8) -> Option<u32> {
        if way == SENT {
            return Some(self.field(place!(tcp_write)));
        }
        Some(without_end(self, self.field(place!(tcp_copied)), self.field(place!(tcp_next))))
    }
}

/// The next byte that is read. Reading the end of the stream takes a sequence number as well, also if the call that did it
/// has returned bytes.
#[inline(always)]
fn without_end<S: Socket>(socket: S, copied: u32, next: u32) -> u32 {
    copied.wrapping_sub(u32::from(has_received_end(socket) && copied == next))
}

/// Whether the end of the stream has come, read or not.
#[inline(always)]
pub(crate) fn has_received_end<S: Socket>(socket: S) -> bool {
    /// Bit of `sk_flags` (`SOCK_DONE`).
    const DONE: u64 = 1 << 1;
    socket.field::<u64>(place!(sock_flags)) & DONE != 0
}

#[inline(always)]
fn together(now: [u32; 2], next: u32, unacknowledged: u32, acknowledged: u64, received: u64) -> Sequences {
    Sequences {
        now,
        totals: [
            acknowledged.wrapping_add(u64::from(now[0].wrapping_sub(unacknowledged))),
            received.wrapping_sub(u64::from(next.wrapping_sub(now[1]))),
        ],
    }
}

/// Where the socket's ends are.
#[inline(always)]
pub(crate) fn ends<S: Socket>(socket: S, family: u16, protocol: u16, ends: &mut Ends) {
    *ends = Ends { family, protocol, ..Ends::default() };
    if family == AF_UNIX {
        return;
    }
    ends.local_port = socket.field(place!(sock_local_port));
    ends.remote_port = u16::from_be(socket.field(place!(sock_remote_port)));
    if family == AF_INET6 {
        let local: [u64; 2] = [socket.field(place!(sock_local_v6)), socket.field(place!(sock_local_v6) + 8)];
        let remote: [u64; 2] =
            [socket.field(place!(sock_remote_v6)), socket.field(place!(sock_remote_v6) + 8)];
        write_words(&mut ends.local, local);
        write_words(&mut ends.remote, remote);
    } else {
        write_words(&mut ends.local, mapped(socket.field(place!(sock_local_v4))));
        write_words(&mut ends.remote, mapped(socket.field(place!(sock_remote_v4))));
    }
}

/// Stands for the other end of a socket of datagrams, which may be connected anew at any time; 0 if it has none.
#[inline(always)]
pub(crate) fn remote_end<S: Socket>(socket: S, family: u16) -> u64 {
    let port: u16 = socket.field(place!(sock_remote_port));
    if port == 0 {
        return 0;
    }
    let address = if family == AF_INET6 {
        let high: u64 = socket.field(place!(sock_remote_v6));
        let low: u64 = socket.field(place!(sock_remote_v6) + 8);
        high.rotate_left(32) ^ low
    } else {
        u64::from(socket.field::<u32>(place!(sock_remote_v4)))
    };
    address ^ u64::from(port) << 48 | 1
}

/// The words of a mapped address. `address` is as in memory.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u64; 2] {
    [0, u64::from(address) << 32 | 0xffff_0000]
}

/// Addresses are aligned to eight bytes in all our structures.
#[inline(always)]
pub(crate) fn write_words(place: &mut [u8; 16], words: [u64; 2]) {
    #[expect(clippy::cast_ptr_alignment, reason = "they are aligned")]
    let place = (&raw mut *place).cast::<[u64; 2]>();
    // SAFETY: sixteen bytes, aligned.
    unsafe { place.write(words) };
}
