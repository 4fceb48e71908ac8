//! [`Exchange`]: which answer belongs to which request, in protocols that answer in the order of the requests.
//!
//! As long as every byte was seen, counting is enough. Once a gap has swallowed the boundary of a message nobody knows how
//! many requests or answers were in it. From then on two things are put together only if the client waits for each answer
//! before it asks again, and the call says that this was assumed. Clients that were seen not to wait are not matched again.

use std::collections::VecDeque;

use weir_flow::Monotonic;

use crate::Load;

/// Most requests that may wait for their answers.
pub(crate) const MOST_OPEN: usize = 1024;

/// About how many bytes of memory an open call takes, besides what is kept of its messages.
pub(crate) const OPEN_CALL: u64 = 2048;

/// How sure it is that the oldest open request is the one that is answered next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Everything was seen.
    Certain,
    /// If the client waits for answers, as it did so far.
    Inferred,
    /// Not at all.
    Broken,
}

/// Requests whose answers are to come.
#[derive(Debug)]
pub(crate) struct Exchange<E> {
    open: VecDeque<E>,
    trust: Trust,
    /// Whether the client was seen to ask while an answer was due.
    has_overlapped: bool,
    /// Whether an answer may have been missed since the last request.
    may_have_missed: bool,
    /// When the last answer without a request began.
    last_orphan: Option<Monotonic>,
    /// Whether there is room for one request alone.
    is_brief: bool,
    /// Requests that got no answer for that reason.
    cut: u64,
}

impl<E> Exchange<E> {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            open: VecDeque::new(),
            trust,
            has_overlapped: false,
            may_have_missed: trust != Trust::Certain,
            last_orphan: None,
            is_brief: false,
            cut: 0,
        }
    }

    pub(crate) const fn trust(&self) -> Trust {
        self.trust
    }

    /// Says whether there is room for one request alone.
    pub(crate) const fn be_brief(&mut self, is_brief: bool) {
        self.is_brief = is_brief;
    }

    pub(crate) const fn is_brief(&self) -> bool {
        self.is_brief
    }

    /// What the open requests take, and how many were given up for want of room.
    pub(crate) fn load(&self) -> Load {
        Load { held: self.open.len() as u64 * OPEN_CALL, cut: self.cut, left_out: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Every request, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &E> {
        self.open.iter()
    }

    /// The request that is answered next.
    pub(crate) fn front_mut(&mut self) -> Option<&mut E> {
        self.open.front_mut()
    }

    /// The youngest request.
    pub(crate) fn back_mut(&mut self) -> Option<&mut E> {
        self.open.back_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The answer of the oldest request has ended.
    pub(crate) fn pop(&mut self) -> Option<E> {
        self.open.pop_front()
    }

    /// Takes all that is open.
    pub(crate) fn drain(&mut self) -> VecDeque<E> {
        std::mem::take(&mut self.open)
    }

    /// Prepares for a request that began at this time: `cut` gets the requests whose answers will not be known. Gives back
    /// whether the new one can be matched, and so may be [pushed](Self::push).
    pub(crate) fn make_room(&mut self, start: Monotonic, cut: &mut Vec<E>) -> bool {
        let is_waiting = !self.open.is_empty();
        match self.trust {
            Trust::Certain => self.has_overlapped |= is_waiting,
            Trust::Inferred => {
                cut.extend(self.open.drain(..));
                if is_waiting && !self.may_have_missed {
                    self.has_overlapped = true;
                    self.trust = Trust::Broken;
                }
            }
            Trust::Broken => {}
        }
        self.may_have_missed = false;
        let most = if self.is_brief { 1 } else { MOST_OPEN };
        if self.open.len() >= most {
            if self.is_brief {
                self.cut += self.open.len() as u64;
            }
            cut.extend(self.open.drain(..));
            self.trust = Trust::Broken;
        }
        // It came late: what was taken for an answer to nothing may have been its answer.
        let is_late = self.last_orphan.is_some_and(|orphan| start <= orphan);
        self.trust != Trust::Broken && !is_late
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.open.push_back(entry);
    }

    /// An answer began while nothing was open.
    pub(crate) fn orphan(&mut self, start: Monotonic) {
        self.last_orphan = self.last_orphan.max(Some(start));
        self.lower();
    }

    /// A gap may have swallowed requests. Those that are open come before it, so their answers are known.
    pub(crate) fn lose_requests(&mut self) {
        // Which of them the next answer is for is known only as long as they are the oldest ones.
        self.lower();
        self.may_have_missed = true;
    }

    /// A gap may have swallowed answers: `cut` gets everything that is open.
    pub(crate) fn lose_answers(&mut self, cut: &mut Vec<E>) {
        cut.extend(self.open.drain(..));
        self.lower();
        self.may_have_missed = true;
    }

    fn lower(&mut self) {
        if self.trust == Trust::Certain {
            self.trust = if self.has_overlapped { Trust::Broken } else { Trust::Inferred };
        }
    }
}
