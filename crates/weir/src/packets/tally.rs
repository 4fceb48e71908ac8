//! [`Tally`]: what became of every packet, kernel and user space together.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use weir_datapath::packets::{Packet, PacketLedger};
use weir_flow::{Count, Point, PointId};

use weir_agent::units::Grouped;

/// What was done with the packets that the kernel handed over.
#[derive(Default)]
pub(crate) struct Tally {
    points: HashMap<PointId, Done>,
}

/// What was done with those of one point.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    shown: Count,
    filtered: Count,
    surplus: Count,
    cut: Count,
}

/// The ledger of one point, or of all: `seen` is the sum of all others but `cut`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Every packet that passed.
    pub(crate) seen: Count,
    /// Shown, or written to the file.
    pub(crate) shown: Count,
    /// Rejected by the filter, in the kernel or here.
    pub(crate) filtered: Count,
    /// No room in the ring buffer.
    pub(crate) lost: Count,
    /// Came after the last one that was wanted.
    pub(crate) surplus: Count,
    /// Of those shown, packets that are longer than what was kept of them.
    pub(crate) cut: Count,
}

impl Tally {
    /// A packet was shown, or written to the file.
    pub(crate) fn shown(&mut self, packet: &Packet<'_>) {
        let done = self.done(packet);
        done.shown += count(packet);
        if packet.is_cut() {
            done.cut += count(packet);
        }
    }

    /// A packet did not meet the filter.
    pub(crate) fn filtered(&mut self, packet: &Packet<'_>) {
        self.done(packet).filtered += count(packet);
    }

    /// A packet came too late.
    pub(crate) fn surplus(&mut self, packet: &Packet<'_>) {
        self.done(packet).surplus += count(packet);
    }

    /// Adds up what the kernel did with the packets of a point and what was done here.
    pub(crate) fn totals(&self, point: PointId, kernel: &PacketLedger) -> Totals {
        let done = self.points.get(&point).copied().unwrap_or_default();
        Totals {
            seen: kernel.seen,
            shown: done.shown,
            filtered: kernel.filtered + done.filtered,
            lost: kernel.lost,
            surplus: done.surplus,
            cut: done.cut,
        }
    }

    /// The end of the story, in lines: all points together, and those that lost something.
    pub(crate) fn summary(&self, ledgers: &[(Arc<Point>, PacketLedger)]) -> String {
        let mut sum = Totals::default();
        let mut losses = String::new();
        for (point, ledger) in ledgers {
            let totals = self.totals(point.id, ledger);
            sum.add(&totals);
            if totals.lost.packets > 0 {
                let (lost, seen) = (Grouped(totals.lost.packets), Grouped(totals.seen.packets));
                writeln!(losses, "{} {}: {lost} of {seen} packets lost", point.interface, point.direction)
                    .expect("a string takes any text");
            }
        }
        let mut text = sum.to_text();
        text.push_str(&losses);
        text
    }

    fn done(&mut self, packet: &Packet<'_>) -> &mut Done {
        self.points.entry(packet.point.id).or_default()
    }
}

fn count(packet: &Packet<'_>) -> Count {
    Count { packets: 1, bytes: u64::from(packet.length) }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.shown += other.shown;
        self.filtered += other.filtered;
        self.lost += other.lost;
        self.surplus += other.surplus;
        self.cut += other.cut;
    }

    /// What was seen, and by name what became of it; only what there is.
    fn to_text(self) -> String {
        let mut text =
            format!("{} packets seen; {} shown", Grouped(self.seen.packets), Grouped(self.shown.packets));
        let named = [
            (self.filtered, "filtered"),
            (self.lost, "lost: nobody read fast enough"),
            (self.surplus, "after the last one"),
            (self.cut, "longer than --snaplen"),
        ];
        for (count, name) in named.iter().filter(|(count, _)| count.packets > 0) {
            write!(text, "; {} {name}", Grouped(count.packets)).expect("a string takes any text");
        }
        text.push('\n');
        let accounted = self.shown + self.filtered + self.lost + self.surplus;
        if accounted != self.seen {
            let (seen, accounted) = (self.seen, accounted);
            writeln!(
                text,
                "weir: {} packets, {} bytes seen, but {} packets, {} bytes accounted for",
                seen.packets, seen.bytes, accounted.packets, accounted.bytes
            )
            .expect("a string takes any text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(packets: u64) -> Count {
        Count { packets, bytes: packets * 100 }
    }

    #[test]
    fn the_sum_names_what_there_is() {
        let plain = Totals { seen: count(1_000), shown: count(1_000), ..Totals::default() };
        assert_eq!(plain.to_text(), "1,000 packets seen; 1,000 shown\n");
        let full = Totals {
            seen: count(1_017),
            filtered: count(10),
            surplus: count(4),
            lost: count(3),
            cut: count(8),
            ..plain
        };
        assert_eq!(
            full.to_text(),
            "1,017 packets seen; 1,000 shown; 10 filtered; 3 lost: nobody read fast enough; 4 after the last one; \
             8 longer than --snaplen\n"
        );
    }

    #[test]
    fn a_sum_that_is_wrong_says_so() {
        let wrong = Totals { seen: count(3), shown: count(1), ..Totals::default() };
        assert_eq!(
            wrong.to_text(),
            "3 packets seen; 1 shown\nweir: 3 packets, 300 bytes seen, but 1 packets, 100 bytes accounted for\n"
        );
    }
}
