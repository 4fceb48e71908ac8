//! [`Summary`]: the ledger at the end, as people read it.

use std::fmt;

use weir_datapath::tap::{GapReason, Side, Totals};
use weir_flow::Tick;
use weir_l7::Protocol;

use super::Counts;
use crate::units::Grouped;

/// What everything comes to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What the kernel counted.
    pub totals: Totals,
    /// What became of what it handed over.
    pub counts: Counts,
    /// Connections that were not over at the end.
    pub open: u64,
    /// When it ended.
    pub end: Tick,
}

impl Summary {
    /// What calls moved, both ways.
    fn both(&self, of: impl Fn(&Side) -> u64) -> u64 {
        of(&self.totals.sent) + of(&self.totals.received)
    }

    /// What does not add up; empty if everything does.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (way, side) in [("sent", &self.totals.sent), ("received", &self.totals.received)] {
            if !side.is_balanced() {
                let sum = side.captured + side.lost + side.gap();
                faults.push(format!("{way}: {} bytes were seen, {sum} are accounted for", side.seen));
            }
        }
        let captured = self.both(|side| side.captured);
        if captured != self.counts.given {
            faults.push(format!("{captured} bytes were captured, {} arrived", self.counts.given));
        }
        if !self.counts.is_balanced() {
            faults.push(format!("of {} bytes not all are accounted for", self.counts.given));
        }
        if self.counts.unbalanced > 0 {
            faults.push(format!("{} connections do not add up", self.counts.unbalanced));
        }
        faults
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { totals, counts, .. } = self;
        let seen = self.both(|side| side.seen);
        let captured = self.both(|side| side.captured);
        write!(f, "captured {} of {} bytes", Grouped(captured), Grouped(seen))?;
        let lost = self.both(|side| side.lost);
        let reasons = GapReason::ALL.into_iter().enumerate();
        let gaps = reasons.map(|(index, (_, name))| (name, self.both(|side| side.gaps[index])));
        for (name, bytes) in [("lost", lost)].into_iter().chain(gaps) {
            if bytes > 0 {
                write!(f, ", {name} {}", Grouped(bytes))?;
            }
        }
        write!(f, "\n{} connections", Grouped(counts.connections))?;
        if counts.existing > 0 {
            write!(f, " ({} of them were there before)", Grouped(counts.existing))?;
        }
        write!(f, ", {} open at the end; {} calls", Grouped(self.open), Grouped(counts.all_calls()))?;
        let mut separator = ": ";
        for (protocol, calls) in Protocol::ALL.into_iter().zip(counts.calls) {
            if calls > 0 {
                write!(f, "{separator}{} {}", protocol.name(), Grouped(calls))?;
                separator = ", ";
            }
        }
        write!(
            f,
            "\n{} calls of the system moved bytes, of which {} were nobody's that a rule names",
            Grouped(totals.calls),
            Grouped(totals.rejected)
        )?;
        for (what, number) in [
            ("bytes whose order is in doubt, because threads share a socket", counts.duplicate),
            ("bytes that the kernel counted and no hook saw", counts.unseen),
            ("calls that the hooks missed, because they were busy on that CPU", totals.skipped),
            ("bytes of sockets that are not followed, or of which the opening was not told", counts.unknown),
            ("bytes of more sockets or peers than are followed", counts.unfollowed),
            ("sockets or peers that were too many to follow", counts.refused),
            ("sockets that were silent, and were given up for others", counts.forgotten),
            ("sockets that the kernel had no memory to follow", totals.unfollowed),
            (
                "datagrams with an other end that is not known, so that the filter did not mean them",
                totals.nameless,
            ),
            ("connections that there was no room to tell of", totals.unopened),
            ("connections whose closing there was no room to tell", totals.unclosed),
            ("times that there was no room to tell an opening or an end", totals.untold),
            ("times that bytes could not wait for those before them", counts.hurried),
            ("bytes of bodies and heads that there was no room to keep", counts.left_out),
            ("calls that there was no room to wait for the answers of", counts.cut),
        ] {
            if number > 0 {
                write!(f, "\n{} {what}", Grouped(number))?;
            }
        }
        Ok(())
    }
}
