//! The self check of the tap finds on this machine what the tests find.

use weir_datapath::tap::{
    GapReason, Settings, TapError, Tier,
    selfcheck::{
        self,
        calls::{Receive, Send},
    },
};
use weir_integration::{cannot_run, require_root, tapping::tier};

#[test]
fn known_bytes_are_told_by_every_path() {
    if !require_root() {
        return;
    }
    for tier in [tier(), Some(Tier::Syscalls)] {
        let mut told = 0;
        let settings = Settings { tier, ..Settings::default() };
        let (chosen, outcomes) = match selfcheck::run(&settings, &mut |_| told += 1) {
            Ok(found) => found,
            Err(error @ TapError::Rule(_)) => panic!("{error}"),
            Err(error) => return cannot_run(&error.to_string()),
        };
        assert!(outcomes.len() >= 29 && told == outcomes.len());
        for outcome in outcomes {
            let case = format!("{} {outcome:?}", chosen.tier);
            assert!(outcome.is_accounted_for(), "{case}");
            // Of these the bytes are in no memory of the process that could be read. Where system calls are looked at from
            // their beginning, several messages are.
            let by_calls = chosen.tier == Tier::Syscalls;
            let gap = match (outcome.send, outcome.receive) {
                (Send::Sendfile, _) => Some((&outcome.sent, GapReason::Sendfile)),
                (Send::Splice, _) => Some((&outcome.sent, GapReason::Splice)),
                (Send::SendMmsg(2), _) if !by_calls => Some((&outcome.sent, GapReason::Messages)),
                (_, Receive::RecvMmsg(2)) if !by_calls => Some((&outcome.received, GapReason::Messages)),
                (_, Receive::Truncate) => Some((&outcome.received, GapReason::Truncated)),
                (_, Receive::Splice) => {
                    assert_eq!(outcome.received.captured, 0, "{case}");
                    continue;
                }
                _ => None,
            };
            match gap {
                Some((side, reason)) => assert!(side.gaps[reason as usize] > 0, "{case}"),
                None => assert!(outcome.is_exact(), "{case}"),
            }
        }
    }
}
