//! DNS (RFC 1035): queries and responses become calls, over datagrams or a stream.
//!
//! A response belongs to the query with its number and its question; order does not matter, so gaps never put a response to the wrong
//! query. Over a stream each message has its length in front (RFC 1035 4.2.2, RFC 7766).

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use weir_flow::{Monotonic, RecordType, ResponseCode};
use weir_packet::dns::{Data, HEADER_BYTES, Message, Question};

use crate::{
    Load, Moment, Part,
    call::{Call, Detail, DnsCall, Ending, Half},
    decoder::Decode,
    exchange::OPEN_CALL,
};

/// Most queries that may wait for their responses. The oldest goes without.
const MOST_OPEN: usize = 512;

/// Most bytes of a message on a stream that are looked at; answers behind them are not listed.
const MOST_KEPT: usize = 4096;

/// Most answers that are listed.
const MOST_ANSWERS: usize = 16;

/// One connection, or one pair of endpoints.
#[derive(Debug)]
pub(crate) struct Dns {
    open: VecDeque<Open>,
    /// Of a stream, what is being read of each side.
    sides: [Side; 2],
    is_stream: bool,
    /// Whether there is room for one query alone.
    is_brief: bool,
    /// Queries that got no response for that reason.
    cut: u64,
}

#[derive(Debug)]
struct Open {
    id: u16,
    question: Option<Question>,
    call: Call,
}

/// One side of a stream.
#[derive(Debug, Default)]
struct Side {
    is_lost: bool,
    /// Whether it may be found again at the next byte, because the other side spoke since.
    is_turn: bool,
    at: Option<Moment>,
    /// Length and beginning of the message.
    kept: Vec<u8>,
    read: u64,
    gap_bytes: u64,
}

impl Side {
    /// Bytes of the message with its length; `None` before the length is known.
    fn whole(&self) -> Option<u64> {
        let length = *self.kept.first_chunk()?;
        Some(u64::from(u16::from_be_bytes(length)) + 2)
    }

    fn clear(&mut self) {
        (self.at, self.read, self.gap_bytes) = (None, 0, 0);
        self.kept.clear();
    }
}

impl Dns {
    /// Of a stream that is seen from its beginning or was joined in the middle, or of datagrams.
    pub(crate) fn new(is_stream: bool, is_joined: bool) -> Self {
        let side = || Side { is_lost: is_joined, is_turn: true, ..Side::default() };
        Self { open: VecDeque::new(), sides: [side(), side()], is_stream, is_brief: false, cut: 0 }
    }

    fn lose(&mut self, part: Part) {
        let side = &mut self.sides[part as usize];
        side.is_lost = true;
        side.is_turn = false;
        side.clear();
    }

    fn message_if_whole(&mut self, part: Part, begun: Moment, end: Monotonic, out: &mut Vec<Call>) {
        let side = &mut self.sides[part as usize];
        if side.whole() != Some(side.read) {
            return;
        }
        let said = Half {
            position: Some(begun.position),
            bytes: side.read,
            gap_bytes: side.gap_bytes,
            ..Half::default()
        };
        let kept = std::mem::take(&mut side.kept);
        side.clear();
        self.message(part, begun.time, end, said, &kept[2..], out);
    }

    fn message(
        &mut self,
        part: Part,
        begin: Monotonic,
        end: Monotonic,
        said: Half,
        bytes: &[u8],
        out: &mut Vec<Call>,
    ) {
        let Some(message) = Message::new(bytes) else {
            if self.is_stream {
                self.lose(part);
            }
            return;
        };
        let question = message.question();
        if !message.is_response() {
            let mut call = Call::begin(begin, 0, Detail::Dns(Box::new(asked(question.as_ref()))));
            call.request = said;
            call.end = end;
            let most = if self.is_brief { 1 } else { MOST_OPEN };
            if self.open.len() >= most {
                self.cut += u64::from(self.is_brief);
                out.extend(self.open.pop_front().map(|open| open.call.ended(Ending::NoAnswer)));
            }
            self.open.push_back(Open { id: message.id(), question, call });
            return;
        }
        // Some servers leave out the question where they do not like it.
        let is_for =
            |open: &Open| open.id == message.id() && (question.is_none() || open.question == question);
        let open = self.open.iter().position(is_for).and_then(|index| self.open.remove(index));
        let mut call = open.map_or_else(
            || Call::orphan(begin, 0, Detail::Dns(Box::new(asked(question.as_ref())))),
            |open| open.call,
        );
        call.answered = Some(begin);
        call.end = end;
        call.response = said;
        if let Detail::Dns(dns) = &mut call.detail {
            dns.code = Some(ResponseCode::new(message.response_code()));
            let shown = message.answers().filter_map(|answer| match answer.data {
                Data::Address(address) => Some(address.to_string()),
                Data::Alias(name) => Some(name.to_string()),
                Data::Other => None,
            });
            dns.answers = shown.take(MOST_ANSWERS).collect();
        }
        out.push(call);
    }
}

impl Decode for Dns {
    fn load(&self) -> Load {
        Load { held: self.open.len() as u64 * OPEN_CALL, cut: self.cut, left_out: 0 }
    }

    fn be_brief(&mut self, is_brief: bool) {
        self.is_brief = is_brief;
    }

    fn understands(&self, part: Part) -> bool {
        !self.sides[part as usize].is_lost || !self.is_stream
    }

    fn bytes(&mut self, part: Part, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        if !self.is_stream {
            let said = Half { position: Some(at.position), bytes: data.len() as u64, ..Half::default() };
            self.message(part, at.time, at.time, said, data, out);
            return;
        }
        let mut rest = data;
        self.sides[1 - part as usize].is_turn = true;
        while !rest.is_empty() {
            let side = &mut self.sides[part as usize];
            if side.is_lost {
                if !side.is_turn {
                    return;
                }
                side.is_lost = false;
                side.clear();
            }
            side.is_turn = false;
            let begun = *side.at.get_or_insert(at.behind(data.len() - rest.len()));
            // First the two bytes of the length, then as much as that says.
            let left = side.whole().unwrap_or(2) - side.read;
            let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            let room = if side.gap_bytes > 0 { 0 } else { (MOST_KEPT - side.kept.len()).min(length) };
            side.kept.extend_from_slice(&piece[..room]);
            side.read += length as u64;
            if side.whole().is_some_and(|whole| whole < 2 + HEADER_BYTES as u64) {
                // Too short for any message.
                self.lose(part);
                continue;
            }
            self.message_if_whole(part, begun, at.time, out);
        }
    }

    fn gap(&mut self, part: Part, at: Moment, length: u64, out: &mut Vec<Call>) {
        if !self.is_stream {
            return;
        }
        self.sides[1 - part as usize].is_turn = true;
        let side = &mut self.sides[part as usize];
        match (side.at, side.whole()) {
            (Some(begun), Some(whole)) if whole - side.read >= length => {
                side.read += length;
                side.gap_bytes += length;
                self.message_if_whole(part, begun, at.time, out);
            }
            _ => self.lose(part),
        }
    }

    fn end(&mut self, _part: Part, _time: Monotonic, _out: &mut Vec<Call>) {}

    fn finish(&mut self, _time: Monotonic, out: &mut Vec<Call>) {
        out.extend(self.open.drain(..).map(|open| open.call.ended(Ending::NoAnswer)));
    }

    fn expire(&mut self, before: Monotonic, out: &mut Vec<Call>) {
        while self.open.front().is_some_and(|open| open.call.start < before) {
            out.extend(self.open.pop_front().map(|open| open.call.ended(Ending::NoAnswer)));
        }
    }
}

fn asked(question: Option<&Question>) -> DnsCall {
    DnsCall {
        name: question.map(|question| question.name.to_string()).unwrap_or_default(),
        record_type: question.map(|question| RecordType(question.record_type)),
        ..DnsCall::default()
    }
}
