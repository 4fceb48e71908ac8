//! What is written reads back.

use weir_agent::pcapng::{BlockByBlock, CaptureWriter, FileNotes, Statistics, WrittenPacket};
use weir_flow::Direction;
use weir_packet::Link;

use super::Capture;

#[test]
fn what_is_written_reads_back() {
    let packet = WrittenPacket {
        ifindex: 7,
        interface: "eth0",
        link: Link::Ethernet,
        direction: Direction::Egress,
        time_ns: 1_700_000_000_123_456_789,
        original_length: 1514,
        data: b"seven b",
        comment: "curl (4711) → nginx",
    };
    let raw = WrittenPacket {
        ifindex: 8,
        interface: "tun0",
        link: Link::Ip,
        direction: Direction::Ingress,
        comment: "",
        ..packet
    };
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(BlockByBlock::new(&mut file), 128, &FileNotes::default()).unwrap();
    for packet in [&packet, &raw, &packet] {
        writer.write(packet).unwrap();
    }
    writer.statistics((8, "tun0"), &Statistics::default(), "").unwrap();
    writer.statistics((9, "not in the file"), &Statistics::default(), "").unwrap();
    writer.flush().unwrap();

    let mut capture = Capture::open(&file[..]).unwrap();
    for (expected, number, link_type) in [(&packet, 0, 1), (&raw, 1, 101), (&packet, 0, 1)] {
        let (frame, interface) = capture.next_frame().unwrap().unwrap();
        assert_eq!(frame.interface, number);
        assert_eq!((interface.name.as_str(), interface.link_type), (expected.interface, link_type));
        assert_eq!(frame.time_ns, expected.time_ns);
        assert_eq!(frame.original_length, expected.original_length);
        assert_eq!(frame.direction, Some(expected.direction));
        assert_eq!(frame.data, expected.data);
    }
    assert!(capture.next_frame().unwrap().is_none());
}

#[test]
fn statistics_are_laid_out_as_the_format_says() {
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(BlockByBlock::new(&mut file), 128, &FileNotes::default()).unwrap();
    let data = [0; 60];
    let packet = WrittenPacket {
        ifindex: 7,
        interface: "eth0",
        link: Link::Ethernet,
        direction: Direction::Egress,
        time_ns: 1,
        original_length: 60,
        data: &data,
        comment: &"é".repeat(4000),
    };
    writer.write(&packet).unwrap();
    let (start_ns, end_ns) = (0x1_0000_0002, 0x3_0000_0004);
    let counts = Statistics { start_ns, end_ns, seen: 10, lost: 2, accepted: 9, written: 7 };
    writer.statistics((7, "eth0"), &counts, "").unwrap();
    let words: Vec<u32> =
        file.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let option = |code: u32| code | 8 << 16;
    #[rustfmt::skip]
    let expected = [
        5, 100, 0, 3, 4,
        option(2), 1, 2, option(3), 3, 4,
        option(4), 10, 0, option(5), 2, 0, option(6), 9, 0, option(8), 7, 0,
        0, 100,
    ];
    assert_eq!(words[words.len() - expected.len()..], expected);
}
