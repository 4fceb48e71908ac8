use proptest::prelude::*;

use super::*;

/// A frame without borrowed bytes.
#[derive(Debug, PartialEq)]
struct Read {
    interface: usize,
    time_ns: u64,
    original_length: u32,
    direction: Option<Direction>,
    data: Vec<u8>,
}

fn read_all(file: &[u8]) -> (Vec<Read>, Vec<CaptureInterface>, Result<(), CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (frames, Vec::new(), Err(error)),
    };
    let result = loop {
        match capture.next_frame() {
            Ok(Some((frame, _))) => frames.push(Read {
                interface: frame.interface,
                time_ns: frame.time_ns,
                original_length: frame.original_length,
                direction: frame.direction,
                data: frame.data.to_vec(),
            }),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (frames, capture.interfaces().to_vec(), result)
}

/// Writes numbers in one byte order.
struct Writer {
    order: ByteOrder,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(order: ByteOrder) -> Self {
        Self { order, bytes: Vec::new() }
    }

    fn u32(mut self, value: u32) -> Self {
        let raw = if self.order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(raw);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        let raw = if self.order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(raw);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn option(self, code: u16, value: &[u8]) -> Self {
        let padding = value.len().next_multiple_of(4) - value.len();
        self.u16(code).u16(u16::try_from(value.len()).unwrap()).raw(value).raw(&vec![0; padding])
    }

    fn block(self, kind: u32, body: &Writer) -> Self {
        let length = u32::try_from(body.bytes.len() + 12).unwrap();
        self.u32(kind).u32(length).raw(&body.bytes).u32(length)
    }

    fn section(self) -> Self {
        let body = Writer::new(self.order).u32(BYTE_ORDER_MAGIC).u32(1).raw(&[0xff; 8]);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link_type: u16, snap_length: u32, options: impl FnOnce(Writer) -> Writer) -> Self {
        let body = options(Writer::new(self.order).u16(link_type).u16(0).u32(snap_length));
        self.block(1, &body)
    }

    fn packet(self, interface: u32, units: u64, original_length: u32, data: &[u8]) -> Self {
        let body = Writer::new(self.order).enhanced(interface, units, original_length, data);
        self.block(6, &body)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a timestamp")]
    fn enhanced(self, interface: u32, units: u64, original_length: u32, data: &[u8]) -> Self {
        let padding = data.len().next_multiple_of(4) - data.len();
        self.u32(interface)
            .u32((units >> 32) as u32)
            .u32(units as u32)
            .u32(u32::try_from(data.len()).unwrap())
            .u32(original_length)
            .raw(data)
            .raw(&vec![0; padding])
    }
}

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const ORDERS: [ByteOrder; 2] = [ByteOrder::Big, ByteOrder::Little];

fn pcap(order: ByteOrder, magic: u32) -> Vec<u8> {
    let header = Writer::new(order).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(96).u32(1);
    let first = header.u32(7).u32(123_456).u32(3).u32(1514).raw(b"abc");
    first.u32(8).u32(5).u32(2).u32(2).raw(b"xy").bytes
}

fn frame(time_ns: u64, original_length: u32, data: &[u8]) -> Read {
    Read { interface: 0, time_ns, original_length, direction: None, data: data.to_vec() }
}

#[test]
fn classic_files_of_both_byte_orders_and_resolutions_read_alike() {
    for order in ORDERS {
        for (magic, scale) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1)] {
            let (frames, interfaces, result) = read_all(&pcap(order, magic));
            result.unwrap();
            assert_eq!(interfaces, [CaptureInterface { name: "if0".to_owned(), link_type: 1 }]);
            let expected = [
                frame(7_000_000_000 + 123_456 * scale, 1514, b"abc"),
                frame(8_000_000_000 + 5 * scale, 2, b"xy"),
            ];
            assert_eq!(frames, expected);
        }
    }
}

fn pcapng(order: ByteOrder) -> Vec<u8> {
    let seconds: i64 = 1_000;
    let offset = if order == ByteOrder::Big { seconds.to_be_bytes() } else { seconds.to_le_bytes() };
    let flags = Writer::new(order).u32(2).bytes;
    let sent = Writer::new(order).enhanced(1, 5, 60, b"sent").option(1, &[0xff]).option(2, &flags).u32(0);
    Writer::new(order)
        .section()
        .interface(1, 0, |options| options.option(2, b"eth0"))
        .interface(101, 0, |options| options.option(9, &[9]).option(14, &offset).option(200, b"?").u32(0))
        .packet(0, 1_000_001, 100, b"abcde")
        .block(0xbad, &Writer::new(order).raw(b"unknown."))
        .block(6, &sent)
        .block(3, &Writer::new(order).u32(2).raw(b"sp\0\0"))
        .section()
        .interface(276, 0, |options| options.option(9, &[0x8a]))
        .packet(0, 1024 * 3 + 512, 4, b"next")
        .bytes
}

#[test]
fn interfaces_of_a_pcapng_file_keep_their_clocks_and_sections_their_numbers() {
    for order in ORDERS {
        let (frames, interfaces, result) = read_all(&pcapng(order));
        result.unwrap();
        let names: Vec<_> = interfaces.iter().map(|it| (it.name.as_str(), it.link_type)).collect();
        assert_eq!(names, [("eth0", 1), ("if1", 101), ("if2", 276)]);
        let sent = Read {
            interface: 1,
            direction: Some(Direction::Egress),
            ..frame(1_000_000_000_005, 60, b"sent")
        };
        let expected = [
            frame(1_000_001_000, 100, b"abcde"),
            sent,
            frame(1_000_000_000_005, 2, b"sp"),
            Read { interface: 2, ..frame(3_500_000_000, 4, b"next") },
        ];
        assert_eq!(frames, expected);
    }
}

#[test]
fn a_file_cut_anywhere_yields_what_is_whole_and_the_offset_of_the_cut() {
    let files = ORDERS.map(pcapng).into_iter().chain(ORDERS.map(|order| pcap(order, 0xa1b2_c3d4)));
    for file in files {
        let (whole, _, _) = read_all(&file);
        for length in 1..file.len() {
            let (frames, _, result) = read_all(&file[..length]);
            assert!(whole.starts_with(&frames), "cut at {length}");
            match result {
                Ok(()) => assert!(frames.len() < whole.len() || length > file.len() - 40, "cut at {length}"),
                Err(CaptureError::Cut { offset }) => assert_eq!(offset, length as u64),
                Err(CaptureError::UnknownFormat(_)) if length < 4 => {}
                Err(error) => panic!("cut at {length}: {error}"),
            }
        }
    }
}

#[test]
fn files_that_are_no_captures_are_named() {
    fn check(file: &[u8], expect: &str) {
        let (_, _, result) = read_all(file);
        assert_eq!(result.unwrap_err().to_string(), expect);
    }
    check(b"", "not a capture file: it is empty");
    check(b"#!/bin/sh\n", "not a capture file: it begins with 23 21 2f 62; pcap and pcapng can be read");
    check(&[0x1f, 0x8b, 8, 0, 0], "is compressed with gzip; unpack it first: gzip -dc FILE | weir replay -");
}

#[test]
fn records_that_contradict_themselves_are_refused_with_their_offset() {
    fn check(file: &Writer, expect: &str) {
        let (_, _, result) = read_all(&file.bytes);
        assert_eq!(result.unwrap_err().to_string(), format!("capture is damaged at byte {expect}"));
    }
    let big = ByteOrder::Big;
    let header = |magic: u32| Writer::new(big).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(96).u32(1);
    check(
        &header(0xa1b2_c3d4).u32(0).u32(0).u32(0x7fff_ffff).u32(0),
        "24: a record says that it has 2147483647 bytes",
    );
    check(&Writer::new(big).section().u32(6).u32(3), "28: a block says that it has 3 bytes");
    check(&Writer::new(big).section().u32(6).u32(16).u32(0).u32(20), "28: a block whose two lengths differ");
    check(
        &Writer::new(big).section().packet(0, 0, 1, b"x"),
        "28: a packet of an interface that was not described",
    );
    check(&Writer::new(big).u32(0x0a0d_0d0a).u32(28).u32(0), "0: a section without a byte order");
}

proptest! {
    #[test]
    fn no_damage_makes_the_reader_panic(
        little in any::<bool>(),
        classic in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let order = ORDERS[usize::from(little)];
        let mut file = if classic { pcap(order, 0xa1b2_c3d4) } else { pcapng(order) };
        for (index, value) in changes {
            let at = index.index(file.len());
            file[at] = value;
        }
        file.truncate(cut.index(file.len()) + 1);
        let (frames, interfaces, _) = read_all(&file);
        for frame in frames {
            prop_assert!(frame.interface < interfaces.len());
            prop_assert!(frame.data.len() <= frame.original_length as usize);
        }
    }
}
