//! Parses arbitrary frames: nothing panics, nothing is read beyond the stated length, both parsers agree.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_packet::{
    Buffer, Headers, Link, Parsed, Tuple, WINDOW, Window, parse, parse_bytes, plain, protocol,
};

/// A frame and what is known of it beforehand. The bytes come last, so that a corpus stays readable as packets.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    is_raw: bool,
    known_ethertype: Option<u16>,
    stripped_vlan: Option<u16>,
    /// Bytes that the frame has beyond those that are given.
    missing: u16,
    frame: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let link = if input.is_raw { Link::Ip } else { Link::Ethernet };
    let length = u32::try_from(input.frame.len()).unwrap_or(u32::MAX).saturating_add(input.missing.into());
    let parsed = parse_bytes(input.frame, length, link, input.known_ethertype, input.stripped_vlan);
    if let Parsed::Ip(headers) = parsed {
        check_headers(&headers, length);
    }

    // Other bytes behind the frame change nothing.
    let mut buffer = Buffer::new();
    buffer.bytes.fill(0xa5);
    let kept = input.frame.len().min(WINDOW);
    buffer.bytes[..kept].copy_from_slice(&input.frame[..kept]);
    let mut window = Window::new(&mut buffer, input.frame.len());
    assert_eq!(parse(&mut window, length, link, input.known_ethertype, input.stripped_vlan), parsed);

    if let Some(expect) = plain_headers(input.frame, length) {
        assert_eq!(parse_bytes(input.frame, length, Link::Ip, None, None), Parsed::Ip(expect));
    }
});

fn check_headers(headers: &Headers, length: u32) {
    let tuple = headers.tuple;
    assert!(headers.header_length <= length);
    assert!(headers.tcp_flags < 0x200 && headers.dscp < 64);
    assert!(headers.tcp_flags == 0 || tuple.protocol() == protocol::TCP);
    assert_eq!(tuple.reversed().reversed(), tuple);
    assert_eq!(Tuple::from_words(tuple.words()), tuple);
    assert!(!(tuple.is_fragment() && tuple.is_truncated()));
    if tuple.is_fragment() || tuple.is_truncated() {
        assert_eq!((tuple.source_port(), tuple.destination_port()), (0, 0));
    }
}

/// What the fast path makes of a packet, put together as the kernel program does.
fn plain_headers(packet: &[u8], length: u32) -> Option<Headers> {
    let (plain, network) = match packet.first()? >> 4 {
        4 => (plain::ipv4(packet.first_chunk()?)?, plain::IPV4_BYTES),
        _ => (plain::ipv6(packet.first_chunk()?)?, plain::IPV6_BYTES),
    };
    let (tcp_flags, transport) = if plain.protocol == protocol::TCP {
        plain::tcp_flags(packet[network..].first_chunk()?)
    } else {
        (0, plain::UDP_BYTES as u64)
    };
    let end = u32::try_from(network as u64 + transport).expect("headers are short");
    Some(Headers {
        tuple: plain.tuple(),
        header_length: end.min(length),
        tcp_flags,
        dscp: plain.dscp,
        ttl: plain.ttl,
    })
}
