//! Layouts of the `redirect` object: rules, backends, connections and counters of `weir proxy`.
//!
//! All integers are in host byte order; addresses are two words as in `weir_packet::Tuple` (IPv4 mapped into IPv6).
//! Times in connections are jiffies of the running kernel, truncated to 32 bits. The maps are pinned, and another build
//! of Weir may find them: whatever changes here changes [`REDIRECT_LAYOUT`].

mod local;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::local::{
    AFFINITY_OWN, LocalConfig, MOST_OWN_ADDRESSES, OwnAddress, SOCKET_FLOWS, SocketFlow, SocketFlows,
};

/// Version of the layouts in this module; a part of the path of the pins.
pub const REDIRECT_LAYOUT: u32 = 2;

/// Rules that fit; their numbers are below this.
pub const MOST_RULES: u32 = 16_384;

/// Backends that fit; their numbers are below this.
pub const MOST_BACKENDS: u32 = 32_768;

/// Where in word 4 of a key the protocol begins; below are the source port and, from bit 16, the destination port.
pub const KEY_PROTOCOL: u32 = 32;
/// Set in word 4 of a key of IPv6.
pub const KEY_IPV6: u64 = 1 << 53;
/// Set in word 4 of the key of packets from a backend.
pub const KEY_REVERSE: u64 = 1 << 63;

/// Whether a key is of packets of a client.
#[inline(always)]
pub const fn is_forward(key: &[u64; 5]) -> bool {
    key[4] & KEY_REVERSE == 0
}

/// Key of the other direction of a connection: that of the translated packet, reversed.
#[inline(always)]
pub const fn pair_key(key: &[u64; 5], value: &ConnectionValue) -> [u64; 5] {
    let rest = (key[4] >> KEY_PROTOCOL << KEY_PROTOCOL) ^ KEY_REVERSE;
    let word = rest | value.ports.rotate_left(16) as u64;
    let [high, low] = value.address;
    if is_forward(key) { [high, low, key[0], key[1], word] } else { [key[2], key[3], high, low, word] }
}

/// Whether an entry found under the key of the other direction is of the same connection. Where a client's port was used
/// again, a later connection may have taken it over.
#[inline(always)]
pub const fn is_pair(key: &[u64; 5], pair: &ConnectionValue) -> bool {
    let (high, low) = if is_forward(key) { (key[2], key[3]) } else { (key[0], key[1]) };
    #[expect(clippy::cast_possible_truncation, reason = "the ports are the lower half")]
    let ports = key[4] as u32;
    pair.address[0] == high && pair.address[1] == low && pair.ports == ports.rotate_left(16)
}

/// Key of one direction of a connection: addresses, ports and protocol as the packets come.
///
/// Words 0 and 1 are the source, 2 and 3 the destination, 4 the rest (see the `KEY_` constants).
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectionKey {
    /// The words.
    pub words: [u64; 5],
}

/// The connection was seen in this direction.
pub const CONNECTION_SEEN: u8 = 1;
/// A SYN was seen in this direction.
pub const CONNECTION_SYN: u8 = 2;
/// A FIN was seen in this direction.
pub const CONNECTION_FIN: u8 = 4;
/// A RST was seen in this direction.
pub const CONNECTION_RST: u8 = 8;
/// Both directions have ended: it was counted as closed.
pub const CONNECTION_CLOSED: u8 = 16;
/// User space ended it: TCP gets a reset, UDP chooses again.
pub const CONNECTION_ENDED: u8 = 32;
/// The client talks to the backend itself; its port is changed because a redirected connection has it.
pub const CONNECTION_DIRECT: u8 = 64;

/// What becomes of packets of one direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectionValue {
    /// Address that is written: forward the backend's over the destination, reverse the listener's over the source.
    pub address: [u64; 2],
    /// Source port (low half) and destination port that are written.
    pub ports: u32,
    /// Ports of the key, to notice that the kernel gave the memory to another entry.
    pub key_ports: u32,
    /// Number of the rule.
    pub rule: u32,
    /// Number of the backend.
    pub backend: u32,
    /// When it began.
    pub created: u32,
    /// When a packet was last seen in this direction, to [`TICK`] jiffies.
    pub seen: u32,
    /// `CONNECTION_` bits.
    pub flags: u8,
    /// Where packets leave for, one of the `ROUTE_` constants.
    pub route: u8,
    /// Not used, zero.
    pub reserved: [u8; 6],
    /// Index of the interface of [`ROUTE_INTERFACE`].
    pub interface: u32,
    /// Not used, zero.
    pub padding: u32,
}

/// Jiffies after which an entry is stamped again and its other direction is looked after.
pub const TICK: u32 = 64;

/// Packets go on as they are.
pub const ROUTE_UNCHANGED: u8 = 0;
/// Packets need another neighbour behind the same interface.
pub const ROUTE_NEIGHBOUR: u8 = 1;
/// Packets leave by another interface.
pub const ROUTE_INTERFACE: u8 = 2;

/// Words of a bitmap of all ports.
pub const PORT_WORDS: usize = 1024;
/// Bitmaps of ports: which packets towards a listener or backend are of interest, TCP.
pub const PORTS_FORWARD_TCP: u32 = 0;
/// The same, UDP.
pub const PORTS_FORWARD_UDP: u32 = 1;
/// Source ports of backends, TCP.
pub const PORTS_REVERSE_TCP: u32 = 2;
/// The same, UDP.
pub const PORTS_REVERSE_UDP: u32 = 3;
/// How many bitmaps there are.
pub const PORT_BITMAPS: u32 = 4;

/// A listener of one address and one port; port 0 stands for all ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ListenerKey {
    /// The address.
    pub address: [u64; 2],
    /// The port.
    pub port: u16,
    /// Number of the protocol.
    pub protocol: u8,
    /// 1 for IPv6.
    pub is_ipv6: u8,
    /// Not used, zero.
    pub reserved: u32,
}

/// What a prefix of [`PrefixKey`] has before its address, in bits.
pub const PREFIX_HEAD_BITS: u32 = 32;

/// A prefix that something listens on. The longest one that matches decides, so it repeats what shorter ones have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PrefixKey {
    /// Number of the protocol.
    pub protocol: u8,
    /// 1 for IPv6.
    pub is_ipv6: u8,
    /// Not used, zero.
    pub reserved: [u8; 2],
    /// The address in network order; IPv4 mapped into IPv6.
    pub address: [u8; 16],
}

/// Ranges of ports that one prefix can have.
pub const MOST_RANGES: usize = 32;

/// Ports of a prefix and their rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// Number of the rule, 0 behind the last range.
    pub rule: u32,
}

/// All ranges of a prefix; none where only listeners of one port are there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PrefixValue {
    /// The ranges, those that are used first.
    pub ranges: [PortRange; MOST_RANGES],
}

/// Refuse by a TCP reset; other protocols are dropped.
pub const ACTION_RESET: u8 = 0;
/// Drop.
pub const ACTION_DROP: u8 = 1;
/// Let pass as it is.
pub const ACTION_PASS: u8 = 2;

/// Keep the client's port, whatever happens.
pub const PORTS_PRESERVE: u8 = 0;
/// Change the client's port where it is taken.
pub const PORTS_ON_COLLISION: u8 = 1;
/// Always change the client's port.
pub const PORTS_ALWAYS: u8 = 2;

/// First of the ports that clients get where theirs is taken; above what systems choose by themselves.
pub const FIRST_SPARE_PORT: u16 = 61_000;

/// A rule. Replaced as a whole, so a program sees the old one or the new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RuleValue {
    /// Address of the listener's prefix.
    pub address: [u64; 2],
    /// First port of the listener.
    pub first_port: u16,
    /// Last port of the listener.
    pub last_port: u16,
    /// Length of the prefix, of its own family.
    pub prefix_length: u8,
    /// 1 for IPv6.
    pub is_ipv6: u8,
    /// Number of the protocol.
    pub protocol: u8,
    /// What happens without a backend, one of the `ACTION_` constants.
    pub on_empty: u8,
    /// What happens where the table of connections is full: [`ACTION_DROP`] or [`ACTION_PASS`].
    pub on_full: u8,
    /// One of the `PORTS_` policies.
    pub port_policy: u8,
    /// The rule's own number, to notice that the kernel gave the memory to another rule.
    pub number: u16,
    /// The one backend, if [`RuleValue::table_length`] is 1.
    pub backend: u32,
    /// First chunk of the table of backends.
    pub table_chunk: u32,
    /// Entries of the table; 0 if there is no backend, 1 if there is no table because all entries are the same.
    pub table_length: u32,
    /// How long a client keeps its backend, in seconds; 0 without affinity.
    pub affinity: u32,
    /// New connections per second, 0 without a limit.
    pub new_per_second: u32,
    /// Timeouts in milliseconds: SYN, established, closing, UDP, UDP without an answer. Not read by programs.
    pub timeouts: [u32; 5],
    /// Entries that the table had before it was shortened to 1. Not read by programs.
    pub wished_length: u32,
}

/// Backends in one chunk of a table.
pub const CHUNK_BACKENDS: usize = 16;

/// A part of a table of backends: their numbers.
pub type Chunk = [u32; CHUNK_BACKENDS];

/// The backend takes new connections.
pub const STANDING_UP: u8 = 1;
/// It keeps its connections.
pub const STANDING_DRAINING: u8 = 2;
/// Its connections end.
pub const STANDING_GONE: u8 = 3;

/// A backend. All zero where the number is not in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BackendValue {
    /// Its address.
    pub address: [u64; 2],
    /// Number of its rule.
    pub rule: u32,
    /// Its port; 0 keeps that of the packet.
    pub port: u16,
    /// One of the `STANDING_` constants, or 0.
    pub standing: u8,
    /// 1 for IPv6.
    pub is_ipv6: u8,
    /// 1 if it is this host itself, which packets that leave cannot be sent to.
    pub is_local: u8,
    /// Not used, zero.
    pub reserved: [u8; 7],
}

/// What one backend carried, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BackendCounts {
    /// Packets to the backend, as on the wire.
    pub forward_packets: u64,
    /// Their bytes, link headers included.
    pub forward_bytes: u64,
    /// Packets from the backend.
    pub reverse_packets: u64,
    /// Their bytes.
    pub reverse_bytes: u64,
    /// Connections that began.
    pub opened: u64,
    /// TCP connections that both ends closed, or one reset.
    pub closed: u64,
    /// Sockets of this host that were led to the backend before there was a packet.
    pub opened_here: u64,
    /// Not used, zero.
    pub reserved: u64,
}

/// Why a packet was not treated like others. Index of a counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Headers cut short or contradictory; passed.
    Malformed = 0,
    /// More extension headers than are looked at, or a routing header; passed.
    Extensions = 1,
    /// An ICMP error about a packet that cannot be read, a fragment for one; passed.
    IcmpUnreadable = 2,
    /// An ICMP error that was translated.
    IcmpTranslated = 3,
    /// A fragment whose first one was not seen; dropped if it is to a listener.
    FragmentMissed = 4,
    /// A fragment that was translated.
    FragmentTranslated = 5,
    /// No backend takes new connections; passed by `on-empty: pass`.
    NoBackendPassed = 6,
    /// No backend takes new connections; dropped.
    NoBackendDropped = 7,
    /// No backend takes new connections; reset.
    NoBackendReset = 8,
    /// The table of connections is full; passed by `on-full: pass`.
    FullPassed = 9,
    /// The table of connections is full; dropped.
    FullDropped = 10,
    /// More new connections than the rule allows; dropped.
    RateLimited = 11,
    /// The client's port was taken and another one was given.
    PortChanged = 12,
    /// The client's port was taken and no other one was free; dropped.
    NoPort = 13,
    /// The only backend is the client itself; passed.
    Hairpin = 14,
    /// A packet of a connection that was ended; reset or dropped.
    Ended = 15,
    /// UDP of a backend that is gone chose another one.
    ChosenAgain = 16,
    /// One direction of a connection was missing and was made anew.
    Repaired = 17,
    /// A direct connection to a backend got another port, because a redirected one has it.
    DirectChanged = 18,
    /// The kernel refused to change a packet under way; dropped.
    WriteFailed = 19,
    /// The kernel refused to make a packet of a connection writable; dropped.
    NotWritable = 20,
    /// A packet came while another one was being worked on by the same CPU; passed.
    Interrupted = 21,
    /// The rule or backend vanished under way; passed, or dropped where the connection would have been entered.
    Vanished = 22,
    /// Only backends on this host are left, which packets of it cannot be redirected to; passed.
    BackendHere = 23,
}

/// Number of counters by [`Reason`], with room for more.
pub const REASONS: usize = 32;

/// Counters by [`Reason`] of a rule on one CPU; those of no rule are at number 0.
pub type ReasonCounts = [u64; REASONS];

/// Names a datagram of which fragments follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Source and destination as in [`ConnectionKey`]; word 4 is the identification, from [`KEY_PROTOCOL`] on the rest.
    pub words: [u64; 5],
}

/// What becomes of its fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentValue {
    /// Address that is written.
    pub address: [u64; 2],
    /// When the first fragment came.
    pub created: u32,
    /// Number of the rule.
    pub rule: u32,
    /// Number of the backend.
    pub backend: u32,
    /// [`ConnectionValue::route`].
    pub route: u32,
    /// [`ConnectionValue::interface`].
    pub interface: u32,
    /// Not used, zero.
    pub reserved: u32,
}

/// A client of a rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityKey {
    /// Its address.
    pub client: [u64; 2],
    /// Number of the rule.
    pub rule: u32,
    /// 1 for IPv6, [`AFFINITY_OWN`] for this host itself.
    pub is_ipv6: u32,
}

/// The backend that it keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityValue {
    /// Number of the backend.
    pub backend: u32,
    /// When it was last used, in jiffies.
    pub used: u32,
}

/// How many new connections a rule may still take.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RateValue {
    /// Connections that were taken since [`RateValue::since`].
    pub taken: u32,
    /// Beginning of the second, in jiffies.
    pub since: u32,
}

/// Constants that outlive the control process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RedirectConfig {
    /// Seeds the choice of backends.
    pub seed: u64,
    /// Jiffies at a moment,
    pub jiffies: u64,
    /// and nanoseconds of the monotonic clock at the same one. Not read by programs.
    pub nanoseconds: u64,
    /// Jiffies in a second. Not read by programs.
    pub rate: u64,
}

/// Attached by TCX.
pub const HOOK_TCX: u8 = 1;
/// Attached by clsact.
pub const HOOK_CLSACT: u8 = 2;
/// Connections begin at this host.
pub const PLACE_UPLINK: u8 = 1;
/// Connections begin behind the interface.
pub const PLACE_CLIENT: u8 = 2;

/// An interface that the programs are attached to.
///
/// The same in all layouts, as is the map of these by index (`PLACES`): each build must be able to take away what another
/// one has attached. It never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PlaceValue {
    /// Name of the interface, zero-terminated.
    pub name: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u64,
    /// [`PLACE_UPLINK`] or [`PLACE_CLIENT`].
    pub role: u8,
    /// [`HOOK_TCX`] or [`HOOK_CLSACT`].
    pub hook: u8,
    /// 1 if it hands frames on that are for others: to a bridge that it is a port of, or to a device on top of it. Read by
    /// programs.
    pub is_shared: u8,
    /// 1 if the clsact qdisc was added for the programs.
    pub added_qdisc: u8,
    /// Priority of the filters, ingress and egress, with [`HOOK_CLSACT`].
    pub priorities: [u16; 2],
}

/// What backends carried that are no more, by rule. Not read by programs.
pub type RetiredCounts = BackendCounts;

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<ConnectionKey>() == 40);
    assert!(size_of::<ConnectionValue>() == 56);
    assert!(size_of::<ListenerKey>() == 24);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<PrefixValue>() == 8 * MOST_RANGES);
    assert!(size_of::<RuleValue>() == 72);
    assert!(size_of::<BackendValue>() == 32);
    assert!(size_of::<BackendCounts>() == 64);
    assert!(size_of::<FragmentValue>() == 40);
    assert!(size_of::<PlaceValue>() == 32);
    // For ever, see there.
    assert!(offset_of!(PlaceValue, netns) == 16);
    assert!(offset_of!(PlaceValue, role) == 24 && offset_of!(PlaceValue, hook) == 25);
    assert!(offset_of!(PlaceValue, is_shared) == 26 && offset_of!(PlaceValue, added_qdisc) == 27);
    assert!(offset_of!(PlaceValue, priorities) == 28);
};
