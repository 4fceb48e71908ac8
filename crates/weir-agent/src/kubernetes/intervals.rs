//! Who had an address, and when.
//!
//! The intervals of one address never overlap, so that an address which is used again is never given to the one who
//! had it before. Pure: times are arguments, and all of them are wall time, because the API server tells no other.

use std::sync::Arc;

use weir_flow::{Wall, Workload};

/// An end that has not come yet.
const NEVER: Wall = Wall(u64::MAX);

/// One who had the address, from `from` on and before `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) from: Wall,
    pub(super) until: Wall,
    pub(super) holder: Arc<Workload>,
}

/// Since when somebody may have had an address, and since when surely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// Not before this.
    pub(super) earliest: Wall,
    /// At this time certainly; never before `earliest`.
    pub(super) sure: Wall,
}

impl Since {
    /// Since exactly this moment.
    pub(super) const fn exactly(moment: Wall) -> Self {
        Self { earliest: moment, sure: moment }
    }
}

/// All who had one address, as far as is remembered, the earliest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings(Vec<Holding>);

impl Holdings {
    /// Who had the address at `time`.
    pub(super) fn at(&self, time: Wall) -> Option<&Arc<Workload>> {
        self.0
            .iter()
            .rev()
            .find(|holding| holding.from <= time && time < holding.until)
            .map(|holding| &holding.holder)
    }

    /// `holder` has the address, as of now. Whoever had it before has lost it by then, whether or not anybody said so.
    ///
    /// One who has it already keeps the beginning.
    pub(super) fn claim(&mut self, holder: &Arc<Workload>, since: Since) {
        if self.0.iter().any(|holding| holding.holder.uid == holder.uid && holding.until == NEVER) {
            self.describe(holder);
            return;
        }
        let position = self.0.partition_point(|holding| holding.from <= since.sure);
        let (before, after) = self.0.split_at_mut(position);
        let until = after.first().map_or(NEVER, |next| next.from);
        let mut from = since.earliest;
        for earlier in before {
            // Between the end of the one and the certain beginning of the other there was nobody else.
            earlier.until = earlier.until.min(since.sure);
            from = from.max(earlier.until).max(earlier.from);
        }
        self.0.reserve_exact(1);
        self.0.insert(position, Holding { from, until, holder: Arc::clone(holder) });
    }

    /// The one with this identifier does not have the address any more from `until` on.
    pub(super) fn release(&mut self, uid: &str, until: Wall) {
        for holding in self.0.iter_mut().filter(|holding| &*holding.holder.uid == uid) {
            holding.until = holding.until.min(until.max(holding.from));
        }
    }

    /// Forgets who lost the address before `horizon`.
    pub(super) fn forget(&mut self, horizon: Wall) {
        self.0.retain(|holding| holding.until > horizon);
        self.0.shrink_to_fit();
    }

    /// Who had the address last.
    pub(super) fn last(&self) -> Option<&Arc<Workload>> {
        self.0.last().map(|holding| &holding.holder)
    }

    /// Whoever is meant by the identifier of `holder` is described like this from now on.
    pub(super) fn describe(&mut self, holder: &Arc<Workload>) {
        for holding in self.0.iter_mut().filter(|holding| holding.holder.uid == holder.uid) {
            holding.holder = Arc::clone(holder);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
