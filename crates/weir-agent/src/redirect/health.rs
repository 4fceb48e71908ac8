//! Whether a backend is up, from what its checks say.
//!
//! So many successes *in a row* bring it up and so many failures in a row bring it down; a single one in between starts the
//! count anew. Only the very first check decides alone: whoever starts with a dead backend should not send it anything
//! for the time of three checks.

use std::{net::SocketAddr, sync::Arc};

/// What is checked: a backend of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The rule.
    pub rule: Arc<str>,
    /// The backend.
    pub backend: SocketAddr,
}

/// What a check found: nothing wrong, or what.
pub type Outcome = Result<(), String>;

/// What is thought of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    is_up: bool,
    has_seen: bool,
    streak: u32,
    trouble: Option<String>,
    /// Why it is not up though nothing is wrong with it.
    refused: Option<String>,
}

/// A change of mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is well again. It is up once [`Judge::raise`] says so.
    Up,
    /// It is down now.
    Down,
}

impl Judge {
    /// Nothing was checked yet; what is assumed until then.
    pub fn new(is_up: bool) -> Self {
        Self { is_up, has_seen: false, streak: 0, trouble: None, refused: None }
    }

    /// Takes the outcome of a check.
    pub fn observe(&mut self, outcome: Outcome, rise: u32, fall: u32) -> Option<Turn> {
        let is_first = !std::mem::replace(&mut self.has_seen, true);
        let succeeded = outcome.is_ok();
        self.trouble = outcome.err();
        if !succeeded {
            self.refused = None;
        }
        if succeeded == self.is_up {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let needed = if succeeded { rise } else { fall };
        if !is_first && self.streak < needed {
            return None;
        }
        self.streak = 0;
        if succeeded {
            return Some(Turn::Up);
        }
        self.is_up = false;
        Some(Turn::Down)
    }

    /// From now on it is up.
    pub fn raise(&mut self) {
        (self.is_up, self.streak, self.refused) = (true, 0, None);
    }

    /// It cannot be up, because of this.
    pub fn refuse(&mut self, reason: String) {
        self.refused = Some(reason);
    }

    /// Whether it may take connections.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// What was wrong at the last check, or why it is not up though nothing was.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.refused.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` succeeds and `-` fails; the answer has what is thought after each.
    fn course(checks: &str) -> String {
        let mut judge = Judge::new(true);
        let mut observe = |check| {
            let outcome = if check == '+' { Ok(()) } else { Err("refused".to_owned()) };
            if judge.observe(outcome, 2, 3) == Some(Turn::Up) {
                judge.raise();
            }
            if judge.is_up() { 'U' } else { 'd' }
        };
        checks.chars().map(&mut observe).collect()
    }

    #[test]
    fn the_first_check_decides_alone_and_then_only_rows_count() {
        fn check(checks: &str, expect: &str) {
            assert_eq!(course(checks), expect, "{checks}");
        }
        check("+++", "UUU");
        check("-", "d");
        check("-+", "dd");
        check("-++", "ddU");
        check("+--+--+---", "UUUUUUUUUd");
        check("+---+-+-++", "UUUddddddU");
    }

    #[test]
    fn a_change_of_mind_is_told_once() {
        let mut judge = Judge::new(true);
        assert_eq!(judge.observe(Err("no".to_owned()), 1, 1), Some(Turn::Down));
        assert_eq!(judge.observe(Err("no".to_owned()), 1, 1), None);
        assert_eq!(judge.trouble(), Some("no"));
        assert_eq!(judge.observe(Ok(()), 1, 1), Some(Turn::Up));
        assert_eq!(judge.trouble(), None);
        judge.refuse("no room".to_owned());
        assert_eq!((judge.is_up(), judge.trouble()), (false, Some("no room")));
        assert_eq!(judge.observe(Ok(()), 1, 1), Some(Turn::Up));
        judge.raise();
        assert_eq!((judge.is_up(), judge.trouble()), (true, None));
        assert_eq!(judge.observe(Ok(()), 1, 1), None);
    }
}
