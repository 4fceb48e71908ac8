//! DNS messages: which flows carry them, and the way of a message to user space.
//!
//! Nothing here is on the way of other packets: an entry of the table says whether its flow is at a DNS port. What does
//! not fit the ring is counted. Duplicates are not handed over, nor is what cannot hold a message.

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{PerCpuArray, RingBuf},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query, bpf_skb_load_bytes},
    macros::btf_map,
};
use weir_common::dns::{
    DNS_CLASSES, DNS_LEAST_SEGMENT, DNS_RING_BYTES, DnsCounts, DnsHeader, MOST_DNS_PORTS,
};
use weir_ebpf::{headers::PARSED_IP, skb::Skb};
use weir_packet::{Link, Tuple, plain, protocol};

use crate::{
    account::{self, Direction},
    maps::{SCRATCH, Scratch},
};

/// Ports that DNS is expected at; zeros behind the last one. Without any the verifier drops what follows from them.
#[unsafe(no_mangle)]
static DNS_PORTS: Global<[u16; MOST_DNS_PORTS]> = Global::new([0; MOST_DNS_PORTS]);

/// Messages on their way to user space. When it is full, messages count as lost.
#[btf_map]
static EVENTS: RingBuf<[u8; 0], 4096> = RingBuf::new();

/// What became of messages.
#[btf_map]
static EVENT_COUNTS: PerCpuArray<DnsCounts, 1> = PerCpuArray::new();

/// Bytes that wait in the ring when user space is woken. Until then it comes by itself now and then, because waking it
/// costs more than all the rest.
const PLENTY: u64 = DNS_RING_BYTES as u64 / 4;

/// Whether anything is to be handed over.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    DNS_PORTS.load()[0] != 0
}

/// Whether a flow with these details (word 4 of a tuple) is at a DNS port.
///
/// A global function, which the verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_is_dns(details: u64) -> u64 {
    if !is_on() {
        return 0;
    }
    let tuple = Tuple::from_words([0, 0, 0, 0, details]);
    if !matches!(tuple.protocol(), protocol::UDP | protocol::TCP) || !tuple.has_ports() {
        return 0;
    }
    let mut found = false;
    for port in DNS_PORTS.load() {
        found |= port != 0 && (tuple.source_port() == port || tuple.destination_port() == port);
    }
    u64::from(found)
}

/// Where a message was seen.
struct Place(u64);

impl Place {
    #[inline(always)]
    fn new(link: Link, direction: Direction) -> Self {
        Self(u64::from(link == Link::Ip) | u64::from(direction == Direction::Egress) << 1)
    }

    #[inline(always)]
    fn is_ip_device(&self) -> u64 {
        self.0 & 1
    }

    #[inline(always)]
    fn is_egress(&self) -> u32 {
        (self.0 >> 1 & 1) as u32
    }
}

/// Hands over a packet of a flow at a DNS port.
#[inline(always)]
pub(crate) fn hand_over(skb: Skb, link: Link, direction: Direction) {
    weir_dns(skb.as_ptr(), Place::new(link, direction).0);
}

/// The same as a global function, which the verifier checks once and not anew for each program that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_dns(context: *mut __sk_buff, place: u64) -> u64 {
    if !is_on() {
        return 0;
    }
    let (skb, place) = (Skb::new(context), Place(place));
    if account::weir_parse(context, place.is_ip_device()) != PARSED_IP {
        return 0;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the scratch memory belongs to this CPU until the program ends.
    let Scratch { parsed, event, .. } = unsafe { &mut *scratch };
    let is_tcp = Tuple::from_words(parsed.words).protocol() == protocol::TCP;
    // The header of a datagram says how long it is, which the packet does not where it is padded or a fragment.
    let kept = if is_tcp { 0 } else { plain::UDP_BYTES as u64 };
    let offset = parsed.header_length.wrapping_sub(kept);
    let length = u64::from(skb.length()).saturating_sub(offset);
    if is_tcp && length < u64::from(DNS_LEAST_SEGMENT) {
        return 0;
    }
    let Some(counts) = EVENT_COUNTS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a valid element of this CPU, which no other program writes meanwhile.
    let counts = unsafe { &mut *counts };
    counts.seen += 1;
    // SAFETY: no arguments, no preconditions.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    event.tuple = parsed.words;
    event.ifindex = skb.ifindex();
    event.row = u32::from(account::point(event.ifindex).row) + place.is_egress();
    event.length = length as u32;
    match write(skb, offset, length, event) {
        Fate::Written => counts.written += 1,
        Fate::Lost => counts.lost += 1,
        Fate::Unreadable => counts.unreadable += 1,
    }
    0
}

/// What became of a message.
enum Fate {
    Written,
    Lost,
    Unreadable,
}

#[inline(always)]
fn write(skb: Skb, offset: u64, length: u64, header: &mut DnsHeader) -> Fate {
    if length <= DNS_CLASSES[0] as u64 {
        write_class::<{ DNS_CLASSES[0] }>(skb, offset, length, header)
    } else if length <= DNS_CLASSES[1] as u64 {
        write_class::<{ DNS_CLASSES[1] }>(skb, offset, length, header)
    } else {
        write_class::<{ DNS_CLASSES[2] }>(skb, offset, length.min(DNS_CLASSES[2] as u64), header)
    }
}

/// A record with room for `N` bytes.
#[repr(C)]
struct Record<const N: usize> {
    header: DnsHeader,
    bytes: [u8; N],
}

#[inline(always)]
fn write_class<const N: usize>(skb: Skb, offset: u64, length: u64, header: &mut DnsHeader) -> Fate {
    let Some(mut entry) = EVENTS.reserve_untyped::<Record<N>>(0) else { return Fate::Lost };
    let record: *mut Record<N> = MaybeUninit::as_mut_ptr(&mut entry);
    // One less, of which the compiler knows nothing: the verifier then sees a comparison and an addition on one register,
    // and knows 1..=N behind them. (Before 6.8 it learns nothing from a comparison with zero.)
    let last = black_box(length.wrapping_sub(1));
    if last >= N as u64 {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return Fate::Unreadable;
    }
    // SAFETY: the reserved memory has room for N bytes there.
    let bytes = unsafe { &raw mut (*record).bytes };
    let context = skb.as_ptr().cast();
    // SAFETY: as above, and the length is 1..=N.
    let outcome = unsafe { bpf_skb_load_bytes(context, offset as u32, bytes.cast(), (last + 1) as u32) };
    if outcome != 0 {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return Fate::Unreadable;
    }
    header.captured = (last + 1) as u32;
    // SAFETY: the reserved memory starts with room for a header.
    let place = unsafe { &raw mut (*record).header };
    // SAFETY: as above; nobody else knows the reservation yet.
    unsafe { place.write(*header) };
    entry.submit(wake());
    Fate::Written
}

/// Whether user space is woken.
#[inline(always)]
fn wake() -> u64 {
    let ring = &raw const EVENTS;
    // SAFETY: the map exists as long as the program.
    let waiting = unsafe { bpf_ringbuf_query(ring.cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    u64::from(if waiting >= PLENTY { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
