//! Scripts for tests of decoders: who says what, in which pieces.

use proptest::{prelude::*, test_runner::TestRunner};
use weir_flow::Monotonic;

use super::decoder;
use crate::{
    Moment, Part, Transport,
    call::{Call, Keep, Protocol},
    exchange::Trust,
};

/// Something that happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Bytes.
    Says(Part, Vec<u8>),
    /// Bytes that are not there.
    Gap(Part, u64),
    /// One side will say no more.
    Ends(Part),
}

/// The client says this.
pub(crate) fn client(bytes: impl AsRef<[u8]>) -> Line {
    Line::Says(Part::Client, bytes.as_ref().to_vec())
}

/// The server says this.
pub(crate) fn server(bytes: impl AsRef<[u8]>) -> Line {
    Line::Says(Part::Server, bytes.as_ref().to_vec())
}

/// Plays a script, each line a millisecond after the one before, cut where `cuts` says so.
pub(crate) fn play(
    protocol: Protocol,
    trust: Trust,
    script: &[Line],
    cuts: &mut dyn FnMut() -> usize,
) -> Vec<Call> {
    let keep = Keep { headers: true, body_bytes: 64 };
    let mut decoder = decoder(protocol, Transport::Stream, trust, keep);
    let mut calls = Vec::new();
    let mut positions = [0; 2];
    let mut time = Monotonic(0);
    for line in script {
        time.0 += 1_000_000;
        match line {
            Line::Says(part, bytes) => {
                let position = &mut positions[*part as usize];
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(cuts().clamp(1, rest.len()));
                    decoder.bytes(*part, Moment { position: *position, time }, piece, &mut calls);
                    *position += piece.len() as u64;
                    rest = behind;
                }
            }
            Line::Gap(part, length) => {
                let position = &mut positions[*part as usize];
                decoder.gap(*part, Moment { position: *position, time }, *length, &mut calls);
                *position += length;
            }
            Line::Ends(part) => decoder.end(*part, time, &mut calls),
        }
    }
    decoder.finish(time, &mut calls);
    calls
}

/// Plays a script uncut, and makes sure that cutting it makes no difference.
pub(crate) fn calls(protocol: Protocol, trust: Trust, script: &[Line]) -> Vec<Call> {
    let calls = play(protocol, trust, script, &mut || usize::MAX);
    for length in [1, 2, 3, 7] {
        let cut = play(protocol, trust, script, &mut || length);
        assert_eq!(cut, calls, "pieces of {length}");
    }
    calls
}

/// A script with one stretch of a side replaced by a gap.
fn with_gap(script: &[Line], part: Part, start: usize, length: usize) -> Vec<Line> {
    let mut at = 0;
    let mut out = Vec::new();
    for line in script {
        let Line::Says(speaker, bytes) = line else {
            out.push(line.clone());
            continue;
        };
        if *speaker != part {
            out.push(line.clone());
            continue;
        }
        let from = start.saturating_sub(at).min(bytes.len());
        let to = (start + length).saturating_sub(at).min(bytes.len());
        at += bytes.len();
        let pieces = [
            Line::Says(part, bytes[..from].to_vec()),
            Line::Gap(part, (to - from) as u64),
            Line::Says(part, bytes[to..].to_vec()),
        ];
        out.extend(pieces.into_iter().filter(|piece| match piece {
            Line::Says(_, bytes) => !bytes.is_empty(),
            Line::Gap(_, length) => *length > 0,
            Line::Ends(_) => true,
        }));
    }
    out
}

/// Bytes that a side says in the whole script.
fn length(script: &[Line], part: Part) -> usize {
    let of = |line: &Line| match line {
        Line::Says(speaker, bytes) if *speaker == part => bytes.len(),
        _ => 0,
    };
    script.iter().map(of).sum()
}

/// Plays anything that is made of these words and of chance, in one piece and in many, and compares.
pub(crate) fn anything_gives_the_same_calls_in_any_pieces(
    protocol: Protocol,
    words: &'static [&'static [u8]],
) {
    let cuts = prop::collection::vec(1..30_usize, 1..20);
    let trust = prop::sample::select(vec![Trust::Certain, Trust::Inferred]);
    let outcome = TestRunner::default().run(&(any_script(words), cuts, trust), |(script, cuts, trust)| {
        let whole = play(protocol, trust, &script, &mut || usize::MAX);
        let mut cuts = cuts.iter().cycle();
        let cut = play(protocol, trust, &script, &mut || cuts.next().copied().unwrap_or(1));
        prop_assert_eq!(whole, cut);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Puts gaps into conversations, which `make` makes of some numbers and of whether the client waits for answers. `check` looks
/// whether any request got the answer of another; where the client did not wait, it leaves out what was inferred. Some
/// conversations begin with calls of their own.
pub(crate) fn no_gap_gives_a_request_the_answer_of_another(
    protocol: Protocol,
    begin: usize,
    make: impl Fn(&[u8], bool) -> Vec<Line>,
    check: impl Fn(&[Call], bool) -> Result<(), TestCaseError>,
) {
    let gap = (any::<bool>(), any::<prop::sample::Index>(), 1..150_usize);
    let input = (
        prop::collection::vec(any::<u8>(), 1..7),
        any::<bool>(),
        prop::collection::vec(gap, 1..3),
        1..50_usize,
    );
    let mut runner = TestRunner::new(ProptestConfig::with_cases(512));
    let outcome = runner.run(&input, |(seed, is_pipelined, gaps, cut)| {
        let mut script = make(&seed, is_pipelined);
        let plain = play(protocol, Trust::Certain, &script, &mut || cut);
        prop_assert_eq!(plain.len(), begin + seed.len());
        prop_assert!(plain.iter().all(Call::is_complete), "{:?}", plain);
        check(&plain, true)?;
        for (is_client, start, length) in gaps {
            let part = if is_client { Part::Client } else { Part::Server };
            let all = self::length(&script, part);
            if all > 0 {
                script = with_gap(&script, part, start.index(all), length);
            }
        }
        check(&play(protocol, Trust::Certain, &script, &mut || cut), !is_pipelined)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Anything at all, made of these words and of chance. Chunks without bytes do not exist.
fn any_script(words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<Line>> {
    let word = prop_oneof![
        4 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    let says = prop::collection::vec(word, 1..6).prop_map(|words| words.concat());
    let part = prop::sample::select(vec![Part::Client, Part::Server]);
    let line = prop_oneof![
        8 => (part.clone(), says).prop_map(|(part, bytes)| Line::Says(part, bytes)),
        1 => (part.clone(), 1..40_u64).prop_map(|(part, length)| Line::Gap(part, length)),
        1 => part.prop_map(Line::Ends),
    ];
    let has_bytes = |line: &Line| !matches!(line, Line::Says(_, bytes) if bytes.is_empty());
    prop::collection::vec(line, 0..12).prop_map(move |lines| lines.into_iter().filter(has_bytes).collect())
}
