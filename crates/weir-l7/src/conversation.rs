//! [`Conversation`]: one connection from end to end. It finds out what is spoken, masks secrets, and makes calls.
//!
//! Chunks come in the order of their streams (see [`Reassembly`](crate::Reassembly)) and leave in that order, without secrets, towards a
//! [`Sink`]. Before it is known what is spoken the first bytes wait, [`PATIENCE`](crate::detect::PATIENCE) of each side at most: which
//! of them are secret depends on that. What is not understood is handed on as well, masked as text.

#[cfg(test)]
mod tests;

use weir_flow::Monotonic;

use crate::{
    Call, Chunk, Foreign, Keep, Moment, Part, Protocol, Recognised, Redactor, Transport,
    decoder::{Decode, decoder},
    detect::{self, PATIENCE},
    exchange::Trust,
};

/// How often a connection that was joined in the middle, or had a gap, is looked at again.
const MOST_ATTEMPTS: u8 = 8;

/// Most chunks that wait until it is known what is spoken.
const MOST_HELD: usize = 2 * PATIENCE;

/// Which way bytes go, seen from the end that is tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The tapped end said it.
    Sent,
    /// It was said to the tapped end.
    Received,
}

impl Way {
    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Sent => Self::Received,
            Self::Received => Self::Sent,
        }
    }
}

/// What is known of a connection, and what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How its bytes travel.
    pub transport: Transport,
    /// The only protocol of which calls are told. What is spoken is found out all the same: secrets are masked by that.
    pub protocol: Option<Protocol>,
    /// Which part the tapped end plays, where that is known.
    pub tapped: Option<Part>,
    /// The server's port; of two, the one that stands for a protocol.
    pub port: Option<u16>,
    /// Whether the connection is seen from its beginning.
    pub is_from_start: bool,
    /// What of the messages is kept in calls.
    pub keep: Keep,
    /// Whether secrets are masked.
    pub redaction: Redaction,
}

/// Whether secrets are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// They are.
    On,
    /// Everything is shown as it is.
    Off,
}

impl Default for Settings {
    /// A stream seen from its beginning, of which nothing else is known.
    fn default() -> Self {
        Self {
            transport: Transport::Stream,
            protocol: None,
            tapped: None,
            port: None,
            is_from_start: true,
            keep: Keep::default(),
            redaction: Redaction::On,
        }
    }
}

/// Where everything goes.
pub trait Sink {
    /// A piece of what was said, without secrets. Pieces of one way come in the order of the stream.
    fn chunk(&mut self, way: Way, chunk: Chunk<'_>);
    /// A call that is over.
    fn call(&mut self, call: Call);
}

/// One connection.
#[derive(Debug)]
pub struct Conversation {
    settings: Settings,
    state: State,
    /// Whether all that was said so far was seen.
    is_whole: bool,
    attempts: u8,
    /// Who spoke last.
    last: Option<Way>,
    calls: Vec<Call>,
    is_brief: bool,
}

/// What a connection holds of calls that are not over, and what it left out because there was no room. Whoever follows many
/// connections adds this up, and tells those that speak to [be brief](Conversation::be_brief).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// About how many bytes of memory open calls take at present.
    pub held: u64,
    /// Bytes of bodies and heads that were not kept, so far.
    pub left_out: u64,
    /// Calls that were told before their answers came, so far.
    pub cut: u64,
}

#[derive(Debug)]
enum State {
    Deciding(Box<Deciding>),
    Known { client: Way, decoder: Box<dyn Decode>, redactor: Option<Redactor>, protocol: Protocol },
    Unknown { redactor: Option<Redactor>, foreign: Option<Foreign> },
}

/// What waits until it is known what is spoken.
#[derive(Debug, Default)]
struct Deciding {
    held: Vec<Held>,
    /// First bytes of each way since its last gap.
    first: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Held {
    way: Way,
    position: u64,
    time: Monotonic,
    content: Result<Vec<u8>, (u64, crate::GapReason)>,
}

impl Held {
    fn chunk(&self) -> Chunk<'_> {
        let (position, time) = (self.position, self.time);
        match &self.content {
            Ok(data) => Chunk::Bytes { position, time, data },
            Err((length, reason)) => Chunk::Gap { position, time, length: *length, reason: *reason },
        }
    }
}

impl Conversation {
    /// A connection of which nothing was said yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Deciding(Box::default()),
            is_whole: settings.is_from_start,
            attempts: 0,
            last: None,
            calls: Vec::new(),
            is_brief: false,
        }
    }

    /// What is held of calls that are not over, and what was left out.
    pub fn load(&self) -> Load {
        match &self.state {
            State::Known { decoder, .. } => decoder.load(),
            State::Deciding(_) | State::Unknown { .. } => Load::default(),
        }
    }

    /// Says whether there is no room: then nothing more is kept of messages, and a request that has no answer when the next one comes is
    /// told without.
    pub fn be_brief(&mut self, is_brief: bool) {
        self.is_brief = is_brief;
        if let State::Known { decoder, .. } = &mut self.state {
            decoder.be_brief(is_brief);
        }
    }

    /// What is spoken, as far as it is known, and which part the tapped end plays.
    pub fn recognised(&self) -> Recognised {
        match &self.state {
            State::Deciding(_) => Recognised::Undecided,
            State::Known { client, protocol, .. } => {
                let tapped = if *client == Way::Sent { Part::Client } else { Part::Server };
                Recognised::Protocol(*protocol, tapped)
            }
            State::Unknown { foreign: Some(foreign), .. } => Recognised::Foreign(*foreign),
            State::Unknown { foreign: None, .. } => Recognised::Unknown,
        }
    }

    /// Whether what goes this way is understood at present. If the protocol is known and this is not so, a gap took the
    /// boundary of a message, or another protocol has begun.
    pub fn understands(&self, way: Way) -> bool {
        match &self.state {
            State::Known { client, decoder, .. } => decoder.understands(part(*client, way)),
            State::Deciding(_) | State::Unknown { .. } => false,
        }
    }

    /// Takes what was said.
    pub fn push(&mut self, way: Way, chunk: Chunk<'_>, sink: &mut impl Sink) {
        if chunk.length() == 0 && self.settings.transport == Transport::Stream {
            return;
        }
        let is_turn = self.last != Some(way);
        self.last = Some(way);
        if chunk.bytes().is_none() {
            self.is_whole = false;
        }
        match &mut self.state {
            State::Known { .. } => {}
            State::Unknown { .. } => self.look_again(way, &chunk, is_turn, sink),
            State::Deciding(_) => {
                if !self.decide(way, chunk, sink) {
                    return;
                }
            }
        }
        self.pass(way, chunk, sink);
    }

    /// One end will say no more.
    pub fn end(&mut self, way: Way, time: Monotonic, sink: &mut impl Sink) {
        self.give_up(sink);
        match &mut self.state {
            State::Known { client, decoder, redactor, .. } => {
                let part = part(*client, way);
                if let Some(redactor) = redactor {
                    let calls = &mut self.calls;
                    redactor.end(part, &mut |chunk| {
                        sink.chunk(way, chunk);
                        decode(decoder, part, chunk, calls);
                    });
                }
                decoder.end(part, time, &mut self.calls);
            }
            State::Unknown { redactor: Some(redactor), .. } => {
                redactor.end(part(Way::Sent, way), &mut |chunk| sink.chunk(way, chunk));
            }
            State::Unknown { .. } | State::Deciding(_) => {}
        }
        self.hand_out(sink);
    }

    /// Gives up on datagrams that got no answer, of those said before this time.
    pub fn expire(&mut self, before: Monotonic, sink: &mut impl Sink) {
        if let State::Known { decoder, .. } = &mut self.state {
            decoder.expire(before, &mut self.calls);
        }
        self.hand_out(sink);
    }

    /// The connection is over.
    pub fn finish(&mut self, time: Monotonic, sink: &mut impl Sink) {
        for way in [Way::Sent, Way::Received] {
            self.end(way, time, sink);
        }
        if let State::Known { decoder, .. } = &mut self.state {
            decoder.finish(time, &mut self.calls);
        }
        self.hand_out(sink);
    }

    fn hand_out(&mut self, sink: &mut impl Sink) {
        let is_wanted = match (&self.state, self.settings.protocol) {
            (State::Known { protocol, .. }, Some(wanted)) => *protocol == wanted,
            _ => true,
        };
        for call in self.calls.drain(..) {
            if let State::Known { decoder, .. } = &mut self.state {
                decoder.told(&call);
            }
            if is_wanted {
                sink.call(call);
            }
        }
    }

    fn know(&mut self, protocol: Protocol, client: Way) {
        let trust = if self.is_whole { Trust::Certain } else { Trust::Inferred };
        let mut decoder = decoder(protocol, self.settings.transport, trust, self.settings.keep);
        decoder.be_brief(self.is_brief);
        let redactor = self.redactor(Recognised::Protocol(protocol, Part::Client));
        self.state = State::Known { client, decoder, redactor, protocol };
    }

    fn redactor(&self, recognised: Recognised) -> Option<Redactor> {
        (self.settings.redaction == Redaction::On).then(|| Redactor::new(recognised, !self.is_whole))
    }

    /// What the first bytes of one way tell, and what the settings know.
    fn recognise(&self, way: Way, bytes: &[u8]) -> Recognised {
        let hint = self.settings.protocol.or_else(|| self.settings.port.and_then(detect::by_port));
        let recognised = match self.settings.transport {
            Transport::Stream => detect::stream(bytes, self.is_whole, hint),
            Transport::Datagram => detect::datagram(bytes, hint),
        };
        let Recognised::Protocol(_, said_by) = recognised else { return recognised };
        // What contradicts what is known for sure is something else that looks alike.
        let fits_part = self.settings.tapped.is_none_or(|tapped| (tapped == said_by) == (way == Way::Sent))
            || self.settings.transport == Transport::Datagram;
        if fits_part { recognised } else { Recognised::Unknown }
    }

    /// Looks at the beginning of a connection. Gives back whether it is decided; what waited has been passed then.
    fn decide(&mut self, way: Way, chunk: Chunk<'_>, sink: &mut impl Sink) -> bool {
        if self.settings.transport == Transport::Datagram {
            // Each of them tells by itself, or does not.
            let recognised = chunk.bytes().map_or(Recognised::Unknown, |data| self.recognise(way, data));
            self.conclude(way, recognised);
            return true;
        }
        let State::Deciding(deciding) = &mut self.state else { return true };
        let first = &mut deciding.first[way as usize];
        match chunk {
            Chunk::Gap { .. } => first.clear(),
            Chunk::Bytes { data, .. } => {
                let room = PATIENCE.saturating_sub(first.len()).min(data.len());
                first.extend_from_slice(&data[..room]);
            }
        }
        let is_full = deciding.held.len() >= MOST_HELD;
        let first = std::mem::take(first);
        let recognised = if first.is_empty() { Recognised::Undecided } else { self.recognise(way, &first) };
        let State::Deciding(deciding) = &mut self.state else { return true };
        let other = &deciding.first[way.reversed() as usize];
        // One side may tell when the other does not.
        let is_over =
            is_full || first.len() >= PATIENCE || !other.is_empty() && recognised == Recognised::Unknown;
        if recognised == Recognised::Undecided && !is_full || recognised == Recognised::Unknown && !is_over {
            let content = match chunk {
                Chunk::Bytes { data, .. } => Ok(data.to_vec()),
                Chunk::Gap { length, reason, .. } => Err((length, reason)),
            };
            deciding.first[way as usize] = first;
            deciding.held.push(Held { way, position: chunk.position(), time: chunk.time(), content });
            return false;
        }
        let held = std::mem::take(&mut deciding.held);
        self.conclude(way, recognised);
        for held in held {
            self.pass(held.way, held.chunk(), sink);
        }
        true
    }

    fn conclude(&mut self, way: Way, recognised: Recognised) {
        match recognised {
            Recognised::Protocol(protocol, said_by) => {
                self.know(protocol, if said_by == Part::Client { way } else { way.reversed() });
            }
            Recognised::Foreign(foreign) => {
                self.state = State::Unknown { redactor: self.redactor(recognised), foreign: Some(foreign) };
            }
            Recognised::Unknown | Recognised::Undecided => {
                self.state = State::Unknown { redactor: self.redactor(recognised), foreign: None };
            }
        }
    }

    /// No more will come that could decide.
    fn give_up(&mut self, sink: &mut impl Sink) {
        let State::Deciding(deciding) = &mut self.state else { return };
        if deciding.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut deciding.held);
        self.conclude(Way::Sent, Recognised::Unknown);
        for held in held {
            self.pass(held.way, held.chunk(), sink);
        }
    }

    /// A connection that was not understood may be, when somebody begins to speak.
    fn look_again(&mut self, way: Way, chunk: &Chunk<'_>, is_turn: bool, sink: &mut impl Sink) {
        let State::Unknown { foreign: None, .. } = self.state else { return };
        let is_datagram = self.settings.transport == Transport::Datagram;
        let Some(bytes) = chunk.bytes() else { return };
        if self.attempts >= MOST_ATTEMPTS || !is_datagram && (self.is_whole || !is_turn) {
            return;
        }
        self.attempts += 1;
        let recognised = self.recognise(way, bytes);
        if !matches!(recognised, Recognised::Protocol(..)) {
            return;
        }
        // What waits in the present one comes first.
        if let State::Unknown { redactor: Some(redactor), .. } = &mut self.state {
            end_both(redactor, sink);
        }
        self.conclude(way, recognised);
    }

    /// Hands on what was said, without secrets, and understands it.
    fn pass(&mut self, way: Way, chunk: Chunk<'_>, sink: &mut impl Sink) {
        let calls = &mut self.calls;
        match &mut self.state {
            State::Known { client, decoder, redactor, .. } => {
                let part = part(*client, way);
                match redactor {
                    None => {
                        sink.chunk(way, chunk);
                        decode(decoder, part, chunk, calls);
                    }
                    Some(redactor) => redactor.push(part, chunk, &mut |chunk| {
                        sink.chunk(way, chunk);
                        decode(decoder, part, chunk, calls);
                    }),
                }
            }
            State::Unknown { redactor: Some(redactor), foreign } => {
                let is_stream = self.settings.transport == Transport::Stream;
                if foreign.is_none() && is_stream && !self.is_whole && detect::is_binary(chunk.bytes()) {
                    // Something else is spoken, perhaps packed, and its beginning would have told what.
                    end_both(redactor, sink);
                    redactor.hide();
                }
                let part = part(Way::Sent, way);
                redactor.push(part, chunk, &mut |chunk| sink.chunk(way, chunk));
                if !is_stream {
                    // Nothing goes on in the next one.
                    redactor.end(part, &mut |chunk| sink.chunk(way, chunk));
                }
            }
            State::Unknown { redactor: None, .. } | State::Deciding(_) => sink.chunk(way, chunk),
        }
        self.hand_out(sink);
    }
}

/// Hands on what waits of a connection that is not understood.
fn end_both(redactor: &mut Redactor, sink: &mut impl Sink) {
    for way in [Way::Sent, Way::Received] {
        redactor.end(part(Way::Sent, way), &mut |chunk| sink.chunk(way, chunk));
    }
}

fn part(client: Way, way: Way) -> Part {
    if client == way { Part::Client } else { Part::Server }
}

fn decode(decoder: &mut Box<dyn Decode>, part: Part, chunk: Chunk<'_>, calls: &mut Vec<Call>) {
    let at = Moment { position: chunk.position(), time: chunk.time() };
    match chunk {
        Chunk::Bytes { data, .. } => decoder.bytes(part, at, data, calls),
        Chunk::Gap { .. } => decoder.gap(part, at, chunk.length(), calls),
    }
}
