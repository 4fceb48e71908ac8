//! Plain values to the words of the maps, and back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weir_common::redirect::{
    ACTION_DROP, ACTION_PASS, ACTION_RESET, BackendValue, KEY_IPV6, KEY_PROTOCOL, ListenerKey, PORTS_ALWAYS,
    PORTS_ON_COLLISION, PORTS_PRESERVE, PREFIX_HEAD_BITS, PrefixKey, RuleValue, STANDING_DRAINING,
    STANDING_GONE, STANDING_UP,
};
use weir_packet::{ipv4_words, ipv6_words, protocol};

use super::{
    connection::Tuple,
    desired::{
        BackendId, BackendState, Listener, OnEmpty, OnFull, PortPolicy, Ports, Prefix, RuleId, RuleState,
        Standing, Timeouts, Transport,
    },
};

/// Words of an address.
pub(super) fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    }
}

/// The address that words stand for.
#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is the lower half of the lower word")]
pub(super) fn address(words: [u64; 2], is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        IpAddr::V6(Ipv6Addr::from(u128::from(words[0]) << 64 | u128::from(words[1])))
    } else {
        IpAddr::V4(Ipv4Addr::from(words[1] as u32))
    }
}

/// Number of a protocol.
pub(super) const fn number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => protocol::TCP,
        Transport::Udp => protocol::UDP,
    }
}

/// The protocol of a number.
pub(super) const fn transport(number: u8) -> Transport {
    if number == protocol::UDP { Transport::Udp } else { Transport::Tcp }
}

/// Both ports in one number, as the maps have them.
pub(super) const fn joined(source: u16, destination: u16) -> u32 {
    source as u32 | (destination as u32) << 16
}

/// The source port.
#[expect(clippy::cast_possible_truncation, reason = "a port is one half")]
pub(super) const fn source_port(ports: u32) -> u16 {
    ports as u16
}

/// The destination port.
pub(super) const fn destination_port(ports: u32) -> u16 {
    (ports >> 16) as u16
}

/// Key of the packets of a client.
pub(super) fn forward_key(tuple: &Tuple) -> [u64; 5] {
    let source = address_words(tuple.client.ip());
    let destination = address_words(tuple.listen.ip());
    let ports = joined(tuple.client.port(), tuple.listen.port());
    let family = if tuple.client.is_ipv6() { KEY_IPV6 } else { 0 };
    let word = u64::from(ports) | u64::from(number(tuple.transport)) << KEY_PROTOCOL | family;
    [source[0], source[1], destination[0], destination[1], word]
}

/// The connection that a forward key stands for.
#[expect(clippy::cast_possible_truncation, reason = "ports and protocol are parts of the word")]
pub(super) fn tuple(key: &[u64; 5]) -> Tuple {
    let is_ipv6 = key[4] & KEY_IPV6 != 0;
    let ports = key[4] as u32;
    Tuple {
        transport: transport((key[4] >> KEY_PROTOCOL) as u8),
        client: SocketAddr::new(address([key[0], key[1]], is_ipv6), source_port(ports)),
        listen: SocketAddr::new(address([key[2], key[3]], is_ipv6), destination_port(ports)),
    }
}

/// Key of a listener of one address and one port (0 for all).
pub(super) fn listener_key(listener: &Listener) -> ListenerKey {
    ListenerKey {
        address: address_words(listener.prefix.address),
        port: if listener.ports == Ports::ALL { 0 } else { listener.ports.first },
        protocol: number(listener.transport),
        is_ipv6: u8::from(listener.prefix.address.is_ipv6()),
        reserved: 0,
    }
}

/// Key of a prefix, and its length in bits.
pub(super) fn prefix_key(transport: Transport, prefix: Prefix) -> (u32, PrefixKey) {
    let words = address_words(prefix.address);
    let mut address = [0; 16];
    address[..8].copy_from_slice(&words[0].to_be_bytes());
    address[8..].copy_from_slice(&words[1].to_be_bytes());
    let mapped = if prefix.address.is_ipv4() { 96 } else { 0 };
    let key = PrefixKey {
        protocol: number(transport),
        is_ipv6: u8::from(prefix.address.is_ipv6()),
        reserved: [0; 2],
        address,
    };
    (PREFIX_HEAD_BITS + mapped + u32::from(prefix.length), key)
}

/// A backend for the kernel.
pub(super) fn backend_value(backend: &BackendState, is_local: bool) -> BackendValue {
    BackendValue {
        address: address_words(backend.address.ip()),
        rule: backend.rule.0,
        port: backend.address.port(),
        standing: match backend.standing {
            Standing::Up => STANDING_UP,
            Standing::Draining => STANDING_DRAINING,
            Standing::Gone => STANDING_GONE,
        },
        is_ipv6: u8::from(backend.address.is_ipv6()),
        is_local: u8::from(is_local),
        reserved: [0; 7],
    }
}

/// The backend that a value stands for; `None` where there is none.
pub(super) fn backend_state(id: BackendId, value: &BackendValue) -> Option<BackendState> {
    let standing = match value.standing {
        STANDING_UP => Standing::Up,
        STANDING_DRAINING => Standing::Draining,
        STANDING_GONE => Standing::Gone,
        _ => return None,
    };
    let address = SocketAddr::new(address(value.address, value.is_ipv6 != 0), value.port);
    Some(BackendState { id, rule: RuleId(value.rule), address, standing })
}

/// A rule for the kernel, but for its table.
pub(super) fn rule_value(rule: &RuleState) -> RuleValue {
    let prefix = rule.listener.prefix;
    RuleValue {
        address: address_words(prefix.address),
        first_port: rule.listener.ports.first,
        last_port: rule.listener.ports.last,
        prefix_length: prefix.length,
        is_ipv6: u8::from(prefix.address.is_ipv6()),
        protocol: number(rule.listener.transport),
        on_empty: match rule.on_empty {
            OnEmpty::Reset => ACTION_RESET,
            OnEmpty::Drop => ACTION_DROP,
            OnEmpty::Pass => ACTION_PASS,
        },
        on_full: match rule.on_full {
            OnFull::Drop => ACTION_DROP,
            OnFull::Pass => ACTION_PASS,
        },
        port_policy: match rule.ports {
            PortPolicy::Preserve => PORTS_PRESERVE,
            PortPolicy::OnCollision => PORTS_ON_COLLISION,
            PortPolicy::Always => PORTS_ALWAYS,
        },
        number: u16::try_from(rule.id.0).unwrap_or(0),
        // Rounded up: 0 would be no affinity.
        affinity: rule.affinity.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)),
        new_per_second: rule.new_per_second.unwrap_or(0),
        timeouts: [
            milliseconds(rule.timeouts.syn),
            milliseconds(rule.timeouts.established),
            milliseconds(rule.timeouts.closing),
            milliseconds(rule.timeouts.udp),
            milliseconds(rule.timeouts.udp_unreplied),
        ],
        ..RuleValue::default()
    }
}

/// The rule that a value stands for. Its table is read elsewhere.
pub(super) fn rule_state(id: RuleId, value: &RuleValue, table: Arc<[BackendId]>) -> RuleState {
    let [syn, established, closing, udp, udp_unreplied] =
        value.timeouts.map(|time| Duration::from_millis(u64::from(time)));
    RuleState {
        id,
        listener: Listener {
            transport: transport(value.protocol),
            prefix: Prefix {
                address: address(value.address, value.is_ipv6 != 0),
                length: value.prefix_length,
            },
            ports: Ports { first: value.first_port, last: value.last_port },
        },
        table,
        affinity: (value.affinity != 0).then(|| Duration::from_secs(u64::from(value.affinity))),
        on_empty: match value.on_empty {
            ACTION_RESET => OnEmpty::Reset,
            ACTION_PASS => OnEmpty::Pass,
            _ => OnEmpty::Drop,
        },
        on_full: if value.on_full == ACTION_PASS { OnFull::Pass } else { OnFull::Drop },
        ports: match value.port_policy {
            PORTS_PRESERVE => PortPolicy::Preserve,
            PORTS_ALWAYS => PortPolicy::Always,
            _ => PortPolicy::OnCollision,
        },
        timeouts: Timeouts { syn, established, closing, udp, udp_unreplied },
        new_per_second: (value.new_per_second != 0).then_some(value.new_per_second),
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
