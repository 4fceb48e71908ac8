//! The ledger: in words, what was seen, and by name what of it is in no flow that was shown; and beyond the flows, an
//! [`Account`] for each consumer of records.

mod account;

use std::fmt::Write as _;

use weir_flow::{Count, Ledger};

pub use self::account::{Account, Loss, Origin, Page, Pages};
use crate::units::Grouped;

/// One line: `accounted 100.00 %: 1,234 packets, 567,890 bytes seen; 1,200 packets in flows, 34 non-ip`.
pub fn summary(ledger: &Ledger) -> String {
    let mut text = format!(
        "accounted {}: {} packets, {} bytes seen; {} packets, {} bytes in flows",
        accounted(ledger),
        Grouped(ledger.seen.packets),
        Grouped(ledger.seen.bytes),
        Grouped(ledger.flows.packets),
        Grouped(ledger.flows.bytes),
    );
    for (name, count) in left_out(ledger) {
        write!(text, "; {} packets, {} bytes {name}", Grouped(count.packets), Grouped(count.bytes))
            .expect("a string takes any text");
    }
    text.push('\n');
    text
}

/// What is in no flow, by name; only what there is.
pub fn left_out(ledger: &Ledger) -> impl Iterator<Item = (&'static str, Count)> {
    [
        ("filtered", ledger.filtered),
        ("duplicate", ledger.duplicate),
        ("non-ip", ledger.non_ip),
        ("malformed", ledger.parse_error),
        ("overflow", ledger.overflow),
    ]
    .into_iter()
    .filter(|(_, count)| *count != Count::default())
}

/// The part of the packets that has a name. `100.00 %` is said only when not a single packet or byte is missing.
pub fn accounted(ledger: &Ledger) -> String {
    let (accounted, seen) = (ledger.accounted(), ledger.seen);
    if accounted == seen {
        return "100.00 %".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let percent = 100.0 * accounted.packets as f64 / (seen.packets.max(1)) as f64;
    let missing = i128::from(seen.packets) - i128::from(accounted.packets);
    let missing_bytes = i128::from(seen.bytes) - i128::from(accounted.bytes);
    format!("{:.2} % ({missing} packets, {missing_bytes} bytes missing)", percent.min(99.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(packets: u64, bytes: u64) -> Count {
        Count { packets, bytes }
    }

    #[test]
    fn what_is_left_out_is_named_and_nothing_else() {
        let ledger = Ledger {
            seen: count(1_010, 100_700),
            flows: count(1_000, 100_000),
            non_ip: count(10, 700),
            ..Ledger::default()
        };
        assert_eq!(
            summary(&ledger),
            "accounted 100.00 %: 1,010 packets, 100,700 bytes seen; 1,000 packets, 100,000 bytes in flows; \
             10 packets, 700 bytes non-ip\n"
        );
    }

    #[test]
    fn a_single_missing_byte_is_not_a_hundred_percent() {
        let ledger = Ledger { seen: count(1_000_000, 9), flows: count(1_000_000, 8), ..Ledger::default() };
        assert_eq!(accounted(&ledger), "99.99 % (0 packets, 1 bytes missing)");
        assert_eq!(accounted(&Ledger::default()), "100.00 %");
    }
}
