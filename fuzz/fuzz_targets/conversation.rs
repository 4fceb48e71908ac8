//! Plays arbitrary conversations: nothing panics, every byte comes out at its place, pieces make no difference.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_flow::Monotonic;
use weir_l7::{
    Call, Chunk, Conversation, GapReason, Keep, Part, Protocol, Reassembly, Recognised, Settings, Sink, StreamLimits,
    Transport, Way, conversation::Redaction,
};

/// A connection, and what is said over it.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    protocol: Option<u8>,
    tapped: Option<bool>,
    port: Option<bool>,
    is_from_start: bool,
    is_datagram: bool,
    is_redacted: bool,
    lines: Vec<(bool, Line<'a>)>,
}

#[derive(Arbitrary, Debug)]
enum Line<'a> {
    Says(&'a [u8]),
    Gap(u16),
}

/// What comes out.
struct Out {
    said: [Vec<u8>; 2],
    next: [u64; 2],
    calls: Vec<Call>,
    recognised: Recognised,
}

impl Sink for Out {
    fn chunk(&mut self, way: Way, chunk: Chunk<'_>) {
        let index = way as usize;
        assert_eq!(chunk.position(), self.next[index]);
        self.next[index] = chunk.end();
        if let Chunk::Bytes { data, .. } = chunk {
            self.said[index].extend_from_slice(data);
        }
    }

    fn call(&mut self, call: Call) {
        assert!(call.end >= call.start && call.request.gap_bytes <= call.request.bytes);
        self.calls.push(call);
    }
}

fuzz_target!(|input: Input<'_>| {
    let settings = Settings {
        transport: if input.is_datagram { Transport::Datagram } else { Transport::Stream },
        protocol: input.protocol.and_then(|index| Protocol::ALL.get(usize::from(index % 6)).copied()),
        tapped: input.tapped.map(|is_client| if is_client { Part::Client } else { Part::Server }),
        port: input.port.map(|is_redis| if is_redis { 6379 } else { 5432 }),
        is_from_start: input.is_from_start,
        keep: Keep { headers: true, body_bytes: 16 },
        redaction: if input.is_redacted { Redaction::On } else { Redaction::Off },
    };
    let whole = play(settings, &input.lines, usize::MAX);
    let total: u64 = input.lines.iter().map(|(_, line)| length(line)).sum();
    assert_eq!(whole.next[0] + whole.next[1], total);
    if input.is_datagram {
        return;
    }
    let cut = play(settings, &input.lines, 1);
    assert_eq!(whole.next, cut.next);
    // Where the beginning was not seen, or something was lost, a short piece may tell less than a long one.
    let is_seen = input.is_from_start && input.lines.iter().all(|(_, line)| matches!(line, Line::Says(_)));
    let is_plain = |protocol| matches!(protocol, Recognised::Protocol(Protocol::Postgresql | Protocol::Redis, _));
    if is_seen && whole.recognised == cut.recognised && is_plain(whole.recognised) {
        assert_eq!((&whole.said, &whole.calls), (&cut.said, &cut.calls));
    }
});

fn length(line: &Line<'_>) -> u64 {
    match line {
        Line::Says(data) => data.len() as u64,
        Line::Gap(length) => u64::from(*length),
    }
}

/// Lets everything pass a reassembly, too.
fn play(settings: Settings, lines: &[(bool, Line<'_>)], most: usize) -> Out {
    let mut conversation = Conversation::new(settings);
    let mut out =
        Out { said: Default::default(), next: [0; 2], calls: Vec::new(), recognised: Recognised::Undecided };
    let mut streams = [(); 2].map(|()| Reassembly::new(Some(0), StreamLimits::default()));
    let mut positions = [0; 2];
    let mut time = Monotonic(0);
    for (is_sent, line) in lines {
        let way = if *is_sent { Way::Sent } else { Way::Received };
        let position = &mut positions[way as usize];
        let stream = &mut streams[way as usize];
        time.0 += 1;
        match line {
            Line::Says(data) => {
                for piece in data.chunks(most.min(data.len()).max(1)) {
                    let chunk = Chunk::Bytes { position: *position, time, data: piece };
                    stream.push(chunk, &mut |chunk| conversation.push(way, chunk, &mut out));
                    *position += piece.len() as u64;
                }
            }
            Line::Gap(length) => {
                let length = u64::from(*length);
                let chunk = Chunk::Gap { position: *position, time, length, reason: GapReason::Lost };
                stream.push(chunk, &mut |chunk| conversation.push(way, chunk, &mut out));
                *position += length;
            }
        }
        assert!(stream.ledger().is_balanced());
    }
    conversation.finish(time, &mut out);
    out.recognised = conversation.recognised();
    out
}
