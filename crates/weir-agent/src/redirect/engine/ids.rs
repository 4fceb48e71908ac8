//! Numbers for listeners and backends: the lowest that is free, because they are places in tables of the kernel.

use std::collections::BTreeSet;

use weir_datapath::redirect::{BackendId, RuleId};

/// Numbers in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    rules: Pool,
    backends: Pool,
}

/// Numbers from 1 on.
#[derive(Clone, Debug, Default)]
struct Pool {
    /// Everything above is free.
    highest: u32,
    /// What is free below.
    free: BTreeSet<u32>,
}

impl Ids {
    /// A number for a listener.
    pub(super) fn rule(&mut self) -> RuleId {
        RuleId(self.rules.next())
    }

    /// A number for a backend.
    pub(super) fn backend(&mut self) -> BackendId {
        BackendId(self.backends.next())
    }

    /// This one is in use already.
    pub(super) fn take_rule(&mut self, id: RuleId) {
        self.rules.take(id.0);
    }

    /// This one is in use already.
    pub(super) fn take_backend(&mut self, id: BackendId) {
        self.backends.take(id.0);
    }

    /// Nothing names it any more.
    pub(super) fn free_rule(&mut self, id: RuleId) {
        self.rules.free.insert(id.0);
    }

    /// Nothing names it any more.
    pub(super) fn free_backend(&mut self, id: BackendId) {
        self.backends.free.insert(id.0);
    }
}

impl Pool {
    fn next(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.highest += 1;
            self.highest
        })
    }

    fn take(&mut self, number: u32) {
        self.free.extend(self.highest + 1..number);
        self.free.remove(&number);
        self.highest = self.highest.max(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_next() {
        let mut ids = Ids::default();
        ids.take_rule(RuleId(3));
        assert_eq!([ids.rule().0, ids.rule().0, ids.rule().0], [1, 2, 4]);
        ids.free_rule(RuleId(3));
        assert_eq!([ids.rule().0, ids.rule().0], [3, 5]);
    }
}
