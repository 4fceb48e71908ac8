//! A plain reference for tests: packets built from a description, every checksum computed from scratch.
//!
//! A translation is right if it turns the packet of one description into that of the translated description, byte by
//! byte. Shared by the tests of the plans and those of the kernel program.

use std::{
    net::{IpAddr, SocketAddr},
    vec::Vec,
};

/// What is in front of the transport header besides the IP header itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Before {
    /// Whether there is no Ethernet header.
    pub is_ip_link: bool,
    /// VLAN tags in the frame.
    pub tags: usize,
    /// Words of IPv4 options, or extension headers of IPv6.
    pub extras: usize,
}

/// The checksum of the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Right.
    Full,
    /// None: 0, with UDP alone.
    None,
    /// Left to the network card: the sum of the pseudo header.
    Partial,
}

/// What of a datagram is in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first bytes, a multiple of eight.
    First(usize),
    /// What is behind the first bytes.
    Later(usize),
}

/// A packet of TCP or UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// In front of the transport header.
    pub before: Before,
    /// TCP or else UDP.
    pub is_tcp: bool,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TCP flags.
    pub flags: u8,
    /// What it carries.
    pub payload: Vec<u8>,
    /// Its checksum.
    pub check: Check,
    /// What of it is there.
    pub part: Part,
}

impl Description {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.link();
        frame.extend(self.packet());
        frame
    }

    fn link(&self) -> Vec<u8> {
        link(self.before, self.source.is_ipv4())
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        let (bytes, offset, more) = match self.part {
            Part::Whole => (&segment[..], 0, false),
            Part::First(length) => (&segment[..length.min(segment.len())], 0, true),
            Part::Later(length) => (&segment[length.min(segment.len())..], length, false),
        };
        let protocol = if self.is_tcp { 6 } else { 17 };
        network(
            self.before.extras,
            self.source.ip(),
            self.destination.ip(),
            protocol,
            (self.part != Part::Whole).then_some((offset, more)),
            bytes,
        )
    }

    fn segment(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        let check_at = if self.is_tcp {
            segment.extend([
                0x01,
                0x02,
                0x03,
                0x04,
                0x05,
                0x06,
                0x07,
                0x08,
                5 << 4,
                self.flags,
                0x20,
                0,
                0,
                0,
                0,
                0,
            ]);
            16
        } else {
            let length = u16::try_from(8 + self.payload.len()).expect("short");
            segment.extend(length.to_be_bytes());
            segment.extend([0, 0]);
            6
        };
        segment.extend(&self.payload);
        let protocol = if self.is_tcp { 6 } else { 17 };
        let pseudo = pseudo(self.source.ip(), self.destination.ip(), protocol, segment.len());
        let check = match self.check {
            Check::None => 0,
            Check::Partial => fold(pseudo),
            Check::Full => match !fold(sum(pseudo, &segment)) {
                0 if !self.is_tcp => 0xffff,
                check => check,
            },
        };
        segment[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
        segment
    }
}

/// An ICMP error (destination unreachable, code 3 or 4) from `source` to `destination` about a packet, of which the
/// first bytes are repeated.
pub fn icmp_error(before: Before, source: IpAddr, destination: IpAddr, about: &[u8]) -> Vec<u8> {
    let is_ipv4 = source.is_ipv4();
    let mut message =
        if is_ipv4 { std::vec![3, 4, 0, 0, 0, 0, 5, 120] } else { std::vec![2, 0, 0, 0, 0, 0, 5, 120] };
    message.extend(about);
    let protocol = if is_ipv4 { 1 } else { 58 };
    let start = if is_ipv4 { 0 } else { pseudo(source, destination, protocol, message.len()) };
    let check = !fold(sum(start, &message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = link(before, is_ipv4);
    frame.extend(network(before.extras, source, destination, protocol, None, &message));
    frame
}

fn link(before: Before, is_ipv4: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    if before.is_ip_link {
        return frame;
    }
    // To the loopback interface, at which the kernel runs test packets.
    frame.extend([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2]);
    for tag in 0..before.tags {
        frame.extend(if before.tags == 2 && tag == 0 { [0x88, 0xa8, 0, 7] } else { [0x81, 0, 0, 100] });
    }
    frame.extend(if is_ipv4 { [8, 0] } else { [0x86, 0xdd] });
    frame
}

/// `fragment`: offset in bytes, and whether more follow.
fn network(
    extras: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    fragment: Option<(usize, bool)>,
    upper: &[u8],
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = 20 + 4 * extras;
            let total = u16::try_from(header + upper.len()).expect("short");
            let (offset, more) = fragment.unwrap_or((0, false));
            let flags = u16::try_from(offset / 8).expect("short") | if more { 0x2000 } else { 0 };
            let mut packet = std::vec![0x40 | (header / 4) as u8, 0];
            packet.extend(total.to_be_bytes());
            packet.extend([0xab, 0xcd]);
            packet.extend(flags.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            // Options: "no operation" (RFC 791 3.1).
            packet.extend(std::iter::repeat_n(1, 4 * extras));
            let check = !fold(sum(0, &packet));
            packet[10..12].copy_from_slice(&check.to_be_bytes());
            packet.extend(upper);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut behind = Vec::new();
            let fragments = usize::from(fragment.is_some());
            // Destination options, padded (RFC 8200 4.2), then the fragment header.
            let after = |index: usize| match (index + 1 < extras, fragments) {
                (true, _) => 60,
                (false, 1) => 44,
                (false, _) => protocol,
            };
            for index in 0..extras {
                behind.extend([after(index), 0, 1, 4, 0, 0, 0, 0]);
            }
            if let Some((offset, more)) = fragment {
                let field = u16::try_from(offset).expect("short") | u16::from(more);
                behind.extend([protocol, 0]);
                behind.extend(field.to_be_bytes());
                behind.extend([0xde, 0xad, 0xbe, 0xef]);
            }
            behind.extend(upper);
            let first = match (extras, fragments) {
                (0, 0) => protocol,
                (0, _) => 44,
                _ => 60,
            };
            let mut packet = std::vec![0x60, 0, 0, 0];
            packet.extend(u16::try_from(behind.len()).expect("short").to_be_bytes());
            packet.extend([first, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(behind);
            packet
        }
        _ => unreachable!("both ends are of one family"),
    }
}

/// The sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1).
fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::try_from(length).expect("short").to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    sum(0, &bytes)
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    })
}

fn fold(sum: u32) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
