//! What the server says, and to which statement it belongs.

use super::{
    Current, Postgresql,
    group::Step,
    message::{self, Message},
    postgresql,
};
use crate::{
    Part,
    call::{Call, Ending, limit, text},
};

impl Postgresql {
    /// The server has said a message.
    pub(super) fn answered(&mut self, message: &Message, out: &mut Vec<Call>) {
        // These may come at any time.
        if matches!(message.letter, b'N' | b'A' | b'S') {
            return;
        }
        let Some(group) = self.exchange.front_mut() else { return self.answered_unasked(message, out) };
        group.answered.add(message);
        let fits = match (message.letter, group.steps.front_mut()) {
            (b'1', Some(Step::Parse(_)))
            | (b'2', Some(Step::Bind))
            | (b'3', Some(Step::Close))
            | (b'T' | b'n', Some(Step::Describe)) => {
                group.steps.pop_front();
                true
            }
            (b'R' | b'K' | b'v' | b'V' | b'd' | b'c' | b'I' | b'T' | b'H' | b'W', Some(Step::Whole(_)))
            | (b'd' | b'c' | b'T' | b'H' | b'W', Some(Step::Execute(_)))
            | (b't', Some(Step::Describe)) => true,
            (b'G', Some(Step::Whole(_) | Step::Execute(_))) => {
                self.is_copying_in = true;
                // What was said to end the group is passed over by the server.
                if group.steps.back().is_some_and(|step| matches!(step, Step::Sync)) && group.steps.len() == 2
                {
                    group.steps.pop_back();
                    group.is_closed = false;
                    if self.exchange.len() == 1 {
                        self.current = Current::Youngest;
                    }
                }
                true
            }
            (b'D', Some(Step::Whole(call) | Step::Execute(call))) => {
                postgresql(call).rows += 1;
                true
            }
            (b'C', Some(Step::Whole(call))) => {
                complete(call, message);
                true
            }
            (b'C' | b's' | b'I', Some(Step::Execute(call))) => {
                if message.letter == b'C' {
                    complete(call, message);
                }
                if let Some(Step::Execute(call)) = group.steps.pop_front() {
                    let call = group.finish(*call);
                    out.push(call);
                }
                true
            }
            (b'E', _) => {
                self.failed(message, out);
                true
            }
            (b'Z', _) => {
                self.ready(out);
                true
            }
            _ => false,
        };
        if !fits {
            self.lose(Part::Server, Ending::Malformed, out);
        }
    }

    /// The server says something to which nothing leads.
    fn answered_unasked(&mut self, message: &Message, out: &mut Vec<Call>) {
        if message.letter == b'E' {
            // Somebody ends the connection.
            let mut call = self.begin(message, "", String::new());
            (call.request, call.response) = (call.response, call.request);
            call.answered = Some(message.at.time);
            call.ending = Ending::NoRequest;
            call.is_inferred = false;
            let (code, text) = error(message);
            let detail = postgresql(&mut call);
            (detail.error_code, detail.error_message) = (code, text);
            out.push(call);
        } else {
            self.exchange.orphan(message.at.time);
        }
    }

    fn failed(&mut self, message: &Message, out: &mut Vec<Call>) {
        self.is_copying_in = false;
        let own = self.begin(message, "", String::new());
        let (code, text) = error(message);
        let Some(group) = self.exchange.front_mut() else { return };
        if let Some(Step::Whole(call)) = group.steps.front_mut() {
            let detail = postgresql(call);
            (detail.error_code, detail.error_message) = (code, text);
            // After these the connection is closed, and the server is not ready any more.
            let severity = message::error_field(message.kept(), b'V');
            if matches!(severity, Some(b"FATAL" | b"PANIC")) {
                self.ready(out);
            }
            return;
        }
        group.fail(code, text, own, out);
    }

    /// The server is ready for the next group.
    fn ready(&mut self, out: &mut Vec<Call>) {
        self.is_copying_in = false;
        let is_open = self.exchange.front_mut().is_some_and(|group| !group.is_closed);
        if is_open && matches!(self.current, Current::Youngest) && self.exchange.len() == 1 {
            self.current = Current::Nothing;
        }
        let Some(mut group) = self.exchange.pop() else { return };
        if let Some(Step::Whole(_)) = group.steps.front()
            && let Some(Step::Whole(call)) = group.steps.pop_front()
        {
            let call = group.finish(*call);
            out.push(call);
        }
        out.extend(group.into_calls().map(|call| call.ended(Ending::Unmatched)));
    }
}

/// A command tag has come.
fn complete(call: &mut Call, message: &Message) {
    let (operation, rows) = message::tag(message.text());
    let detail = postgresql(call);
    if !operation.is_empty() {
        detail.operation = operation;
    }
    detail.statements += 1;
    if let Some(rows) = rows {
        detail.affected_rows = Some(detail.affected_rows.unwrap_or(0).saturating_add(rows));
    }
}

/// Code and text of an error.
fn error(message: &Message) -> (Option<String>, Option<String>) {
    let field = |wanted| message::error_field(message.kept(), wanted).map(|value| text(value, limit::NAME));
    // One without a code is an error all the same.
    (field(b'C').or_else(|| Some("unknown".to_owned())), field(b'M'))
}
