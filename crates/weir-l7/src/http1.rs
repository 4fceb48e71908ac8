//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): requests and responses become calls.
//!
//! A gap within a body whose end is known is counted, and the body goes on. A gap anywhere else loses the boundary of a message;
//! then the next request is looked for where the client speaks after the server did, and the next response where the
//! server speaks after a request. Text in the middle of a body is never taken for a message.

mod head;
mod reader;
#[cfg(test)]
mod tests;

use weir_flow::Monotonic;

use self::reader::{Framing, Kind, Reader, Step};
use crate::{
    Moment, Part,
    call::{Call, Detail, Ending, Half, HttpCall, Keep, limit, text},
    exchange::{Exchange, Trust},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    keep: Keep,
    client: Reader,
    server: Reader,
    exchange: Exchange<Call>,
    /// The request whose head is being read.
    asking: Option<Begun>,
    receiving: Receiving,
    /// The response whose head is being read.
    answering_head: Option<Begun>,
    answering: Answering,
    /// Whether a lost client may be found again at the next byte, because the server spoke since.
    is_clients_turn: bool,
    /// Whether a lost server may be found again at the next byte, because a request was seen since.
    is_servers_turn: bool,
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
        let (mut client, mut server) = (Reader::new(Kind::Request), Reader::new(Kind::Response));
        if trust != Trust::Certain {
            client.lose();
            server.lose();
        }
        Self {
            keep,
            client,
            server,
            exchange: Exchange::new(trust),
            asking: None,
            receiving: Receiving::Nothing,
            answering_head: None,
            answering: Answering::Nothing,
            is_clients_turn: true,
            is_servers_turn: false,
        }
    }

    /// Whether what the client says is understood; otherwise it is another protocol by now, or lost.
    pub(crate) fn understands_client(&self) -> bool {
        !self.client.is_lost() && !self.client.is_opaque()
    }

    /// The same of the server.
    pub(crate) fn understands_server(&self) -> bool {
        !self.server.is_lost() && !self.server.is_opaque()
    }

    /// How many bytes of a body a side has still to say before its next message; `None` where that is not known.
    pub(crate) fn left_in_body(&self, part: Part) -> Option<u64> {
        match part {
            Part::Client => self.client.left_in_body(),
            Part::Server => self.server.left_in_body(),
        }
    }

    pub(crate) fn client_bytes(&mut self, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        if self.is_clients_turn && !data.is_empty() {
            // Where the beginning was guessed, what did not become a request before the server spoke was none.
            let was_wrong = self.client.is_in_head() && self.exchange.trust() != Trust::Certain;
            if self.client.is_lost() || was_wrong {
                self.asking = None;
                self.client.find_again();
            }
            self.is_clients_turn = false;
        }
        let mut rest = data;
        loop {
            let before = rest.len();
            let step = self.client.step(&mut rest);
            let now = at.behind(data.len() - rest.len());
            self.count_request((before - rest.len()) as u64, at.time);
            match step {
                None => return,
                Some(Step::Began) => self.asking = Some(Begun { at: now, bytes: 0 }),
                Some(Step::Head) => self.request_head(out),
                Some(Step::Body(body)) => self.request_body(body),
                Some(Step::Ended) => self.request_ended(out),
                Some(Step::Skipped) => {}
                Some(Step::Broken) => self.lose_client(Ending::Malformed, out),
            }
        }
    }

    pub(crate) fn server_bytes(&mut self, at: Moment, data: &[u8], out: &mut Vec<Call>) {
        self.is_clients_turn = true;
        if self.server.is_lost() && self.is_servers_turn && !data.is_empty() {
            self.server.find_again();
            self.is_servers_turn = false;
        }
        let mut rest = data;
        loop {
            let before = rest.len();
            let step = self.server.step(&mut rest);
            let now = at.behind(data.len() - rest.len());
            self.count_response((before - rest.len()) as u64, at.time);
            match step {
                None => return,
                Some(Step::Began) => self.answering_head = Some(Begun { at: now, bytes: 0 }),
                Some(Step::Head) => self.response_head(out),
                Some(Step::Body(body)) => self.response_body(body),
                Some(Step::Ended) => self.response_ended(out),
                Some(Step::Skipped) => {}
                Some(Step::Broken) => self.lose_server(Ending::Malformed, out),
            }
        }
    }

    pub(crate) fn client_gap(&mut self, at: Moment, length: u64, out: &mut Vec<Call>) {
        let is_body = self.client.is_in_body();
        if self.client.gap(length) {
            if let Some(call) = self.receiving_call() {
                add_gap(&mut call.request, length, is_body);
            }
            // What was the end of the body may have been in the gap.
            self.client_bytes(at.behind_gap(length), &[], out);
        } else {
            self.lose_client(Ending::Gap, out);
        }
    }

    pub(crate) fn server_gap(&mut self, at: Moment, length: u64, out: &mut Vec<Call>) {
        let is_body = self.server.is_in_body();
        if self.server.gap(length) {
            if let Some(call) = self.answering_call() {
                add_gap(&mut call.response, length, is_body);
            }
            self.server_bytes(at.behind_gap(length), &[], out);
        } else {
            self.lose_server(Ending::Gap, out);
        }
        self.is_clients_turn = true;
    }

    /// The client will say no more.
    pub(crate) fn client_end(&mut self) {
        if let Some(call) = self.receiving_call() {
            call.mark(Ending::Cut);
        }
        self.asking = None;
        self.receiving = Receiving::Nothing;
    }

    /// The server will say no more: that is how some bodies end.
    pub(crate) fn server_end(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        if self.server.is_until_close() {
            if let Some(call) = self.answering_call() {
                call.end = call.end.max(time);
            }
            self.response_ended(out);
            self.server.body(Framing::Opaque);
        }
        self.answer_is_over(Ending::Cut, out);
    }

    /// The connection is over.
    pub(crate) fn finish(&mut self, time: Monotonic, out: &mut Vec<Call>) {
        self.client_end();
        self.server_end(time, out);
        for call in self.exchange.drain() {
            out.push(call.ended(Ending::NoAnswer));
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

    fn count_request(&mut self, bytes: u64, time: Monotonic) {
        if let Some(begun) = &mut self.asking {
            begun.bytes += bytes;
        } else if let Some(call) = self.receiving_call() {
            call.request.bytes += bytes;
            call.end = call.end.max(time);
        }
    }

    fn count_response(&mut self, bytes: u64, time: Monotonic) {
        if let Some(begun) = &mut self.answering_head {
            begun.bytes += bytes;
        } else if let Some(call) = self.answering_call() {
            call.response.bytes += bytes;
            call.end = call.end.max(time);
        }
    }

    fn request_head(&mut self, out: &mut Vec<Call>) {
        let Some(begun) = self.asking.take() else { return self.client.lose() };
        let head = self.client.head();
        let Some(request) = head::request(head) else { return self.lose_client(Ending::Malformed, out) };
        if request.method == b"PRI" {
            self.client.become_opaque();
            self.server.become_opaque();
            return;
        }
        let headers = head::headers(head, self.keep);
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
        if self.exchange.trust() != Trust::Certain {
            self.answers_begin_anew(out);
        }
        if can_match {
            self.exchange.push(call);
            self.receiving = Receiving::Youngest;
        } else {
            self.receiving = Receiving::Alone(Box::new(call.ended(Ending::Unmatched)));
        }
        match framing {
            Some(framing) => self.client.body(framing),
            None => self.lose_client(Ending::Malformed, out),
        }
    }

    /// The client waits for answers, as far as is known: so what the server says next is the beginning of one.
    fn answers_begin_anew(&mut self, out: &mut Vec<Call>) {
        if self.server.is_opaque() {
            return;
        }
        if !self.server.is_between() {
            self.answer_is_over(Ending::Gap, out);
            self.server.lose();
        }
        self.is_servers_turn = true;
    }

    fn request_body(&mut self, body: &[u8]) {
        let most = self.keep.body_bytes;
        if let Some(call) = self.receiving_call() {
            call.request.body_bytes += body.len() as u64;
            keep_body(&mut http(call).request_body, body, most);
        }
    }

    fn request_ended(&mut self, out: &mut Vec<Call>) {
        if let Receiving::Alone(call) = std::mem::replace(&mut self.receiving, Receiving::Nothing) {
            out.push(*call);
        }
    }

    fn response_head(&mut self, out: &mut Vec<Call>) {
        let Some(begun) = self.answering_head.take() else { return self.server.lose() };
        let head = self.server.head();
        let Some(response) = head::response(head) else { return self.lose_server(Ending::Malformed, out) };
        let headers = head::headers(head, self.keep);
        let method = self.exchange.front_mut().map_or("", |call| http(call).method.as_str());
        let framing = headers.of_response(response.status, method);
        // Others come before the one that counts (RFC 9110 15.2).
        if (100..200).contains(&response.status) && response.status != 101 {
            if let Some(call) = self.exchange.front_mut() {
                call.response.bytes += begun.bytes;
            }
            self.server.body(Framing::None);
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
        http.response_headers = headers.kept;
        match framing {
            Some(Framing::Opaque) => {
                self.response_ended(out);
                // Both directions change at once (RFC 9110 7.8, 9.3.6).
                self.server.become_opaque();
                self.client.become_opaque();
                self.asking = None;
            }
            Some(framing) => self.server.body(framing),
            None => self.lose_server(Ending::Malformed, out),
        }
    }

    fn response_body(&mut self, body: &[u8]) {
        let most = self.keep.body_bytes;
        if let Some(call) = self.answering_call() {
            call.response.body_bytes += body.len() as u64;
            keep_body(&mut http(call).response_body, body, most);
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
        self.answering_head = None;
        if let Some(call) = self.answering_call() {
            call.mark(ending);
            self.response_ended(out);
        }
    }

    fn lose_client(&mut self, ending: Ending, out: &mut Vec<Call>) {
        self.client.lose();
        self.asking = None;
        if let Some(call) = self.receiving_call() {
            call.mark(ending);
        }
        self.request_ended(out);
        self.exchange.lose_requests();
        self.is_clients_turn = false;
    }

    fn lose_server(&mut self, ending: Ending, out: &mut Vec<Call>) {
        self.answer_is_over(ending, out);
        self.server.lose();
        self.is_servers_turn = false;
        let mut cut = Vec::new();
        self.exchange.lose_answers(&mut cut);
        if matches!(self.receiving, Receiving::Youngest) {
            self.receiving = Receiving::Nothing;
        }
        out.extend(cut.into_iter().map(|call| call.ended(Ending::Gap)));
    }
}

fn add_gap(half: &mut Half, length: u64, is_body: bool) {
    half.bytes = half.bytes.saturating_add(length);
    half.gap_bytes = half.gap_bytes.saturating_add(length);
    if is_body {
        half.body_bytes = half.body_bytes.saturating_add(length);
    }
}

fn keep_body(kept: &mut Vec<u8>, body: &[u8], most: usize) {
    let room = most.saturating_sub(kept.len()).min(body.len());
    kept.extend_from_slice(&body[..room]);
}
