//! PostgreSQL, protocol 3: simple and extended queries, copies, errors, getting in and cancelling become calls.
//!
//! A call is a statement. Text of prepared statements is kept, within limits, so that executing one shows what it was; values
//! of parameters and rows are counted and not kept. Nothing that proves who somebody is gets into a call.

mod answers;
pub(crate) mod frame;
mod group;
mod message;
mod statements;
#[cfg(test)]
mod tests;

use weir_flow::Monotonic;

use self::{
    frame::{Reader, STARTUP},
    group::{Group, Step},
    message::{Message, code},
    statements::Statements,
};
use crate::{
    Load, Moment, Part,
    call::{Call, Detail, Ending, PostgresqlCall, limit, text},
    decoder::Decode,
    exchange::{Exchange, OPEN_CALL, Trust},
    sides::{Direction as _, Saying, Sides, Taken},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Postgresql {
    sides: Sides<Reader>,
    exchange: Exchange<Group>,
    /// Where what the client says next belongs.
    current: Current,
    /// What is being read, by [`Part`].
    messages: [Option<Message>; 2],
    statements: Statements,
    database: Option<String>,
    user: Option<String>,
    /// Whether the client hands in data, so that `Sync` does nothing ("COPY Operations").
    is_copying_in: bool,
}

/// The group that the client is adding to.
#[derive(Debug)]
enum Current {
    /// The next message begins one.
    Nothing,
    /// The youngest one of the exchange.
    Youngest,
    /// One whose answers will not be known.
    Alone(Box<Group>),
}

fn postgresql(call: &mut Call) -> &mut PostgresqlCall {
    match &mut call.detail {
        Detail::Postgresql(detail) => detail,
        Detail::Http(_) | Detail::Dns(_) | Detail::Redis(_) => unreachable!("this decoder makes no others"),
    }
}

impl Postgresql {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            sides: Sides::new(trust),
            exchange: Exchange::new(trust),
            current: Current::Nothing,
            messages: [const { None }; 2],
            statements: Statements::default(),
            database: None,
            user: None,
            is_copying_in: false,
        }
    }

    /// Ends everything that is open. The oldest one may have been answered in part.
    fn drain(&mut self, ending: Ending, out: &mut Vec<Call>) {
        for group in self.exchange.drain() {
            end_group(group, ending, out);
        }
        if matches!(self.current, Current::Youngest) {
            self.current = Current::Nothing;
        }
    }

    fn begin(&self, message: &Message, operation: &str, statement: String) -> Call {
        let detail = PostgresqlCall {
            operation: operation.to_owned(),
            statement,
            database: self.database.clone(),
            user: self.user.clone(),
            ..PostgresqlCall::default()
        };
        let mut call =
            Call::begin(message.at.time, message.at.position, Detail::Postgresql(Box::new(detail)));
        call.end = message.end;
        call.request.bytes = message.bytes;
        call.request.gap_bytes = message.gap_bytes;
        call.is_inferred = self.exchange.trust() != Trust::Certain;
        call
    }

    /// The group to which what the client says belongs; a new one, if need be.
    fn group(&mut self, start: Monotonic, out: &mut Vec<Call>) -> Option<&mut Group> {
        if matches!(self.current, Current::Nothing) {
            let mut cut = Vec::new();
            let can_match = self.exchange.make_room(start, &mut cut);
            for group in cut {
                end_group(group, Ending::Gap, out);
            }
            if self.sides.answers_begin_anew(self.exchange.trust()) {
                self.messages[Part::Server as usize] = None;
            }
            if can_match {
                self.exchange.push(Group::default());
                self.current = Current::Youngest;
            } else {
                self.current = Current::Alone(Box::default());
            }
        }
        match &mut self.current {
            Current::Nothing => None,
            Current::Youngest => self.exchange.back_mut(),
            Current::Alone(group) => Some(group),
        }
    }

    /// The client has said a message.
    fn asked(&mut self, message: &Message, out: &mut Vec<Call>) {
        let start = message.at.time;
        match message.letter {
            STARTUP => self.asked_at_the_beginning(message, out),
            b'Q' => {
                let statement = text(message.text(), limit::STATEMENT);
                let operation = message::first_word(&statement);
                self.whole(message, &operation, statement, out);
            }
            b'F' => self.whole(message, "FUNCTION", String::new(), out),
            b'P' => {
                let mut statement = String::new();
                if let Some((name, whole)) = message.name_and_text() {
                    statement = text(whole, limit::STATEMENT);
                    self.statements.parse(name, &statement);
                } else {
                    // Any of them may have got another text.
                    self.statements = Statements::default();
                }
                self.step(message, Step::Parse(statement), out);
            }
            b'B' => {
                let mut names = message.texts();
                match (names.next(), names.next()) {
                    (Some(portal), Some(statement)) => self.statements.bind(portal, statement),
                    _ => self.statements.forget_portals(),
                }
                self.step(message, Step::Bind, out);
            }
            b'D' => self.step(message, Step::Describe, out),
            b'C' => {
                if let ([of, ..], Some(name)) = (message.kept(), message.texts().next()) {
                    self.statements.close(*of, &name[1..]);
                }
                self.step(message, Step::Close, out);
            }
            b'E' => {
                let portal = message.texts().next();
                let statement =
                    portal.and_then(|portal| self.statements.of_portal(portal)).unwrap_or_default();
                let statement = statement.to_string();
                let call = self.begin(message, &message::first_word(&statement), statement);
                self.step(message, Step::Execute(Box::new(call)), out);
            }
            b'S' if self.is_copying_in => {}
            b'S' => {
                if let Some(group) = self.group(start, out) {
                    let left = group.push(Step::Sync);
                    group.is_closed = true;
                    debug_assert!(left.is_none(), "only statements are given back");
                }
                self.current_is_over(out);
            }
            b'd' | b'c' | b'f' => {
                if message.letter != b'd' {
                    self.is_copying_in = false;
                }
                if let Some(call) = self.exchange.front_mut().and_then(Group::call_mut) {
                    let half = &mut call.request;
                    half.bytes = half.bytes.saturating_add(message.bytes);
                    half.gap_bytes = half.gap_bytes.saturating_add(message.gap_bytes);
                    if message.letter == b'd' {
                        half.body_bytes = half.body_bytes.saturating_add(message.body_bytes());
                    }
                    call.end = call.end.max(message.end);
                }
            }
            // What proves who somebody is belongs to getting in.
            b'p' => {
                if let Some(call) = self.exchange.front_mut().and_then(Group::call_mut) {
                    call.request.bytes = call.request.bytes.saturating_add(message.bytes);
                    call.end = call.end.max(message.end);
                }
            }
            // Flush and Terminate want no answer.
            _ => {}
        }
    }

    fn asked_at_the_beginning(&mut self, message: &Message, out: &mut Vec<Call>) {
        match message::startup_code(message.kept()) {
            Some(code::TLS | code::GSS) => {
                self.sides.client.expect_startup();
                self.sides.server.expect_letter();
            }
            Some(code::CANCEL) => {
                // The server answers by closing the connection.
                out.push(self.begin(message, "CANCEL", String::new()));
            }
            Some(version) if version >> 16 == code::MAJOR_VERSION => {
                let named = |name: &[u8]| {
                    message::parameter(message.kept(), name).map(|value| text(value, limit::NAME))
                };
                self.user = named(b"user");
                // Without one it is called like the user.
                self.database = named(b"database").or_else(|| self.user.clone());
                self.whole(message, "CONNECT", String::new(), out);
            }
            _ => self.lose(Part::Client, Ending::Malformed, out),
        }
    }

    fn encryption_answered(&mut self, letter: u8) {
        // `N` is no. Others begin a protocol in which nothing can be read.
        if letter != b'N' {
            self.sides.become_opaque();
        }
    }

    /// The client wants something whose answer ends when the server is ready.
    fn whole(&mut self, message: &Message, operation: &str, statement: String, out: &mut Vec<Call>) {
        // It ends a group that nobody has ended.
        self.current_is_over(out);
        let start = message.at.time;
        if self.group(start, out).is_none() {
            return;
        }
        let call = self.begin(message, operation, statement);
        if let Some(group) = self.group(start, out) {
            let left = group.push(Step::Whole(Box::new(call)));
            group.is_closed = true;
            out.extend(left);
        }
        self.current_is_over(out);
    }

    /// The client wants something of which the answer is one step of a group.
    fn step(&mut self, message: &Message, step: Step, out: &mut Vec<Call>) {
        let Some(group) = self.group(message.at.time, out) else { return };
        group.asked.add(message);
        let mut step = step;
        if let Step::Execute(call) = &mut step {
            group.asked.move_to_request(call);
        }
        let left = group.push(step);
        out.extend(left);
    }

    fn current_is_over(&mut self, out: &mut Vec<Call>) {
        if let Current::Alone(group) = std::mem::replace(&mut self.current, Current::Nothing) {
            end_group(*group, Ending::Unmatched, out);
        }
    }

    fn lose(&mut self, part: Part, ending: Ending, out: &mut Vec<Call>) {
        self.sides.lose(part);
        self.messages[part as usize] = None;
        match part {
            Part::Client => {
                self.exchange.lose_requests();
                // A statement may have got another text in the gap.
                self.statements = Statements::default();
            }
            Part::Server => {
                let mut cut = Vec::new();
                self.exchange.lose_answers(&mut cut);
                for group in cut {
                    end_group(group, ending, out);
                }
            }
        }
        if matches!(self.current, Current::Youngest) {
            self.current = Current::Nothing;
        }
    }
}

impl Decode for Postgresql {
    fn load(&self) -> Load {
        let alone = if let Current::Alone(group) = &self.current { Some(&**group) } else { None };
        let steps: usize = self.exchange.iter().chain(alone).map(|group| group.steps.len()).sum();
        let load = self.exchange.load();
        Load { held: load.held.saturating_add(steps as u64 * OPEN_CALL), ..load }
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
            let Taken { step, used, now } = saying.step(self.sides.of_mut(part));
            let message = &mut self.messages[part as usize];
            if let Some(message) = message {
                message.bytes += used;
                message.end = at.time;
            }
            match step {
                None => return,
                Some(frame::Step::Began) => *message = Some(Message::new(now)),
                Some(frame::Step::Header(letter, _)) => {
                    if let Some(message) = message {
                        message.header(part, letter);
                    }
                }
                Some(frame::Step::Payload(piece)) => {
                    if let Some(message) = message {
                        message.payload(piece);
                    }
                }
                Some(frame::Step::Ended) => match (message.take(), part) {
                    (Some(message), Part::Client) => self.asked(&message, out),
                    (Some(message), Part::Server) => self.answered(&message, out),
                    (None, _) => {}
                },
                Some(frame::Step::Letter(letter)) => self.encryption_answered(letter),
                Some(frame::Step::Skipped) => {}
                Some(frame::Step::Broken) => self.lose(part, Ending::Malformed, out),
            }
        }
    }

    fn gap(&mut self, part: Part, at: Moment, length: u64, out: &mut Vec<Call>) {
        if self.sides.gap(part, length) {
            if let Some(message) = &mut self.messages[part as usize] {
                message.gap(length);
            }
            self.bytes(part, at.behind_gap(length), &[], out);
        } else {
            self.lose(part, Ending::Gap, out);
        }
    }

    fn end(&mut self, part: Part, _time: Monotonic, out: &mut Vec<Call>) {
        if part == Part::Client {
            return;
        }
        let Some(message) = self.messages[Part::Server as usize].take() else { return };
        let Some(group) = self.exchange.front_mut() else { return };
        group.answered.add(&message);
        if let Some(call) = group.call_mut() {
            call.mark(Ending::Cut);
        }
        self.drain(Ending::NoAnswer, out);
        self.sides.server.lose();
    }

    fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        self.end(Part::Server, time, out);
        self.drain(Ending::NoAnswer, out);
        if let Current::Alone(group) = std::mem::replace(&mut self.current, Current::Nothing) {
            out.extend(group.into_calls().map(|call| call.ended(Ending::Unmatched)));
        }
    }
}

/// Ends the calls of a group that is not answered to its end; what the server said belongs to the oldest one.
fn end_group(mut group: Group, ending: Ending, out: &mut Vec<Call>) {
    let is_call = |step: &Step| matches!(step, Step::Execute(_) | Step::Whole(_));
    let oldest = group.steps.iter().position(is_call).filter(|_| group.answered.begin().is_some());
    if let Some(Step::Execute(call) | Step::Whole(call)) = oldest.and_then(|index| group.steps.remove(index))
    {
        let call = group.finish(*call);
        out.push(call.ended(ending));
    }
    out.extend(group.into_calls().map(|call| call.ended(ending)));
}
