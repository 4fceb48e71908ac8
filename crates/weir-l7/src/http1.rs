//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): requests and responses become calls.
//!
//! A gap within a body whose end is known is counted, and the body goes on. A gap anywhere else loses the boundary of a message;
//! then the next request is looked for where the client speaks after the server did, and the next response where the
//! server speaks after a request. Text in the middle of a body is never taken for a message.

pub(crate) mod head;
pub(crate) mod reader;
#[cfg(test)]
mod tests;

use weir_flow::Monotonic;

use self::reader::{Framing, Place, Reader, Step};
use crate::{
    Load, Moment, Part,
    call::{Call, Detail, Ending, Half, Header, HttpCall, Keep, limit, text},
    decoder::Decode,
    exchange::{Exchange, Trust},
    sides::{Direction as _, Saying, Sides, Taken},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    keep: Keep,
    sides: Sides<Reader>,
    exchange: Exchange<Call>,
    /// The messages whose heads are being read, by [`Part`].
    begun: [Option<Begun>; 2],
    receiving: Receiving,
    answering: Answering,
    /// Bytes of bodies and headers that open calls keep.
    kept: u64,
    /// Bytes that would have been kept if there had been room.
    left_out: u64,
    /// Whether a part of the present body was left out, by [`Part`]: what follows cannot be kept either.
    is_left_out: [bool; 2],
}

/// A message of which the head is not whole.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Moment,
    bytes: u64,
}

/// The request whose body is being read.
#[derive(Debug)]
enum Receiving {
    Nothing,
    /// The youngest one of the exchange.
    Youngest,
    /// One whose answer will not be known.
    Alone(Box<Call>),
}

/// The request whose answer is being read.
#[derive(Debug)]
enum Answering {
    Nothing,
    /// The oldest one of the exchange.
    Oldest,
    /// An answer without a request.
    Alone(Box<Call>),
}

fn http(call: &mut Call) -> &mut HttpCall {
    match &mut call.detail {
        Detail::Http(http) => http,
        Detail::Dns(_) | Detail::Postgresql(_) | Detail::Redis(_) => {
            unreachable!("this decoder makes no others")
        }
    }
}

impl Http1 {
    /// Of a connection that is seen from its beginning, or was joined in the middle.
    pub(crate) fn new(trust: Trust, keep: Keep) -> Self {
        Self {
            keep,
            sides: Sides::new(trust),
            exchange: Exchange::new(trust),
            begun: [None; 2],
            receiving: Receiving::Nothing,
            answering: Answering::Nothing,
            kept: 0,
            left_out: 0,
            is_left_out: [false; 2],
        }
    }

    /// The call of which a side says its part at present.
    fn call(&mut self, part: Part) -> Option<&mut Call> {
        match part {
            Part::Client => self.receiving_call(),
            Part::Server => self.answering_call(),
        }
    }

    fn receiving_call(&mut self) -> Option<&mut Call> {
        match &mut self.receiving {
            Receiving::Nothing => None,
            Receiving::Youngest => self.exchange.back_mut(),
            Receiving::Alone(call) => Some(call),
        }
    }

    fn answering_call(&mut self) -> Option<&mut Call> {
        match &mut self.answering {
            Answering::Nothing => None,
            Answering::Oldest => self.exchange.front_mut(),
            Answering::Alone(call) => Some(call),
        }
    }

    fn count(&mut self, part: Part, bytes: u64, time: Monotonic) {
        if let Some(begun) = &mut self.begun[part as usize] {
            begun.bytes += bytes;
        } else if let Some(call) = self.call(part) {
            half(call, part).bytes += bytes;
            call.end = call.end.max(time);
        }
    }

    fn body(&mut self, part: Part, body: &[u8]) {
        let most = self.keep.body_bytes;
        self.is_left_out[part as usize] |= self.exchange.is_brief();
        let is_left_out = self.is_left_out[part as usize];
        let Some(call) = self.call(part) else { return };
        half(call, part).body_bytes += body.len() as u64;
        let http = http(call);
        let kept = match part {
            Part::Client => &mut http.request_body,
            Part::Server => &mut http.response_body,
        };
        let room = most.saturating_sub(kept.len()).min(body.len());
        if is_left_out {
            self.left_out += room as u64;
        } else {
            kept.extend_from_slice(&body[..room]);
            self.kept += room as u64;
        }
    }

    /// What is kept of the message whose head is whole.
    fn keep(&mut self, part: Part, begun: Begun) -> Keep {
        self.is_left_out[part as usize] = false;
        if !self.exchange.is_brief() {
            return self.keep;
        }
        if self.keep.headers {
            self.left_out += begun.bytes;
        }
        Keep::default()
    }

    fn lose(&mut self, part: Part, ending: Ending, out: &mut Vec<Call>) {
        match part {
            Part::Client => self.lose_client(ending, out),
            Part::Server => self.lose_server(ending, out),
        }
    }

    fn request_head(&mut self, out: &mut Vec<Call>) {
        let Some(begun) = self.begun[Part::Client as usize].take() else { return self.sides.client.lose() };
        let keep = self.keep(Part::Client, begun);
        let head = self.sides.client.head();
        let Some(request) = head::request(head) else { return self.lose_client(Ending::Malformed, out) };
        if request.method == b"PRI" {
            self.sides.become_opaque();
            return;
        }
        let headers = head::headers(head, Some(keep));
        let framing = headers.of_request();
        let target = text(request.target, limit::TARGET);
        // A target with an authority tells more than the header (RFC 9112 3.2.2, 3.2.3).
        let authority = match target.split_once("://") {
            Some((_, rest)) => Some(rest.split(['/', '?']).next().unwrap_or_default().to_owned()),
            None if request.method == b"CONNECT" => Some(target.clone()),
            None => None,
        };
        // Who asks is no part of whom.
        let authority = authority.map(|authority| match authority.rsplit_once('@') {
            Some((_, host)) => host.to_owned(),
            None => authority,
        });
        let detail = HttpCall {
            method: text(request.method, limit::NAME),
            target,
            host: authority.or(headers.host),
            minor_version: request.minor_version,
            user_agent: headers.user_agent,
            request_headers: headers.kept,
            ..HttpCall::default()
        };
        let mut call = Call::begin(begun.at.time, begun.at.position, Detail::Http(Box::new(detail)));
        self.kept += kept(&call);
        call.request.bytes = begun.bytes;
        call.is_inferred = self.exchange.trust() != Trust::Certain;
        let mut cut = Vec::new();
        let can_match = self.exchange.make_room(call.start, &mut cut);
        if !cut.is_empty() {
            if matches!(self.answering, Answering::Oldest) {
                // The oldest is the one that is being answered.
                self.answering = Answering::Nothing;
            }
            out.extend(cut.into_iter().map(|call| call.ended(Ending::Gap)));
        }
        if self.sides.answers_begin_anew(self.exchange.trust()) {
            self.answer_is_over(Ending::Gap, out);
        }
        if can_match {
            self.exchange.push(call);
            self.receiving = Receiving::Youngest;
        } else {
            self.receiving = Receiving::Alone(Box::new(call.ended(Ending::Unmatched)));
        }
        match framing {
            Some(framing) => self.sides.client.body(framing),
            None => self.lose_client(Ending::Malformed, out),
        }
    }

    fn request_ended(&mut self, out: &mut Vec<Call>) {
        if let Receiving::Alone(call) = std::mem::replace(&mut self.receiving, Receiving::Nothing) {
            out.push(*call);
        }
    }

    fn response_head(&mut self, out: &mut Vec<Call>) {
        let Some(begun) = self.begun[Part::Server as usize].take() else { return self.sides.server.lose() };
        let keep = self.keep(Part::Server, begun);
        let head = self.sides.server.head();
        let Some(response) = head::response(head) else { return self.lose_server(Ending::Malformed, out) };
        let headers = head::headers(head, Some(keep));
        let method = self.exchange.front_mut().map_or("", |call| http(call).method.as_str());
        let framing = headers.of_response(response.status, method);
        // Others come before the one that counts (RFC 9110 15.2).
        if (100..200).contains(&response.status) && response.status != 101 {
            if let Some(call) = self.exchange.front_mut() {
                call.response.bytes += begun.bytes;
            }
            self.sides.server.body(Framing::None);
            // After a gap more of this answer is to come.
            return;
        }
        let call = if let Some(call) = self.exchange.front_mut() {
            self.answering = Answering::Oldest;
            call.answered = Some(begun.at.time);
            call.response.position = Some(begun.at.position);
            call
        } else {
            self.exchange.orphan(begun.at.time);
            let detail = HttpCall { minor_version: response.minor_version, ..HttpCall::default() };
            let call = Call::orphan(begun.at.time, begun.at.position, Detail::Http(Box::new(detail)));
            self.answering = Answering::Alone(Box::new(call));
            let Answering::Alone(call) = &mut self.answering else { return };
            call
        };
        call.response.bytes += begun.bytes;
        call.end = call.end.max(begun.at.time);
        let http = http(call);
        http.status = Some(response.status);
        http.content_type = headers.content_type;
        self.kept = self.kept.saturating_sub(kept_headers(&http.response_headers));
        http.response_headers = headers.kept;
        self.kept += kept_headers(&http.response_headers);
        match framing {
            Some(Framing::Opaque) => {
                self.response_ended(out);
                // Both directions change at once (RFC 9110 7.8, 9.3.6).
                self.sides.become_opaque();
                self.begun[Part::Client as usize] = None;
            }
            Some(framing) => self.sides.server.body(framing),
            None => self.lose_server(Ending::Malformed, out),
        }
    }

    fn response_ended(&mut self, out: &mut Vec<Call>) {
        match std::mem::replace(&mut self.answering, Answering::Nothing) {
            Answering::Nothing => {}
            Answering::Alone(call) => out.push(*call),
            Answering::Oldest => {
                let is_early = matches!(self.receiving, Receiving::Youngest) && self.exchange.len() == 1;
                let Some(call) = self.exchange.pop() else { return };
                if is_early {
                    self.receiving = Receiving::Nothing;
                }
                out.push(if is_early { call.ended(Ending::Early) } else { call });
            }
        }
    }

    /// The answer that is being read will not go on.
    fn answer_is_over(&mut self, ending: Ending, out: &mut Vec<Call>) {
        self.begun[Part::Server as usize] = None;
        if let Some(call) = self.answering_call() {
            call.mark(ending);
            self.response_ended(out);
        }
    }

    fn lose_client(&mut self, ending: Ending, out: &mut Vec<Call>) {
        self.sides.lose(Part::Client);
        self.begun[Part::Client as usize] = None;
        if let Some(call) = self.receiving_call() {
            call.mark(ending);
        }
        self.request_ended(out);
        self.exchange.lose_requests();
    }

    fn lose_server(&mut self, ending: Ending, out: &mut Vec<Call>) {
        self.answer_is_over(ending, out);
        self.sides.lose(Part::Server);
        let mut cut = Vec::new();
        self.exchange.lose_answers(&mut cut);
        if matches!(self.receiving, Receiving::Youngest) {
            self.receiving = Receiving::Nothing;
        }
        out.extend(cut.into_iter().map(|call| call.ended(Ending::Gap)));
    }
}

impl Decode for Http1 {
    fn load(&self) -> Load {
        let open = self.exchange.load();
        Load { held: open.held.saturating_add(self.kept), left_out: self.left_out, ..open }
    }

    fn be_brief(&mut self, is_brief: bool) {
        self.exchange.be_brief(is_brief);
    }

    fn told(&mut self, call: &Call) {
        self.kept = self.kept.saturating_sub(kept(call));
    }

    fn understands(&self, part: Part) -> bool {
        self.sides.understands(part)
    }

    fn bytes(&mut self, part: Part, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        if self.sides.speaks(part, data, self.exchange.trust()) {
            self.begun[part as usize] = None;
        }
        let mut saying = Saying::new(at, data);
        loop {
            let Taken { step, used, now } = saying.step(self.sides.of_mut(part));
            self.count(part, used, at.time);
            match (step, part) {
                (None, _) => return,
                (Some(Step::Began), _) => self.begun[part as usize] = Some(Begun { at: now, bytes: 0 }),
                (Some(Step::Head), Part::Client) => self.request_head(out),
                (Some(Step::Head), Part::Server) => self.response_head(out),
                (Some(Step::Body(body)), _) => self.body(part, body),
                (Some(Step::Ended), Part::Client) => self.request_ended(out),
                (Some(Step::Ended), Part::Server) => self.response_ended(out),
                (Some(Step::Framing | Step::Skipped), _) => {}
                (Some(Step::Broken), _) => self.lose(part, Ending::Malformed, out),
            }
        }
    }

    fn gap(&mut self, part: Part, at: Moment, length: u64, out: &mut Vec<Call>) {
        let is_body = self.sides.of(part).place() == Place::Body;
        if self.sides.gap(part, length) {
            if let Some(call) = self.call(part) {
                add_gap(half(call, part), length, is_body);
            }
            // What was the end of the body may have been in the gap.
            self.bytes(part, at.behind_gap(length), &[], out);
        } else {
            self.lose(part, Ending::Gap, out);
        }
    }

    fn end(&mut self, part: Part, time: Monotonic, out: &mut Vec<Call>) {
        match part {
            Part::Client => {
                if let Some(call) = self.receiving_call() {
                    call.mark(Ending::Cut);
                }
                self.begun[Part::Client as usize] = None;
                self.request_ended(out);
            }
            // That is how some bodies end.
            Part::Server => {
                if self.sides.server.is_until_close() {
                    if let Some(call) = self.answering_call() {
                        call.end = call.end.max(time);
                    }
                    self.response_ended(out);
                    self.sides.server.body(Framing::Opaque);
                }
                self.answer_is_over(Ending::Cut, out);
            }
        }
    }

    fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        self.end(Part::Client, time, out);
        self.end(Part::Server, time, out);
        out.extend(self.exchange.drain().into_iter().map(|call| call.ended(Ending::NoAnswer)));
    }
}

fn add_gap(half: &mut Half, length: u64, is_body: bool) {
    half.bytes = half.bytes.saturating_add(length);
    half.gap_bytes = half.gap_bytes.saturating_add(length);
    if is_body {
        half.body_bytes = half.body_bytes.saturating_add(length);
    }
}

/// Bytes of messages that a call keeps.
fn kept(call: &Call) -> u64 {
    let Detail::Http(http) = &call.detail else { return 0 };
    (http.request_body.len() + http.response_body.len()) as u64
        + kept_headers(&http.request_headers)
        + kept_headers(&http.response_headers)
}

fn kept_headers(headers: &[Header]) -> u64 {
    headers.iter().map(|header| (header.name.len() + header.value.len()) as u64).sum()
}

const fn half(call: &mut Call, part: Part) -> &mut Half {
    match part {
        Part::Client => &mut call.request,
        Part::Server => &mut call.response,
    }
}
