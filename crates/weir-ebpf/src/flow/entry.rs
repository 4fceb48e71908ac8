//! One entry of the flow table: its first packet, which decides whether the flow is kept, and every further one.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_jiffies64, bpf_skb_cgroup_id};
use weir_common::flow::{FlowValue, KEY_WORDS, VERDICT_FILTERED, VERDICT_KEEP};
use weir_ebpf::{
    headers::ParsedHeaders,
    skb::{Frames, Skb},
};

use crate::{account::Place, filter, maps::TC_HOOK};

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;

/// Whether these TCP flags ask for a connection (SYN without ACK).
#[inline(always)]
const fn opens(tcp_flags: u16) -> bool {
    tcp_flags & (SYN | ACK) == SYN
}

/// Whether these TCP flags end one side of a connection.
#[inline(always)]
const fn closes(tcp_flags: u16) -> bool {
    tcp_flags & (FIN | RST) != 0
}

/// All that is known about a packet, off the plain path.
pub(crate) struct Packet<'a> {
    pub(crate) frames: &'a Frames,
    pub(crate) headers: &'a ParsedHeaders,
    /// 1 if it is at a DNS port.
    pub(crate) is_dns: u8,
}

impl Packet<'_> {
    /// Adds what its headers say to an entry.
    #[inline(always)]
    pub(crate) fn describe(&self, value: &mut FlowValue) {
        describe(value, self.headers.tcp_flags, self.headers.dscp, self.headers.ttl);
    }
}

/// What became of a packet that belongs to a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Outcome {
    /// Added to a flow that is reported.
    Counted = 0,
    /// The filter rejects the flow.
    Filtered = 1,
    /// There was no room.
    Overflow = 2,
}

/// Whether an entry takes more packets, and what becomes of them otherwise.
#[inline(always)]
pub(crate) fn admission(value: &FlowValue) -> Outcome {
    // Entries of flows that are not kept are saturated from the first packet on, so that one look is enough.
    if value.packets < FlowValue::SATURATED {
        return Outcome::Counted;
    }
    if value.verdict == VERDICT_FILTERED { Outcome::Filtered } else { Outcome::Overflow }
}

/// Adds what the headers of a packet say to an entry.
#[inline(always)]
pub(crate) fn describe(value: &mut FlowValue, tcp_flags: u16, dscp: u8, ttl: u8) {
    value.tcp_flags |= tcp_flags;
    value.last_tcp_flags = tcp_flags;
    value.dscp = dscp;
    value.ttl = ttl;
    if tcp_flags & (SYN | FIN | RST) != 0 {
        if opens(tcp_flags) && value.syn != u8::MAX {
            value.syn += 1;
        }
        if closes(tcp_flags) && value.fin_rst != u8::MAX {
            value.fin_rst += 1;
        }
    }
}

/// Adds what a packet measures to an entry.
#[inline(always)]
pub(crate) fn count(value: &mut FlowValue, frames: &Frames) {
    value.bytes += frames.count.bytes;
    value.packets += packets(frames);
    touch(value, frames);
}

/// The same but for bytes and packets.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a frame has fewer than 2^32 bytes")]
pub(crate) fn touch(value: &mut FlowValue, frames: &Frames) {
    value.skb_bytes += frames.skb_bytes;
    value.skbs += 1;
    value.last_length = frames.last_length as u32;
    value.last = now();
}

/// The number of frames as entries have it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a packet has fewer than 2^16 segments")]
pub(crate) fn packets(frames: &Frames) -> u32 {
    frames.count.packets as u32
}

/// The time in jiffies, of which entries have the low 32 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "user space knows the upper half")]
fn now() -> u32 {
    // SAFETY: no arguments, no preconditions.
    (unsafe { bpf_jiffies64() }) as u32
}

/// Fills a new entry and decides whether its flow is kept.
#[inline(never)]
pub(crate) fn first_packet(
    skb: Skb,
    key: &[u64; KEY_WORDS],
    value: &mut FlowValue,
    packet: &Packet<'_>,
    place: &Place,
) -> Outcome {
    let is_kept = filter::admits(key, place.generation);
    (value.verdict, value.packets) =
        if is_kept { (VERDICT_KEEP, 0) } else { (VERDICT_FILTERED, FlowValue::SATURATED) };
    value.is_dns = packet.is_dns;
    value.reserved = [0; 2];
    value.skb_bytes = 0;
    value.bytes = 0;
    value.skbs = 0;
    value.first = now();
    value.tcp_flags = 0;
    value.syn = 0;
    value.fin_rst = 0;
    packet.describe(value);
    count(value, packet.frames);
    // Socket filters see a copy of the packet that belongs to no socket, and may not ask for its cgroup. The verifier
    // knows the constant, so what it forbids there is gone before it looks.
    if TC_HOOK.load() == 0 {
        value.cookie = 0;
        value.cgroup = 0;
    } else {
        // SAFETY: the context is that of this program.
        value.cookie = unsafe { bpf_get_socket_cookie(skb.as_ptr().cast()) };
        // SAFETY: as above.
        value.cgroup = unsafe { bpf_skb_cgroup_id(skb.as_ptr()) };
    }
    if is_kept { Outcome::Counted } else { Outcome::Filtered }
}
