//! The bytes that chosen processes send and receive, copied where the system calls end, with an account of each byte that
//! was not copied.
//!
//! Plain bytes of sockets: what they mean is for others. Nothing is copied before a rule asks for it, rules are evaluated
//! in the kernel, and nothing is ever changed. Opt-in: nothing else loads this object.

use std::{collections::BTreeMap, convert::Infallible, io, time::Duration};

mod event;
mod rule;
mod settings;

pub use event::{
    Closed, Data, Event, Finished, Gap, GapReason, Opened, Place, Process, Side, SocketId, Transport,
};
pub use rule::{
    HEADER_BYTES, Limits, MOST_CALL, MOST_RULES, Payload, Processes, Role, Rule, RuleError, RuleId, Way,
};
pub use settings::{Chosen, Settings, Tier};

/// Why the tap does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The binary was built without kernel programs.
    #[error("this weir was built without the kernel programs of the tap")]
    NoObject,
    /// The rules contradict themselves.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// Counts since the tap was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that moved bytes, whoever made them, while rules were in force.
    pub calls: u64,
    /// Of these, calls that no rule let through.
    pub rejected: u64,
    /// What was sent by calls that a rule let through.
    pub sent: Side,
    /// What was received by them.
    pub received: Side,
    /// Both directions together, by rule.
    pub rules: BTreeMap<RuleId, Side>,
    /// Openings, ends and closings that there was no room to tell.
    pub untold: u64,
    /// Sockets that could not be followed for want of memory; their calls are among `rejected`.
    pub unfollowed: u64,
}

/// An open tap. Dropping it detaches.
#[derive(Debug)]
pub struct Tap(Infallible);

impl Tap {
    /// Attaches the hooks. Nothing is let through before there are rules.
    pub fn open(_settings: &Settings) -> Result<(Self, Chosen), TapError> {
        Err(TapError::NoObject)
    }

    /// Puts rules in force in place of those before, all at once; of several that match, the first in this order wins. An
    /// error changes nothing.
    pub fn set_rules(&mut self, rules: &[Rule]) -> Result<(), TapError> {
        rule::check(rules)?;
        match self.0 {}
    }

    /// Looks for sockets that are open already and tells those that the rules let through. Returns how many.
    pub fn existing(&mut self) -> Result<u64, TapError> {
        match self.0 {}
    }

    /// Waits until there is something to read, at most as long as `timeout`. A signal ends the wait early.
    pub fn wait(&self, _timeout: Duration) -> io::Result<()> {
        match self.0 {}
    }

    /// Hands over what waits, and returns how much. Of one socket, its opening comes before its bytes, and its closing
    /// after them. Bytes lie in memory that the kernel writes again once `visit` returns.
    pub fn read(&mut self, _visit: &mut dyn FnMut(Event<'_>)) -> Result<usize, TapError> {
        match self.0 {}
    }

    /// Counts since the tap was opened. While calls are running, one may be in the middle of being counted.
    pub fn totals(&self) -> Result<Totals, TapError> {
        match self.0 {}
    }

    /// Detaches, hands over what still waits, and returns the last counts.
    pub fn close(self, _visit: &mut dyn FnMut(Event<'_>)) -> Result<Totals, TapError> {
        match self.0 {}
    }
}
