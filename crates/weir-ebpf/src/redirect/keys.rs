//! Keys of connections, and which way a packet goes.

use weir_common::redirect::{ConnectionValue, KEY_IPV6, KEY_PROTOCOL, KEY_REVERSE, is_forward};
use weir_packet::rewrite::{Layout, Side, swapped};

/// Which packets a program sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Of clients of this host, leaving.
    Uplink,
    /// Of clients behind the interface, coming in.
    Client,
    /// Of backends.
    Answer,
}

impl Way {
    /// Of clients.
    #[inline(always)]
    pub(crate) fn is_forward(self) -> bool {
        self != Self::Answer
    }

    /// Which end gets another address.
    #[inline(always)]
    pub(crate) fn side(self) -> Side {
        if self.is_forward() { Side::Destination } else { Side::Source }
    }

    /// In a number, for global functions.
    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Uplink => 0,
            Self::Client => 1,
            Self::Answer => 2,
        }
    }

    #[inline(always)]
    pub(crate) fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Uplink,
            1 => Self::Client,
            _ => Self::Answer,
        }
    }
}

/// Word 4 of a key.
#[inline(always)]
pub(crate) fn word(ports: u32, protocol: u8, is_ipv6: bool, is_forward: bool) -> u64 {
    u64::from(ports)
        | u64::from(protocol) << KEY_PROTOCOL
        | if is_ipv6 { KEY_IPV6 } else { 0 }
        | if is_forward { 0 } else { KEY_REVERSE }
}

/// Writes the key of a packet.
#[inline(always)]
pub(crate) fn of_packet(layout: &Layout, way: Way, key: &mut [u64; 5]) {
    key[0] = layout.source[0];
    key[1] = layout.source[1];
    key[2] = layout.destination[0];
    key[3] = layout.destination[1];
    key[4] = word(layout.ports, layout.protocol, layout.is_ipv6 != 0, way.is_forward());
}

/// What the other direction writes: what this one takes away.
#[inline(always)]
pub(crate) fn pair_value(key: &[u64; 5], value: &ConnectionValue, pair: &mut ConnectionValue) {
    let ports = key[4] as u32;
    *pair = *value;
    pair.address = if is_forward(key) { [key[2], key[3]] } else { [key[0], key[1]] };
    pair.ports = swapped(ports);
    pair.key_ports = swapped(value.ports);
    pair.flags = 0;
    pair.route = 0;
    pair.interface = 0;
}
