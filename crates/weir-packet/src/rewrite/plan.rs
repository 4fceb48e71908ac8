//! [`Plan`]: the translation of a packet.

#![expect(clippy::cast_possible_truncation, reason = "an IPv4 address is the lower half of its word")]

use super::{checksum::Sum, layout::Layout};

/// Which end of a packet gets another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl Side {
    /// The other one.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// What a packet is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The end that gets another address.
    pub side: Side,
    /// Words of that address, of the packet's own family.
    pub address: [u64; 2],
    /// Source port (low half) and destination port: both, changed or not.
    pub ports: u32,
}

/// Both ports, exchanged.
#[inline(always)]
pub const fn swapped(ports: u32) -> u32 {
    ports.rotate_left(16)
}

/// What to write into a packet, and how its checksums change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the address goes (4 bytes or 16).
    pub address_at: u32,
    /// The IPv4 header checksum that then is right, as it lies in memory. Not for IPv6.
    pub ip_check: u16,
    /// What the transport checksum changes by because of the address, which it covers in the pseudo header: to be applied
    /// also where the rest is left to the network card.
    pub pseudo: Sum,
    /// What it changes by because of the ports, which it covers itself.
    pub plain: Sum,
}

impl Plan {
    /// What translating a packet takes.
    #[inline(always)]
    pub fn new(layout: &Layout, target: &Target) -> Self {
        let (pseudo, address_at) = address_change(layout, target);
        Self {
            address_at,
            ip_check: pseudo.applied_to(layout.ip_check),
            pseudo,
            plain: Sum::ZERO.replace(memory(layout.ports), memory(target.ports)),
        }
    }
}

/// What sums change by for another address, and where it goes.
#[inline(always)]
pub(super) fn address_change(layout: &Layout, target: &Target) -> (Sum, u32) {
    let is_source = target.side == Side::Source;
    let old = if is_source { layout.source } else { layout.destination };
    if layout.is_ipv6 == 0 {
        let at = layout.network + if is_source { 12 } else { 16 };
        return (Sum::ZERO.replace(ipv4_memory(old), ipv4_memory(target.address)), at);
    }
    let at = layout.network + if is_source { 8 } else { 24 };
    let sum = Sum::ZERO.replace_word(old[0], target.address[0]).replace_word(old[1], target.address[1]);
    (sum, at)
}

/// An IPv4 address as it lies in memory.
#[inline(always)]
pub(super) const fn ipv4_memory(address: [u64; 2]) -> u32 {
    (address[1] as u32).to_be()
}

/// Both ports as they lie in memory.
#[inline(always)]
pub(super) const fn memory(ports: u32) -> u32 {
    swapped(ports).to_be()
}
