//! [`Counts`]: how many lookups there were, what came of them, and what was lost.

use std::time::Duration;

use weir_flow::{ResponseCode, Role};

/// Upper bounds of the classes of durations, in nanoseconds, ascending. Beyond the last one is no lookup: it would have
/// gone unanswered.
pub const DURATION_BOUNDS: [u64; 13] = [
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
];

/// Why a message, or what it said, is not in what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Not even the header and the question were there: a later segment of a message, or a short fragment.
    Partial,
    /// It is whole and no message of DNS.
    Malformed,
    /// It neither asks nor answers a question, but updates or notifies.
    OtherOperation,
    /// A response to a query that was not seen, or not any more.
    Unasked,
    /// There were too many lookups at a time.
    LookupsFull,
    /// There were too many flows at DNS ports at a time, so that records of some do not tell of it.
    FlowsFull,
    /// No record of the flow came, because a filter keeps it away or it was folded.
    NoRecord,
    /// There were too many names, so that flows to some addresses have none.
    NamesFull,
    /// There were too many flows with names, so that a long one may lose its name before it ends.
    NamedFlowsFull,
}

impl Loss {
    /// Every reason, in the order of their numbers (`loss as usize`).
    pub const ALL: [Self; 9] = [
        Self::Partial,
        Self::Malformed,
        Self::OtherOperation,
        Self::Unasked,
        Self::LookupsFull,
        Self::FlowsFull,
        Self::NoRecord,
        Self::NamesFull,
        Self::NamedFlowsFull,
    ];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Malformed => "malformed",
            Self::OtherOperation => "other_operation",
            Self::Unasked => "unasked",
            Self::LookupsFull => "lookups_full",
            Self::FlowsFull => "flows_full",
            Self::NoRecord => "no_record",
            Self::NamesFull => "names_full",
            Self::NamedFlowsFull => "named_flows_full",
        }
    }
}

/// Lookups that were first seen at interfaces of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleCounts {
    /// Those that were answered, by code.
    pub answered: [u64; ResponseCode::ALL.len()],
    /// Those that were not, for five seconds.
    pub unanswered: u64,
    /// Those that were answered, by time: at most as long as each of [`DURATION_BOUNDS`] and longer than the one before.
    pub durations: [u64; DURATION_BOUNDS.len()],
    /// All of these times together.
    pub duration: Duration,
}

/// Everything since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages heard, once for each interface that they passed.
    pub messages: u64,
    /// Of these, longer than what was copied of them: answers behind the cut are not known.
    pub cut: u64,
    /// In the order of [`Role::ALL`].
    pub roles: [RoleCounts; Role::ALL.len()],
    /// In the order of [`Loss::ALL`].
    pub lost: [u64; Loss::ALL.len()],
}

impl Counts {
    /// Lookups of a role.
    pub fn role(&self, role: Role) -> &RoleCounts {
        &self.roles[role as usize]
    }

    /// Counts an answer.
    pub(super) fn answered(&mut self, role: Role, code: ResponseCode, duration: Duration) {
        let counts = &mut self.roles[role as usize];
        counts.answered[usize::from(code.number())] += 1;
        counts.duration += duration;
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(class) = DURATION_BOUNDS.iter().position(|bound| nanoseconds <= *bound) {
            counts.durations[class] += 1;
        }
    }

    /// Counts that there was no answer.
    pub(super) fn unanswered(&mut self, role: Role) {
        self.roles[role as usize].unanswered += 1;
    }

    /// Counts a loss.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.lost[loss as usize] += 1;
    }
}

impl RoleCounts {
    /// Lookups that were answered.
    pub fn all_answered(&self) -> u64 {
        self.answered.iter().sum()
    }
}
