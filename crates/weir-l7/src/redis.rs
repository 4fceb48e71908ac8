//! Redis: commands and their replies become calls, in RESP2 and RESP3, pipelined or inline; what the server sends by itself
//! becomes calls without a request.
//!
//! Which reply belongs to which command is known by counting. Some commands get several replies, or none: channels, and
//! `CLIENT REPLY`. After `MONITOR`, lines come by themselves; after `SYNC` it is another protocol.

mod command;
pub(crate) mod resp;
#[cfg(test)]
mod tests;

use weir_flow::Monotonic;

use self::{
    command::Words,
    resp::{Reader, Step},
};
use crate::{
    Load, Moment, Part,
    call::{Call, Detail, Ending, RedisCall, limit, text},
    decoder::Decode,
    exchange::{Exchange, Trust},
    sides::{Direction as _, Saying, Sides, Taken},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Redis {
    sides: Sides<Reader>,
    exchange: Exchange<Open>,
    /// The command and the reply that are being read, by [`Part`].
    messages: [Option<Message>; 2],
    database: Option<u32>,
    mute: Mute,
    is_monitor: bool,
    /// Channels, patterns and shards' channels that the connection listens to.
    channels: [u64; 3],
    /// What the server said last of the number of channels and patterns, and of shards' channels.
    counts: [u64; 2],
}

/// A command that waits for replies.
#[derive(Debug)]
struct Open {
    call: Call,
    replies: u64,
}

/// A command or a reply that is being read.
#[derive(Debug)]
struct Message {
    at: Moment,
    bytes: u64,
    gap_bytes: u64,
    words: Words,
    /// Type of the value itself; none yet at its beginning.
    of: Option<u8>,
    elements: u64,
}

/// Whether the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mute {
    No,
    /// Not the next command.
    Next,
    All,
}

impl Message {
    fn new(at: Moment, words: Words) -> Self {
        Self { at, bytes: 0, gap_bytes: 0, words, of: None, elements: 0 }
    }

    /// Notes what was read. `depth` is that of the reader.
    fn note(&mut self, step: Step<'_>, depth: usize) {
        match step {
            Step::Scalar(of) => {
                if self.of.is_none() {
                    self.of = Some(of);
                    self.elements = u64::from(of != b'_');
                }
                if depth <= 1 {
                    self.words.begin();
                }
            }
            Step::Text(piece) if depth <= 1 => self.words.add(piece),
            Step::List(b'|', _) => {}
            Step::List(of, elements) if self.of.is_none() => {
                self.of = Some(of);
                self.elements = elements;
            }
            // Lists within the list, and what is in them: a word without letters.
            Step::List(..) if depth <= 2 => self.words.begin(),
            _ => {}
        }
    }
}

fn redis(call: &mut Call) -> &mut RedisCall {
    match &mut call.detail {
        Detail::Redis(redis) => redis,
        Detail::Http(_) | Detail::Dns(_) | Detail::Postgresql(_) => {
            unreachable!("this decoder makes no others")
        }
    }
}

impl Redis {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            sides: Sides::new(trust),
            exchange: Exchange::new(trust),
            messages: [const { None }; 2],
            database: None,
            mute: Mute::No,
            is_monitor: false,
            channels: [0; 3],
            counts: [0; 2],
        }
    }

    fn command_ended(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        let Some(mut command) = self.messages[Part::Client as usize].take() else { return };
        if command.of == Some(resp::INLINE) {
            command.words = command.words.split_line();
        }
        // Empty lists and lines are passed over by the server.
        if command.words.count == 0 {
            return;
        }
        let name = command::name(&command.words);
        let replies = match command::subscription(&name) {
            Some((kind, false)) if command.words.count == 1 => self.channels[kind].max(1),
            Some(_) => (command.words.count - 1).max(1),
            None => 1,
        };
        let switch = (name == "CLIENT REPLY").then(|| command.words.name(2));
        let detail = RedisCall {
            command: name,
            text: command.words.shown(),
            database: self.database,
            ..RedisCall::default()
        };
        let mut call = Call::begin(command.at.time, command.at.position, Detail::Redis(Box::new(detail)));
        call.end = time;
        call.request.bytes = command.bytes;
        call.request.gap_bytes = command.gap_bytes;
        let mute = self.mute;
        match switch.as_deref() {
            Some("OFF") => self.mute = Mute::All,
            Some("SKIP") if mute == Mute::No => self.mute = Mute::Next,
            Some("ON") => self.mute = Mute::No,
            _ if mute == Mute::Next => self.mute = Mute::No,
            _ => {}
        }
        if self.mute != Mute::No || mute == Mute::Next && switch.as_deref() != Some("ON") {
            out.push(call);
            return;
        }
        call.is_inferred = self.exchange.trust() != Trust::Certain;
        let mut cut = Vec::new();
        let can_match = self.exchange.make_room(call.start, &mut cut);
        out.extend(cut.into_iter().map(|open| open.call.ended(Ending::Gap)));
        if self.sides.answers_begin_anew(self.exchange.trust()) {
            self.messages[Part::Server as usize] = None;
        }
        if can_match {
            self.exchange.push(Open { call, replies });
        } else {
            out.push(call.ended(Ending::Unmatched));
        }
    }

    fn reply_ended(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        let Some(reply) = self.messages[Part::Server as usize].take() else { return };
        let kind = reply.words.name(0);
        let is_push = match reply.of {
            // RESP3. Answers to commands about channels are pushes, too.
            Some(b'>') => command::subscription(&kind).is_none() || !self.is_answered_by(&kind),
            // RESP2 has no type for them; a connection that listens gets nothing else of this form.
            Some(b'*') => {
                matches!(kind.as_str(), "MESSAGE" | "PMESSAGE" | "SMESSAGE") && self.channels != [0; 3]
            }
            Some(b'+') => self.is_monitor && self.exchange.is_empty(),
            _ => false,
        };
        if is_push {
            return out.push(push(&reply, time, self.is_monitor));
        }
        let Some(open) = self.exchange.front_mut() else {
            self.exchange.orphan(reply.at.time);
            let mut call = push(&reply, time, false);
            call.ending = Ending::NoRequest;
            let redis = redis(&mut call);
            *redis = RedisCall { elements: redis.elements, ..RedisCall::default() };
            add_error(redis, &reply);
            out.push(call);
            return;
        };
        let call = &mut open.call;
        call.answered.get_or_insert(reply.at.time);
        call.response.position.get_or_insert(reply.at.position);
        call.response.bytes += reply.bytes;
        call.response.gap_bytes += reply.gap_bytes;
        call.end = time;
        let redis = redis(call);
        redis.elements = reply.elements;
        add_error(redis, &reply);
        let has_failed = redis.error_code.is_some();
        open.replies -= 1;
        if open.replies > 0 && !has_failed {
            self.count_channels(&kind, &reply);
            return;
        }
        if !has_failed {
            self.count_channels(&kind, &reply);
        }
        let Some(mut open) = self.exchange.pop() else { return };
        if !has_failed && reply.words.get(0) != Some(b"QUEUED") {
            self.take_effect(&mut open.call);
        }
        out.push(open.call);
    }

    /// Whether the oldest command is the one whose replies are of this kind.
    fn is_answered_by(&mut self, kind: &str) -> bool {
        self.exchange.front_mut().is_some_and(|open| redis(&mut open.call).command == kind)
    }

    /// Notes what a reply about a channel says: its kind, the channel, and how many there are now.
    fn count_channels(&mut self, kind: &str, reply: &Message) {
        let Some((index, _)) = command::subscription(kind) else { return };
        let digits = reply.words.get(2).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(count) = digits.and_then(|digits| digits.parse::<u64>().ok()) else { return };
        let before = std::mem::replace(&mut self.counts[index / 2], count);
        let channels = &mut self.channels[index];
        if count > before {
            *channels = channels.saturating_add(1);
        } else if count < before {
            *channels = channels.saturating_sub(1);
        }
    }

    /// What a command that went well changes for those that follow.
    fn take_effect(&mut self, call: &mut Call) {
        let redis = redis(call);
        match redis.command.as_str() {
            "SELECT" => {
                self.database = redis.text.split(' ').nth(1).and_then(|number| number.parse().ok());
                redis.database = self.database;
            }
            "RESET" => {
                (self.channels, self.counts, self.is_monitor) = ([0; 3], [0; 2], false);
                self.database = Some(0);
            }
            "MONITOR" => self.is_monitor = true,
            "SYNC" | "PSYNC" => {
                self.sides.become_opaque();
                self.messages[Part::Client as usize] = None;
            }
            _ => {}
        }
    }

    fn lose(&mut self, part: Part, ending: Ending, out: &mut Vec<Call>) {
        self.sides.lose(part);
        self.messages[part as usize] = None;
        match part {
            Part::Client => self.exchange.lose_requests(),
            Part::Server => {
                let mut cut = Vec::new();
                self.exchange.lose_answers(&mut cut);
                out.extend(cut.into_iter().map(|open| open.call.ended(ending)));
            }
        }
    }
}

impl Decode for Redis {
    fn load(&self) -> Load {
        self.exchange.load()
    }

    fn be_brief(&mut self, is_brief: bool) {
        self.exchange.be_brief(is_brief);
    }

    fn understands(&self, part: Part) -> bool {
        self.sides.understands(part)
    }

    fn bytes(&mut self, part: Part, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        if self.sides.speaks(part, data, self.exchange.trust()) {
            self.messages[part as usize] = None;
        }
        let mut saying = Saying::new(at, data);
        loop {
            let side = self.sides.of_mut(part);
            let Taken { step, used, now } = saying.step(side);
            let message = &mut self.messages[part as usize];
            if let Some(message) = message {
                message.bytes += used;
            }
            match (step, part) {
                (None, _) => return,
                (Some(Step::Began), Part::Client) => *message = Some(Message::new(now, command::words())),
                (Some(Step::Began), Part::Server) => {
                    *message = Some(Message::new(now, Words::new(limit::NAME)));
                }
                (Some(Step::Ended), Part::Client) => self.command_ended(at.time, out),
                (Some(Step::Ended), Part::Server) => self.reply_ended(at.time, out),
                (Some(Step::Skipped), _) => {}
                (Some(Step::Broken), _) => self.lose(part, Ending::Malformed, out),
                (Some(_), _) if side.is_in_attribute() => {}
                (Some(step), _) => {
                    if let Some(message) = message {
                        message.note(step, side.depth());
                    }
                }
            }
        }
    }

    fn gap(&mut self, part: Part, _at: Moment, length: u64, out: &mut Vec<Call>) {
        if !self.sides.gap(part, length) {
            self.lose(part, Ending::Gap, out);
        } else if let Some(message) = &mut self.messages[part as usize] {
            message.bytes = message.bytes.saturating_add(length);
            message.gap_bytes = message.gap_bytes.saturating_add(length);
        }
    }

    fn end(&mut self, part: Part, time: Monotonic, out: &mut Vec<Call>) {
        if part == Part::Client {
            return;
        }
        let Some(reply) = self.messages[Part::Server as usize].take() else { return };
        if let Some(mut open) = self.exchange.pop() {
            open.call.answered.get_or_insert(reply.at.time);
            open.call.response.position.get_or_insert(reply.at.position);
            open.call.response.bytes += reply.bytes;
            open.call.end = time;
            out.push(open.call.ended(Ending::Cut));
        }
        self.sides.server.lose();
    }

    fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        self.end(Part::Server, time, out);
        out.extend(self.exchange.drain().into_iter().map(|open| open.call.ended(Ending::NoAnswer)));
    }
}

/// What the server sent by itself.
fn push(reply: &Message, time: Monotonic, is_monitor: bool) -> Call {
    let word = |index| text(reply.words.get(index).unwrap_or_default(), limit::NAME);
    let (command, text) =
        if is_monitor { ("monitor".to_owned(), word(0)) } else { (word(0).to_ascii_lowercase(), word(1)) };
    let detail = RedisCall { command, text, is_push: true, elements: reply.elements, ..RedisCall::default() };
    let mut call = Call::orphan(reply.at.time, reply.at.position, Detail::Redis(Box::new(detail)));
    call.ending = Ending::Complete;
    call.end = time;
    call.response.bytes = reply.bytes;
    call.response.gap_bytes = reply.gap_bytes;
    call
}

fn add_error(redis: &mut RedisCall, reply: &Message) {
    if !matches!(reply.of, Some(b'-' | b'!')) {
        return;
    }
    redis.elements = 0;
    let message = reply.words.get(0).unwrap_or_default();
    let code = message.split(|byte| *byte == b' ').next().unwrap_or_default();
    redis.error_code = Some(text(code, limit::NAME));
    redis.error_message = Some(text(message, limit::NAME));
}
