//! The self check of the tap finds on this machine what the tests find.

use weir_datapath::tap::{GapReason, Settings, TapError, Tier, selfcheck};
use weir_integration::{cannot_run, require_root, tapping::tier};

#[test]
fn known_bytes_are_told_by_every_path() {
    if !require_root() {
        return;
    }
    for tier in [tier(), Some(Tier::Syscalls)] {
        let (chosen, outcomes) = match selfcheck::run(&Settings { tier, ..Settings::default() }) {
            Ok(found) => found,
            Err(error @ TapError::Rule(_)) => panic!("{error}"),
            Err(error) => return cannot_run(&error.to_string()),
        };
        assert!(outcomes.len() >= 5);
        for outcome in outcomes {
            assert!(outcome.is_accounted_for(), "{} {outcome:?}", chosen.tier);
            if outcome.calls == "sendfile/recv" {
                assert_eq!(outcome.sent.gaps[GapReason::Sendfile as usize], outcome.bytes, "{outcome:?}");
            } else {
                assert!(outcome.is_exact(), "{} {outcome:?}", chosen.tier);
            }
        }
    }
}
