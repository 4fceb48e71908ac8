//! [`HttpMask`]: HTTP/1, of which it is known where bodies are, and the lines between their chunks.
//!
//! The masks of text are shown heads, and bodies without those lines: a secret may go on behind one. What is not shown to them is
//! handed on at its place ([`Weave`]); of the lines, only what counts bytes is. A body that is coded (compressed, say) is masked as
//! a whole, since nobody looks into it, and so is HTTP/2, whichever way a connection came to it.

use std::collections::VecDeque;

use super::{BehindGap, TextSide, Writer, weave::Weave};
use crate::{
    Chunk, Part,
    detect::begins_http,
    exchange::MOST_OPEN,
    http1::{
        head,
        reader::{Framing, Place, Reader, Step},
    },
    sides::{self, Direction as _},
};

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct HttpMask {
    sides: [Side; 2],
    /// Methods of the requests that have no answer yet.
    asked: VecDeque<Asked>,
    /// Whether every message was seen.
    is_certain: bool,
    /// Whether all that follows is HTTP/2.
    is_http2: bool,
}

/// What a method says of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Head,
    Connect,
    Other,
}

#[derive(Debug)]
struct Side {
    reader: Reader,
    /// Whether the other side spoke since.
    is_turn: bool,
    text: TextSide,
    weave: Weave,
    /// Whether the body that is being read is coded; of a lost one, the last that was.
    is_coded: bool,
    /// Whether the rest of a line between chunks says something else than a number.
    is_extension: bool,
}

impl HttpMask {
    pub(super) fn new(is_joined: bool) -> Self {
        let side = |part| Side {
            reader: sides::reader(part, is_joined),
            is_turn: true,
            // It was recognised by the beginning of a message.
            text: TextSide::new(false, false),
            weave: Weave::default(),
            is_coded: false,
            is_extension: false,
        };
        let sides = [Part::Client, Part::Server].map(side);
        Self { sides, asked: VecDeque::new(), is_certain: !is_joined, is_http2: false }
    }

    pub(super) fn bytes(&mut self, part: Part, data: &[u8], writer: &mut Writer<'_>) {
        let side = self.speaks(part);
        let is_turn = std::mem::take(&mut side.is_turn);
        let may_be_wrong = side.reader.may_be_wrong();
        if is_turn && (side.reader.is_lost() || may_be_wrong && !self.is_certain) && begins_http(data) {
            self.sides[part as usize].reader.find_again();
        }
        let mut rest = data;
        while !self.is_http2 {
            let side = &mut self.sides[part as usize];
            let place = side.reader.place();
            let before = rest;
            let step = side.reader.step(&mut rest);
            side.said(place, &before[..before.len() - rest.len()], writer);
            match step {
                None => return,
                Some(Step::Head) => self.head(part),
                // Headers may come behind the last chunk.
                Some(Step::Framing) if side.reader.is_in_trailer() => {
                    side.through(writer.out, TextSide::begin_anew);
                }
                Some(Step::Ended) => side.message_ended(writer.out),
                Some(Step::Broken) => self.lose(),
                Some(Step::Began | Step::Framing | Step::Body(_) | Step::Skipped) => {}
            }
        }
        self.end(part, writer.out);
        writer.mask(rest.len());
    }

    /// Bytes that are not there; the gap itself is handed on, too.
    pub(super) fn gap(&mut self, part: Part, gap: Chunk<'_>, out: &mut dyn FnMut(Chunk<'_>)) {
        let side = self.speaks(part);
        let is_known = side.reader.gap(gap.length());
        let behind = side.reader.left_in_body().map_or(BehindGap::Unknown, BehindGap::Body);
        side.through(out, |text, out| text.gap(behind, out));
        if !is_known {
            side.is_turn = false;
            self.lose();
        }
        out(gap);
    }

    /// One side will say no more.
    pub(super) fn end(&mut self, part: Part, out: &mut dyn FnMut(Chunk<'_>)) {
        self.sides[part as usize].end(out);
    }

    fn speaks(&mut self, part: Part) -> &mut Side {
        let other = &mut self.sides[1 - part as usize];
        other.is_turn = true;
        other.text.names.others_turn();
        &mut self.sides[part as usize]
    }

    /// A message was missed, perhaps.
    fn lose(&mut self) {
        self.is_certain = false;
        self.asked.clear();
    }

    /// A head is whole: says how its body ends.
    fn head(&mut self, part: Part) {
        let side = &mut self.sides[part as usize];
        let head = side.reader.head();
        let headers = head::headers(head, None);
        side.is_coded = headers.is_coded();
        let framing = match part {
            Part::Client => {
                let Some(request) = head::request(head) else { return side.reader.lose() };
                self.is_http2 = request.method == b"PRI";
                if self.asked.len() >= MOST_OPEN {
                    self.is_certain = false;
                }
                if !self.is_certain {
                    // Clients wait for answers, as far as is known.
                    self.asked.clear();
                }
                self.asked.push_back(match request.method {
                    b"HEAD" => Asked::Head,
                    b"CONNECT" => Asked::Connect,
                    _ => Asked::Other,
                });
                headers.of_request()
            }
            Part::Server => {
                let Some(response) = head::response(head) else { return side.reader.lose() };
                // Others come before the one that counts (RFC 9110 15.2).
                let is_interim = (100..200).contains(&response.status) && response.status != 101;
                let asked = if is_interim { None } else { self.asked.pop_front() };
                self.is_http2 = response.status == 101 && headers.is_http2();
                let method = match asked {
                    Some(Asked::Head) => "HEAD",
                    Some(Asked::Connect) => "CONNECT",
                    Some(Asked::Other) | None => "",
                };
                headers.of_response(response.status, method)
            }
        };
        match framing {
            // Both directions change at once (RFC 9110 7.8, 9.3.6).
            Some(Framing::Opaque) => self.sides.iter_mut().for_each(|side| side.reader.become_opaque()),
            Some(framing) => side.reader.body(framing),
            None => side.reader.lose(),
        }
    }
}

impl Side {
    fn said(&mut self, place: Place, data: &[u8], writer: &mut Writer<'_>) {
        if data.is_empty() {
            return;
        }
        match place {
            Place::Framing => self.framing(data, writer),
            Place::Body | Place::Lost if self.is_coded => {
                self.end(writer.out);
                self.weave.pass_by(data.len());
                writer.mask(data.len());
            }
            Place::Head | Place::Body | Place::Opaque | Place::Lost => {
                let Writer { position, time, .. } = *writer;
                let position = self.weave.within_text(position);
                self.through(writer.out, |text, out| text.bytes(data, &mut Writer { position, time, out }));
                writer.skip(data.len());
            }
        }
    }

    /// A line between chunks, or a piece of one. What it says besides a number is masked.
    fn framing(&mut self, data: &[u8], writer: &mut Writer<'_>) {
        let shown = data.iter().map(|byte| match byte {
            b'\r' | b'\n' => {
                self.is_extension = false;
                *byte
            }
            b' ' | b'\t' | b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' if !self.is_extension => *byte,
            b';' => {
                self.is_extension = true;
                *byte
            }
            _ => b'*',
        });
        let line: Vec<u8> = shown.collect();
        self.weave.beside(&line, self.text.waiting() > 0, writer);
        if self.weave.is_full() {
            self.through(writer.out, TextSide::hide);
        }
    }

    fn message_ended(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        self.end(out);
        self.text.names.message_ended();
    }

    fn end(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        self.through(out, TextSide::end);
    }

    /// Lets the text hand on something, with what stands beside it.
    fn through(
        &mut self,
        out: &mut dyn FnMut(Chunk<'_>),
        work: impl FnOnce(&mut TextSide, &mut dyn FnMut(Chunk<'_>)),
    ) {
        let Self { text, weave, .. } = self;
        work(text, &mut |chunk| weave.text(chunk, out));
        if text.waiting() == 0 {
            weave.flush(out);
        }
    }
}
