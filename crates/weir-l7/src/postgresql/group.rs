//! [`Group`]: what a client wants between two points at which the server says that it is ready.
//!
//! A simple query is a group of its own. In the extended protocol a group ends with `Sync`; when one of its steps fails, the
//! server skips the rest of them.

use std::collections::VecDeque;

use weir_flow::Monotonic;

use super::{message::Message, postgresql};
use crate::call::{Call, Ending, Half};

/// Most steps of one group that may be unanswered.
const MOST_STEPS: usize = 4096;

/// Something that the server answers.
#[derive(Debug)]
pub(super) enum Step {
    Parse(String),
    Bind,
    Describe,
    Close,
    /// A statement that is executed: its answer ends with its command tag.
    Execute(Box<Call>),
    /// A simple query, a function, or getting in: the answer ends when the server is ready.
    Whole(Box<Call>),
    /// The end of the group.
    Sync,
}

/// Unanswered steps, and what was said since the last statement.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) steps: VecDeque<Step>,
    /// What the client said for the statement to come.
    pub(super) asked: Said,
    /// What the server said for the oldest statement.
    pub(super) answered: Said,
    /// Whether a step has failed, so that what follows is skipped.
    pub(super) has_failed: bool,
    pub(super) is_closed: bool,
}

/// Messages of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    half: Half,
    begin: Option<Monotonic>,
    end: Monotonic,
}

impl Said {
    pub(super) fn add(&mut self, message: &Message) {
        self.begin.get_or_insert(message.at.time);
        self.half.position.get_or_insert(message.at.position);
        self.end = self.end.max(message.end);
        self.half.bytes = self.half.bytes.saturating_add(message.bytes);
        self.half.gap_bytes = self.half.gap_bytes.saturating_add(message.gap_bytes);
        if message.letter == b'd' {
            self.half.body_bytes = self.half.body_bytes.saturating_add(message.body_bytes());
        }
    }

    pub(super) const fn begin(&self) -> Option<Monotonic> {
        self.begin
    }

    fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Writes it into the request of a call.
    pub(super) fn move_to_request(&mut self, call: &mut Call) {
        let said = self.take();
        if let Some(begin) = said.begin {
            call.start = begin;
            call.end = call.end.max(said.end);
            call.request = said.half;
        }
    }
}

impl Group {
    /// Adds a step. What nobody could answer any more is given back, as a call if it is one.
    pub(super) fn push(&mut self, step: Step) -> Option<Call> {
        let ending = if self.has_failed { Ending::Skipped } else { Ending::Unmatched };
        if self.has_failed || self.steps.len() >= MOST_STEPS {
            return match step {
                Step::Execute(call) | Step::Whole(call) => Some(call.ended(ending)),
                _ => None,
            };
        }
        self.steps.push_back(step);
        None
    }

    /// The call that the server is dealing with.
    pub(super) fn call_mut(&mut self) -> Option<&mut Call> {
        self.steps.iter_mut().find_map(|step| match step {
            Step::Execute(call) | Step::Whole(call) => Some(&mut **call),
            _ => None,
        })
    }

    /// Hands out the call at the front, with what the server said.
    pub(super) fn finish(&mut self, mut call: Call) -> Call {
        let said = self.answered.take();
        call.answered = said.begin;
        call.response = said.half;
        call.end = call.end.max(said.end);
        call
    }

    /// A step has failed: the first call among the steps has the error, those behind it are skipped. Without any, what
    /// failed makes a call of its own.
    pub(super) fn fail(
        &mut self,
        code: Option<String>,
        text: Option<String>,
        mut own: Call,
        out: &mut Vec<Call>,
    ) {
        self.has_failed = true;
        let statement = match self.steps.front() {
            Some(Step::Parse(statement)) => Some(statement.clone()),
            _ => None,
        };
        let mut failed = None;
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Execute(call) | Step::Whole(call) if failed.is_none() => failed = Some(*call),
                Step::Execute(call) | Step::Whole(call) => out.push(call.ended(Ending::Skipped)),
                _ => {}
            }
        }
        let mut call = failed.unwrap_or_else(|| {
            if let Some(statement) = statement {
                let detail = postgresql(&mut own);
                detail.operation = super::message::first_word(&statement);
                detail.statement = statement;
            }
            self.asked.move_to_request(&mut own);
            own
        });
        let detail = postgresql(&mut call);
        detail.error_code = code;
        detail.error_message = text;
        let call = self.finish(call);
        out.push(call);
    }

    /// All calls that are left.
    pub(super) fn into_calls(self) -> impl Iterator<Item = Call> {
        self.steps.into_iter().filter_map(|step| match step {
            Step::Execute(call) | Step::Whole(call) => Some(*call),
            _ => None,
        })
    }
}
