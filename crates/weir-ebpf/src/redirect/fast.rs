//! The path of nearly all packets.
//!
//! A packet whose port nothing is interested in is let go after its headers were read in place. A packet of a known
//! connection, with nothing special about it, is translated in place: address, ports and IPv4 checksum are written
//! directly, the transport checksum by the kernel's helper, which alone knows how much of it the network card does.
//! Everything else is for [`slow`].

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use weir_common::redirect::{
    CONNECTION_DIRECT, CONNECTION_ENDED, CONNECTION_SEEN, ConnectionValue, PORTS_FORWARD_TCP,
    PORTS_FORWARD_UDP, PORTS_REVERSE_TCP, PORTS_REVERSE_UDP, STANDING_DRAINING, STANDING_UP, TICK,
};
use weir_ebpf::skb::Skb;
use weir_packet::{
    Link, ethertype, plain, protocol,
    rewrite::{Fragment, Layout, Plan, Target},
};

use crate::{
    count,
    keys::{self, Way},
    maps::{BACKENDS, CACHE, CACHE_SLOTS, CACHING, CONNECTIONS, Cached, PLACES, PORTS, epoch},
    route, slow,
    write::{self, IPV6, MARK_MANGLED_0, PSEUDO_HEADER},
};

const ETHERNET_BYTES: usize = 14;

/// `PACKET_OTHERHOST`: the frame has the address of somebody else.
const OTHER_HOST: u32 = 3;

/// Headers that are read in place, up to the TCP flags.
const IPV4_BYTES: usize = plain::IPV4_BYTES + plain::TCP_FLAGS_BYTES;
const IPV6_BYTES: usize = plain::IPV6_BYTES + plain::TCP_FLAGS_BYTES;

/// TCP flags that change what a connection is.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Handles a packet. Returns what becomes of it.
#[inline(always)]
pub(crate) fn packet(skb: Skb, link: Link, way: Way) -> i32 {
    if way.is_forward() && skb.tc_index() == route::MARK {
        skb.set_tc_index(0);
        if way == Way::Uplink {
            // It was translated on this host: by this program before it was routed anew, or at another interface.
            return TC_ACT_UNSPEC;
        }
        // What comes in was marked elsewhere.
    }
    if way == Way::Client && skb.packet_type() == OTHER_HOST && !is_shared(skb) {
        // Seen by chance: the interface is promiscuous. Its receiver will see it as well.
        return TC_ACT_UNSPEC;
    }
    let (kind, offset) = match link {
        Link::Ethernet => match skb.linear::<ETHERNET_BYTES>() {
            Some(header) => (u16::from_be_bytes([header[12], header[13]]), ETHERNET_BYTES),
            None => return slow::packet(skb, link, way),
        },
        Link::Ip => (skb.ethertype(), 0),
    };
    match kind {
        ethertype::IPV4 => ipv4(skb, link, way, offset),
        ethertype::IPV6 => match weir_ipv6(skb.as_ptr(), slow::hint(link, way)) {
            SLOW => slow::packet(skb, link, way),
            verdict => verdict,
        },
        ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_QINQ => slow::packet(skb, link, way),
        _ => TC_ACT_UNSPEC,
    }
}

/// Whether the interface takes frames for others too, for a bridge or a device on top of it.
#[inline(always)]
fn is_shared(skb: Skb) -> bool {
    match PLACES.get_ptr(skb.ifindex()) {
        // SAFETY: a valid entry.
        Some(place) => unsafe { (*place).is_shared != 0 },
        None => false,
    }
}

#[inline(always)]
fn ipv4(skb: Skb, link: Link, way: Way, offset: usize) -> i32 {
    let Some(bytes) = skb.linear_mut::<IPV4_BYTES>(offset) else { return slow::packet(skb, link, way) };
    let header = Halves(bytes.as_mut_ptr());
    let protocol = bytes[9];
    match protocol {
        protocol::TCP | protocol::UDP => {}
        protocol::ICMP => return slow::packet(skb, link, way),
        _ => return TC_ACT_UNSPEC,
    }
    // Options, or a fragment (RFC 791 3.1).
    if bytes[0] != 0x45 || u16::from_be(header.get(6)) & 0x3fff != 0 {
        return slow::packet(skb, link, way);
    }
    let ports = header.ports(20);
    if !is_of_interest(protocol, ports, way) {
        return TC_ACT_UNSPEC;
    }
    let total = u16::from_be(header.get(2));
    let least = if protocol == protocol::TCP { 40 } else { 28 };
    let has_no_check = protocol == protocol::UDP && header.get(26) == 0;
    if (total != 0 && total < least) || has_no_check {
        // Without a checksum, whose change would make up for that of the ports in the card's sum.
        return slow::packet(skb, link, way);
    }
    let plain = Ends {
        source: [0, MAPPED | u64::from(header.number(12))],
        destination: [0, MAPPED | u64::from(header.number(16))],
        protocol,
    };
    let Some(value) = known(&plain, ports, bytes[33], false, way) else {
        return slow::packet(skb, link, way);
    };
    let layout = layout(&plain, ports, offset, plain::IPV4_BYTES, header.get(10));
    let target = Target { side: way.side(), address: value.address, ports: value.ports };
    let plan = Plan::new(&layout, &target);
    header.set_number(if way.is_forward() { 16 } else { 12 }, value.address[1] as u32);
    header.set(10, plan.ip_check);
    header.set_number(20, value.ports.rotate_left(16));
    finish(skb, way, &layout, &plan, value, ports)
}

/// Upper half of the lower word of an IPv4 address.
pub(crate) const MAPPED: u64 = 0xffff_0000_0000;

/// Who a packet is from and for.
struct Ends {
    source: [u64; 2],
    destination: [u64; 2],
    protocol: u8,
}

/// An IP header in a packet, by pieces of two bytes: the bytes of a packet begin at an even address, and one by one they
/// take twice as long.
#[derive(Clone, Copy)]
struct Halves(*mut u8);

impl Halves {
    /// Two bytes, as they lie in memory.
    #[inline(always)]
    fn get(self, offset: usize) -> u16 {
        // SAFETY: the caller has checked the length; the verifier checks it too.
        let at = unsafe { self.0.add(offset) };
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "packets begin at even addresses, and offsets are even"
        )]
        // SAFETY: as above. The kernel refuses programs that read a packet at odd addresses where that matters.
        unsafe {
            at.cast::<u16>().read()
        }
    }

    #[inline(always)]
    fn set(self, offset: usize, value: u16) {
        // SAFETY: as above.
        let at = unsafe { self.0.add(offset) };
        #[expect(clippy::cast_ptr_alignment, reason = "as above")]
        // SAFETY: as above.
        unsafe {
            at.cast::<u16>().write(value);
        };
    }

    /// Four bytes as a number.
    #[inline(always)]
    fn number(self, offset: usize) -> u32 {
        u32::from(u16::from_be(self.get(offset))) << 16 | u32::from(u16::from_be(self.get(offset + 2)))
    }

    #[inline(always)]
    fn set_number(self, offset: usize, value: u32) {
        self.set(offset, ((value >> 16) as u16).to_be());
        self.set(offset + 2, (value as u16).to_be());
    }

    /// Source port (low half) and destination port.
    #[inline(always)]
    fn ports(self, offset: usize) -> u32 {
        self.number(offset).rotate_left(16)
    }

    /// Words of an IPv6 address.
    #[inline(always)]
    fn address(self, offset: usize) -> [u64; 2] {
        [
            u64::from(self.number(offset)) << 32 | u64::from(self.number(offset + 4)),
            u64::from(self.number(offset + 8)) << 32 | u64::from(self.number(offset + 12)),
        ]
    }

    #[inline(always)]
    fn set_address(self, offset: usize, words: [u64; 2]) {
        self.set_number(offset, (words[0] >> 32) as u32);
        self.set_number(offset + 4, words[0] as u32);
        self.set_number(offset + 8, (words[1] >> 32) as u32);
        self.set_number(offset + 12, words[1] as u32);
    }
}

/// Answer of [`weir_ipv6`]: the packet is for the other path.
const SLOW: i32 = i32::MAX;

/// Handles a packet of IPv6. A function of its own, because the stack of one has no room for both families.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_ipv6(context: *mut __sk_buff, hint: u64) -> i32 {
    let (skb, way) = (Skb::new(context), Way::from_bits(hint));
    let (bytes, offset) = if slow::is_ip_link(hint) {
        (skb.linear_mut::<IPV6_BYTES>(0), 0)
    } else {
        (skb.linear_mut::<IPV6_BYTES>(ETHERNET_BYTES), ETHERNET_BYTES)
    };
    let Some(bytes) = bytes else { return SLOW };
    let header = Halves(bytes.as_mut_ptr());
    let protocol = bytes[6];
    match protocol {
        protocol::TCP | protocol::UDP => {}
        protocol::ESP | protocol::NO_NEXT_HEADER => return TC_ACT_UNSPEC,
        _ => return SLOW,
    }
    let ports = header.ports(40);
    if !is_of_interest(protocol, ports, way) {
        return TC_ACT_UNSPEC;
    }
    let payload = u16::from_be(header.get(4));
    let least = if protocol == protocol::TCP { 20 } else { 8 };
    let has_no_check = protocol == protocol::UDP && header.get(46) == 0;
    if bytes[0] >> 4 != 6 || (payload != 0 && payload < least) || has_no_check {
        return SLOW;
    }
    let plain = Ends { source: header.address(8), destination: header.address(24), protocol };
    let Some(value) = known(&plain, ports, bytes[53], true, way) else {
        return SLOW;
    };
    let layout = layout(&plain, ports, offset, plain::IPV6_BYTES, 0);
    let target = Target { side: way.side(), address: value.address, ports: value.ports };
    let plan = Plan::new(&layout, &target);
    header.set_address(if way.is_forward() { 24 } else { 8 }, value.address);
    header.set_number(40, value.ports.rotate_left(16));
    finish(skb, way, &layout, &plan, value, ports)
}

/// The transport checksum, the counters, and where the packet goes.
#[inline(always)]
fn finish(skb: Skb, way: Way, layout: &Layout, plan: &Plan, value: &Cached, ports: u32) -> i32 {
    let is_udp = layout.protocol == protocol::UDP;
    let check_at = layout.transport + if is_udp { write::UDP_CHECK } else { write::TCP_CHECK };
    let zero = if is_udp { MARK_MANGLED_0 } else { 0 };
    let family = if layout.is_ipv6 != 0 { IPV6.load() } else { 0 };
    if !write::change_check(skb, check_at, plan.pseudo, PSEUDO_HEADER | zero | family)
        || (value.ports != ports && !write::change_check(skb, check_at, plan.plain, zero))
    {
        return write::failed(value.rule);
    }
    let header_length = layout.transport + if is_udp { 8 } else { 20 };
    count::packet(skb, value.backend, way.is_forward(), u64::from(header_length));
    route::leave(skb, way, value.route as u8, value.interface)
}

/// What becomes of packets of this connection, if it is known and nothing about the packet is special.
#[inline(always)]
fn known(plain: &Ends, ports: u32, tcp_flags: u8, is_ipv6: bool, way: Way) -> Option<&'static Cached> {
    let is_tcp = plain.protocol == protocol::TCP;
    if is_tcp && tcp_flags & (FIN | SYN | RST) != 0 {
        return None;
    }
    let key = [
        plain.source[0],
        plain.source[1],
        plain.destination[0],
        plain.destination[1],
        keys::word(ports, plain.protocol, is_ipv6, way.is_forward()),
    ];
    let slot = CACHE.get_ptr_mut(slot(&key))?;
    // SAFETY: a valid element, of this CPU.
    let slot = unsafe { &mut *slot };
    // Before the entry is read: what changes afterwards counts against it.
    let epoch = epoch();
    let is_own = slot.key[4] == key[4]
        && slot.key[1] == key[1]
        && slot.key[3] == key[3]
        && (!is_ipv6 || slot.key[0] == key[0] && slot.key[2] == key[2])
        && slot.epoch == epoch
        && slow::now().wrapping_sub(slot.seen) < TICK;
    if !is_own {
        fill(slot, &key, ports, epoch)?;
    }
    if way.is_forward() && !is_there(slot.backend, slot.rule, slot.address, slot.ports) {
        return None;
    }
    Some(slot)
}

/// Which slot a key has.
#[inline(always)]
fn slot(key: &[u64; 5]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let addresses = key[1] ^ key[3].rotate_left(29) ^ key[0] ^ key[2].rotate_left(17);
    let mixed = (addresses.wrapping_mul(FACTOR) ^ key[4]).wrapping_mul(FACTOR);
    (mixed >> (64 - CACHE_SLOTS.trailing_zeros())) as u32
}

/// Reads an entry into a slot, unless it is not there or must be looked after.
#[inline(always)]
fn fill(slot: &mut Cached, key: &[u64; 5], ports: u32, epoch: u64) -> Option<()> {
    if CACHING.load() == 0 {
        return None;
    }
    let entry = CONNECTIONS.get_ptr(key)?;
    // SAFETY: a valid entry. If it is removed under way, its memory may become another one's, which the ports tell.
    let entry = unsafe { &*entry };
    // What the client began itself depends on no backend, which a slot does not tell.
    if entry.flags & (CONNECTION_SEEN | CONNECTION_ENDED | CONNECTION_DIRECT) != CONNECTION_SEEN
        || slow::now().wrapping_sub(entry.seen) >= TICK
    {
        return None;
    }
    let [source, source_low, destination, destination_low, rest] = *key;
    slot.key = [source, source_low, destination, destination_low, rest];
    slot.address = entry.address;
    slot.ports = entry.ports;
    slot.rule = entry.rule;
    slot.backend = entry.backend;
    slot.interface = entry.interface;
    slot.route = u32::from(entry.route);
    slot.seen = entry.seen;
    slot.epoch = epoch;
    if entry.key_ports != ports {
        slot.epoch = 0;
        return None;
    }
    Some(())
}

/// Whether the backend of a connection is still its own.
#[inline(always)]
pub(crate) fn is_there_of(value: &ConnectionValue) -> bool {
    is_there(value.backend, value.rule, value.address, value.ports)
}

/// Whether a backend keeps its connections. Its number may have become another one's.
#[inline(always)]
fn is_there(backend: u32, rule: u32, address: [u64; 2], ports: u32) -> bool {
    match BACKENDS.get(backend) {
        Some(backend) => {
            matches!(backend.standing, STANDING_UP | STANDING_DRAINING)
                && backend.rule == rule
                && (backend.port == 0 || u32::from(backend.port) == ports >> 16)
                && backend.address[1] == address[1]
                && backend.address[0] == address[0]
        }
        None => false,
    }
}

/// Whether anything is interested in the packet's port.
#[inline(always)]
pub(crate) fn is_of_interest(protocol: u8, ports: u32, way: Way) -> bool {
    let is_udp = protocol == protocol::UDP;
    let (bitmap, port) = match (way.is_forward(), is_udp) {
        (true, false) => (PORTS_FORWARD_TCP, ports >> 16),
        (true, true) => (PORTS_FORWARD_UDP, ports >> 16),
        (false, false) => (PORTS_REVERSE_TCP, ports & 0xffff),
        (false, true) => (PORTS_REVERSE_UDP, ports & 0xffff),
    };
    is_port_of_interest(bitmap, port)
}

/// Whether a port is in one of the bitmaps.
#[inline(always)]
pub(crate) fn is_port_of_interest(bitmap: u32, port: u32) -> bool {
    let Some(bits) = PORTS.get(bitmap) else { return false };
    bits[(port >> 6) as usize & 1023] >> (port & 63) & 1 != 0
}

#[inline(always)]
fn layout(plain: &Ends, ports: u32, offset: usize, header: usize, ip_check: u16) -> Layout {
    Layout {
        source: plain.source,
        destination: plain.destination,
        ports,
        network: offset as u32,
        transport: (offset + header) as u32,
        identification: 0,
        ip_check,
        transport_check: 0,
        protocol: plain.protocol,
        is_ipv6: u8::from(header == plain::IPV6_BYTES),
        fragment: Fragment::Whole,
        tcp_flags: 0,
        tcp_words: 0,
        has_check: 0,
    }
}
