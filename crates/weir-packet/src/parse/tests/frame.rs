//! Puts frames together, layer by layer from the inside out.

use std::{net::Ipv6Addr, vec, vec::Vec};

/// Source of all IPv4 packets here.
pub(super) const SOURCE: [u8; 4] = [192, 0, 2, 1];
/// Destination of all IPv4 packets here.
pub(super) const DESTINATION: [u8; 4] = [198, 51, 100, 7];
/// Source of all IPv6 packets here.
pub(super) const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Destination of all IPv6 packets here.
pub(super) const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// "More fragments" in the fragment field.
pub(super) const MORE: u16 = 0x2000;
/// "Don't fragment".
pub(super) const DONT: u16 = 0x4000;

fn u16_of(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("test packets are short").to_be_bytes()
}

/// An Ethernet frame with tags given as (type, tag), the outermost first.
pub(super) fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (kind, tag) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet without options that is not a fragment.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, &[], DONT, payload)
}

/// An IPv4 packet; options must be whole words.
pub(super) fn ipv4_with(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0, "options are whole words");
    let words = 5 + u8::try_from(options.len() / 4).expect("at most ten words");
    let mut packet = vec![0x40 | words, 46 << 2];
    packet.extend(u16_of(20 + options.len() + payload.len()));
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SOURCE);
    packet.extend(DESTINATION);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend(u16_of(payload.len()));
    packet.extend([next_header, 64]);
    packet.extend(SOURCE_V6.octets());
    packet.extend(DESTINATION_V6.octets());
    packet.extend(payload);
    packet
}

/// An extension header of `8 * (length + 1)` bytes (for AH `4 * (length + 2)`) before what it announces.
pub(super) fn extension(is_ah: bool, next_header: u8, length: u8, payload: &[u8]) -> Vec<u8> {
    let bytes = if is_ah { 4 * (usize::from(length) + 2) } else { 8 * (usize::from(length) + 1) };
    let mut packet = vec![0; bytes];
    packet[0] = next_header;
    packet[1] = length;
    packet.extend(payload);
    packet
}

/// A fragment header, offset in units of eight bytes.
pub(super) fn fragment(next_header: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![next_header, 0];
    packet.extend((offset << 3 | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

/// A TCP header with `words` words in all and nine flag bits.
pub(super) fn tcp(source: u16, destination: u16, flags: u16, words: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(words.max(5)) * 4];
    header[0..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12..14].copy_from_slice(&(u16::from(words) << 12 | flags).to_be_bytes());
    header
}

/// A UDP datagram without payload.
pub(super) fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = vec![0; 8];
    header[0..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[5] = 8;
    header
}
