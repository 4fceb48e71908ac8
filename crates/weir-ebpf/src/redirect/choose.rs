//! A rule and a backend for a packet of no known connection.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
};
use weir_common::redirect::{
    ACTION_PASS, ACTION_RESET, AffinityKey, AffinityValue, CHUNK_BACKENDS, CONNECTION_DIRECT,
    CONNECTION_SEEN, CONNECTION_SYN, ConnectionValue, ListenerKey, MOST_RANGES, PREFIX_HEAD_BITS, PrefixKey,
    RateValue, Reason, RuleValue, STANDING_UP,
};
use weir_packet::{
    protocol,
    rewrite::{Layout, swapped},
};

use crate::{
    connections, count,
    fast::{ACK, RST, SYN},
    keys::{self, Way},
    maps::{AFFINITY, BACKENDS, CONFIG, HZ, LISTENERS, PREFIXES, RATES, RULES, Scratch, TABLES, scratch},
    slow::now,
};

/// A backend was chosen: the value in the scratch memory says which.
pub(crate) const CHOSEN: u64 = 0;
/// The packet passes as it is.
pub(crate) const PASS: u64 = 1;
/// It is dropped.
pub(crate) const DROP: u64 = 2;
/// It is refused.
pub(crate) const RESET: u64 = 3;

/// Places of a table that are tried until a backend takes the connection.
pub(crate) const ATTEMPTS: u32 = 16;

/// Finds the rule and chooses the backend of the packet whose layout is in the scratch memory; fills the value there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_choose(hint: u64) -> u64 {
    let way = Way::from_bits(hint);
    let Some(scratch) = scratch() else { return PASS };
    let is_tcp = scratch.layout.protocol == protocol::TCP;
    // A connection that began before its rule goes on where it is.
    if is_tcp && scratch.layout.tcp_flags & (SYN | ACK | RST) != SYN {
        return PASS;
    }
    let number = weir_find();
    if number == 0 {
        return direct(scratch);
    }
    if number == NO_RULE {
        count::reason(0, Reason::Vanished);
        return PASS;
    }
    if scratch.rule.new_per_second != 0 && !is_within_rate(number, scratch.rule.new_per_second) {
        count::reason(number, Reason::RateLimited);
        return DROP;
    }
    let ports = scratch.layout.ports;
    scratch.value = ConnectionValue {
        ports,
        key_ports: ports,
        rule: number,
        created: now(),
        seen: now(),
        flags: if is_tcp { CONNECTION_SEEN | CONNECTION_SYN } else { CONNECTION_SEEN },
        ..EMPTY
    };
    scratch.has_backend_here = 0;
    let backend = kept(scratch, way).unwrap_or_else(|| weir_table(hint) as u32);
    if backend == 0 {
        return without_backend(scratch, way);
    }
    if scratch.rule.affinity != 0 {
        keep(affinity_key(scratch), backend);
    }
    take(scratch, backend);
    CHOSEN
}

const EMPTY: ConnectionValue = ConnectionValue {
    address: [0; 2],
    ports: 0,
    key_ports: 0,
    rule: 0,
    backend: 0,
    created: 0,
    seen: 0,
    flags: 0,
    route: 0,
    reserved: [0; 6],
    interface: 0,
    padding: 0,
};

/// Writes the backend's address and port into the value.
#[inline(always)]
fn take(scratch: &mut Scratch, number: u32) {
    scratch.value.backend = number;
    if let Some(backend) = BACKENDS.get(number) {
        scratch.value.address = backend.address;
        if backend.port != 0 {
            scratch.value.ports = scratch.layout.ports & 0xffff | u32::from(backend.port) << 16;
        }
    }
}

#[inline(always)]
fn without_backend(scratch: &Scratch, way: Way) -> u64 {
    let rule = scratch.value.rule;
    if scratch.rule.table_length != 0 && is_hairpin(scratch, scratch.rule.backend) && way.is_forward() {
        count::reason(rule, Reason::Hairpin);
        return PASS;
    }
    if scratch.has_backend_here != 0 {
        // The socket was not to be led there, or could not be: it is left alone.
        count::reason(rule, Reason::BackendHere);
        return PASS;
    }
    match scratch.rule.on_empty {
        ACTION_PASS => {
            count::reason(rule, Reason::NoBackendPassed);
            PASS
        }
        ACTION_RESET if scratch.layout.protocol == protocol::TCP => {
            count::reason(rule, Reason::NoBackendReset);
            RESET
        }
        _ => {
            count::reason(rule, Reason::NoBackendDropped);
            DROP
        }
    }
}

/// Whether a backend is the client itself.
#[inline(always)]
fn is_hairpin(scratch: &Scratch, number: u32) -> bool {
    match BACKENDS.get(number) {
        Some(backend) => {
            backend.address[0] == scratch.layout.source[0] && backend.address[1] == scratch.layout.source[1]
        }
        None => false,
    }
}

/// Whether a backend takes a new connection of this client.
#[inline(always)]
fn takes(scratch: &mut Scratch, number: u32, way: Way) -> bool {
    let Some(backend) = BACKENDS.get(number) else { return false };
    let takes = backend.standing == STANDING_UP
        && backend.rule == scratch.value.rule
        && backend.is_ipv6 == scratch.layout.is_ipv6
        && !(backend.address[0] == scratch.layout.source[0]
            && backend.address[1] == scratch.layout.source[1]);
    if takes && backend.is_local != 0 && way == Way::Uplink {
        scratch.has_backend_here = 1;
        return false;
    }
    takes
}

/// The backend that the client has already.
#[inline(always)]
fn kept(scratch: &mut Scratch, way: Way) -> Option<u32> {
    if scratch.rule.affinity == 0 {
        return None;
    }
    let backend = kept_by(affinity_key(scratch), scratch.rule.affinity)?;
    if takes(scratch, backend, way) { Some(backend) } else { None }
}

/// The backend that a client got less than `seconds` ago.
#[inline(always)]
pub(crate) fn kept_by(key: AffinityKey, seconds: u32) -> Option<u32> {
    let kept = AFFINITY.get_ptr(key)?;
    // SAFETY: a valid entry.
    let kept = unsafe { *kept };
    let limit = seconds.saturating_mul(HZ.load());
    if now().wrapping_sub(kept.used) > limit { None } else { Some(kept.backend) }
}

/// Writes down the backend that a client got.
#[inline(always)]
pub(crate) fn keep(key: AffinityKey, backend: u32) {
    let value = AffinityValue { backend, used: now() };
    if let Some(kept) = AFFINITY.get_ptr_mut(key) {
        // In place: updating an entry of such a map may evict another one. SAFETY: a valid entry.
        unsafe { *kept = value };
        return;
    }
    // Without it the client is spread by its address, which is the same backend unless they change.
    let _full = AFFINITY.insert(key, value, u64::from(BPF_ANY));
}

#[inline(always)]
fn affinity_key(scratch: &Scratch) -> AffinityKey {
    AffinityKey {
        client: scratch.layout.source,
        rule: scratch.value.rule,
        is_ipv6: u32::from(scratch.layout.is_ipv6),
    }
}

/// A backend from the table of the rule in the scratch memory, or 0.
///
/// The same connection (with affinity, the same client) always gets the same one from the same table.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_table(hint: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    match scratch.rule.table_length {
        0 => return 0,
        1 => {
            let only = scratch.rule.backend;
            return if takes(scratch, only, Way::from_bits(hint)) { u64::from(only) } else { 0 };
        }
        _ => {}
    }
    let seed = CONFIG.get(0).map_or(0, |config| config.seed);
    let layout = &scratch.layout;
    let mut hash = mix(mix(seed, layout.source[0]), layout.source[1]);
    hash = mix(hash, u64::from(scratch.value.rule));
    if scratch.rule.affinity == 0 {
        hash = mix(mix(hash, layout.destination[0]), layout.destination[1]);
        hash = mix(hash, u64::from(layout.ports));
    }
    for _ in 0..ATTEMPTS {
        let number = weir_candidate(hint, hash);
        if number != 0 {
            return number;
        }
        hash = mix(hash, 1);
    }
    0
}

/// The backend at one place of the table of the rule in the scratch memory, if it takes the connection, or 0.
///
/// A function of its own, so that the verifier does not go through all that happens at all places.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_candidate(hint: u64, hash: u64) -> u64 {
    let way = Way::from_bits(hint);
    let Some(scratch) = scratch() else { return 0 };
    let number = candidate(&scratch.rule, hash);
    if takes(scratch, number, way) { u64::from(number) } else { 0 }
}

/// The backend at the place of a rule's table that a hash leads to; 0 is none.
#[inline(always)]
pub(crate) fn candidate(rule: &RuleValue, hash: u64) -> u32 {
    let place = ((hash >> 32) * u64::from(rule.table_length)) >> 32;
    let chunk = u64::from(rule.table_chunk) + place / CHUNK_BACKENDS as u64;
    let Some(chunk) = TABLES.get(chunk as u32) else { return 0 };
    chunk[place as usize % CHUNK_BACKENDS]
}

#[inline(always)]
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Answer of [`weir_find`]: the rule changed whenever it was looked at.
const NO_RULE: u32 = u32::MAX;

/// How often a rule that changes meanwhile is looked up.
const LOOKUPS: u32 = 3;

/// Copies the rule that the packet in the scratch memory is for there. Returns its number, 0 if there is none.
///
/// The kernel may give the memory of a listener or a rule to another one while it is read, so what was read has to be of
/// this packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_find() -> u32 {
    for _ in 0..LOOKUPS {
        let number = weir_rule();
        if number == 0 {
            return 0;
        }
        let Some(scratch) = scratch() else { return 0 };
        // SAFETY: the entry is copied at once.
        if let Some(rule) = unsafe { RULES.get(number) } {
            scratch.rule = *rule;
            let Layout { destination, ports, protocol, is_ipv6, .. } = scratch.layout;
            if is_for(&scratch.rule, number, destination, (ports >> 16) as u16, protocol, is_ipv6) {
                return number;
            }
        }
    }
    NO_RULE
}

/// Whether what was read is the rule of that number, and is for this destination.
#[inline(always)]
pub(crate) fn is_for(
    rule: &RuleValue,
    number: u32,
    destination: [u64; 2],
    port: u16,
    protocol: u8,
    is_ipv6: u8,
) -> bool {
    let bits = u32::from(rule.prefix_length) + if rule.is_ipv6 != 0 { 0 } else { 96 };
    let apart = [rule.address[0] ^ destination[0], rule.address[1] ^ destination[1]];
    u32::from(rule.number) == number
        && rule.protocol == protocol
        && rule.is_ipv6 == is_ipv6
        && rule.first_port <= port
        && port <= rule.last_port
        && apart[0] & upper(bits) == 0
        && apart[1] & upper(bits.saturating_sub(64)) == 0
}

/// So many bits from above; all of them where there are not so many.
#[inline(always)]
fn upper(bits: u32) -> u64 {
    if bits == 0 { 0 } else { u64::MAX << (64 - if bits < 64 { bits } else { 64 }) }
}

/// The number of the rule that the packet in the scratch memory is for, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_rule() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let layout = &scratch.layout;
    rule_at(layout.destination, (layout.ports >> 16) as u16, layout.protocol, layout.is_ipv6)
}

/// The number of the rule that listens there, or 0.
#[inline(always)]
pub(crate) fn rule_at(address: [u64; 2], port: u16, protocol: u8, is_ipv6: u8) -> u32 {
    let mut key = ListenerKey { address, port, protocol, is_ipv6, reserved: 0 };
    // SAFETY: the number is copied at once.
    if let Some(rule) = unsafe { LISTENERS.get(&key) } {
        return *rule;
    }
    key.port = 0;
    // SAFETY: as above.
    if let Some(rule) = unsafe { LISTENERS.get(&key) } {
        return *rule;
    }
    let Some(prefix) = PREFIXES.get(&prefix_key(address, protocol, is_ipv6)) else { return 0 };
    for index in 0..MOST_RANGES {
        let range = &prefix.ranges[index];
        if range.rule == 0 {
            return 0;
        }
        if range.first <= port && port <= range.last {
            return range.rule;
        }
    }
    0
}

/// Whether something listens on the packet's destination, at whatever port.
#[inline(always)]
pub(crate) fn is_listened_on(layout: &Layout) -> bool {
    PREFIXES.get(&prefix_key(layout.destination, layout.protocol, layout.is_ipv6)).is_some()
}

/// Key of a whole address.
#[inline(always)]
fn prefix_key(words: [u64; 2], protocol: u8, is_ipv6: u8) -> Key<PrefixKey> {
    let mut address = [0; 16];
    address[..8].copy_from_slice(&words[0].to_be_bytes());
    address[8..].copy_from_slice(&words[1].to_be_bytes());
    Key::new(PREFIX_HEAD_BITS + 128, PrefixKey { protocol, is_ipv6, reserved: [0; 2], address })
}

/// A client that talks to a backend itself, from a port with which a redirected connection of its talks to the same one:
/// the answers to both would look alike. So this one gets another port.
#[inline(always)]
fn direct(scratch: &mut Scratch) -> u64 {
    let layout = &scratch.layout;
    scratch.pair_key = [
        layout.destination[0],
        layout.destination[1],
        layout.source[0],
        layout.source[1],
        keys::word(swapped(layout.ports), layout.protocol, layout.is_ipv6 != 0, false),
    ];
    let Some(taken) = connections::find(&scratch.pair_key) else { return PASS };
    // SAFETY: a valid entry.
    let taken = unsafe { *taken };
    let is_tcp = layout.protocol == protocol::TCP;
    scratch.value = ConnectionValue {
        address: layout.destination,
        ports: layout.ports,
        key_ports: layout.ports,
        rule: taken.rule,
        backend: taken.backend,
        created: now(),
        seen: now(),
        flags: CONNECTION_DIRECT | if is_tcp { CONNECTION_SEEN | CONNECTION_SYN } else { CONNECTION_SEEN },
        ..EMPTY
    };
    count::reason(taken.rule, Reason::DirectChanged);
    CHOSEN
}

/// Takes one of the connections that a rule allows in a second.
#[inline(always)]
pub(crate) fn is_within_rate(rule: u32, limit: u32) -> bool {
    let now = now();
    let Some(rate) = RATES.get_ptr_mut(rule) else {
        let first = RateValue { taken: 1, since: now };
        // Another CPU may have been first; then this one is not counted.
        let _there = RATES.insert(rule, first, u64::from(BPF_NOEXIST));
        return true;
    };
    // SAFETY: a valid entry. CPUs may overlap, and let a few more through.
    let rate = unsafe { &mut *rate };
    if now.wrapping_sub(rate.since) >= HZ.load() {
        rate.since = now;
        rate.taken = 0;
    }
    if rate.taken >= limit {
        return false;
    }
    rate.taken += 1;
    true
}
