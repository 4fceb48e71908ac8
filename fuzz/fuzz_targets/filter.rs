//! Reads arbitrary filters: nothing panics, canonical text means the same, the kernel's part admits all that matches.

#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_flow::{
    Counters, Detail, Direction, Endpoint, Identity, Initiator, Monotonic, Point, PointId, Record, Role, SocketOwner,
    Traffic, Tuple, Wall,
    filter::{Filter, MAX_LENGTH, completions, pushdown::MAX_CONDITIONS},
};
use weir_packet::{Details, ipv4_words, ipv6_words};

/// A flow and a filter. The text comes last, so that a corpus stays readable.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    is_ipv6: bool,
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    protocol: u8,
    is_fragment: bool,
    tcp_flags: u16,
    text: &'a str,
}

static POINT: LazyLock<Arc<Point>> = LazyLock::new(|| {
    Arc::new(Point {
        id: PointId(1),
        netns: None,
        ifindex: 1,
        interface: "eth0".into(),
        direction: Direction::Egress,
        role: Role::Uplink,
    })
});

fuzz_target!(|input: Input<'_>| {
    completions(input.text);
    let filter = match Filter::parse(input.text) {
        Ok(filter) => filter,
        Err(error) => {
            assert!(input.text.is_char_boundary(error.position), "{error:?}");
            error.caret(input.text);
            return;
        }
    };
    // Full names are longer than short ones, so the canonical text may be too long to be read.
    let canonical = filter.to_string();
    if canonical.len() <= MAX_LENGTH {
        assert_eq!(Filter::parse(&canonical).as_ref(), Ok(&filter), "{canonical}");
    }
    let pushdown = filter.pushdown();
    assert!(pushdown.clauses.iter().map(Vec::len).sum::<usize>() <= MAX_CONDITIONS);
    let tuple = tuple(&input);
    assert_eq!(pushdown.admits(&tuple), pushdown.admits(&tuple.reversed()));
    for way in [tuple, tuple.reversed()] {
        let matches = filter.matches(&record(way, input.tcp_flags));
        assert!(
            !matches || pushdown.admits(&tuple),
            "{canonical} matches {way:?}, not admitted by {pushdown:?}"
        );
    }
});

fn tuple(input: &Input<'_>) -> Tuple {
    let words = |bytes: [u8; 16]| {
        let [first, second, third, fourth, ..] = bytes;
        if input.is_ipv6 { ipv6_words(bytes) } else { ipv4_words([first, second, third, fourth]) }
    };
    let details = Details::new(input.is_ipv6, input.protocol);
    let details = if input.is_fragment {
        details.with_fragment()
    } else {
        details.with_ports(input.ports[0], input.ports[1])
    };
    Tuple::new(words(input.addresses[0]), words(input.addresses[1]), details)
}

fn record(tuple: Tuple, tcp_flags: u16) -> Record {
    let traffic =
        Traffic { bytes: 1000, packets: 10, skbs: 10, last_length: 100, tcp_flags, ..Traffic::default() };
    let counters = Counters { forward: traffic, reverse: Traffic::default() };
    let end = |address, port| Endpoint { address, port, owner: SocketOwner::default(), process: None, identity: Identity::default() };
    Record {
        tuple,
        source: end(tuple.source(), tuple.source_port()),
        destination: end(tuple.destination(), tuple.destination_port()),
        point: Arc::clone(&POINT),
        delta: counters,
        total: counters,
        start: Wall(0),
        end: Wall(1_000_000),
        first: Monotonic(0),
        last: Monotonic(1_000_000),
        initiator: Initiator::FirstPacket,
        end_reason: None,
        detail: Detail::Flow,
    }
}
