//! The tables of backends in maps that are nearly full.

use weir_datapath::redirect::{BackendId, BackendState, Desired, RedirectError, RuleState};
use weir_integration::redirecting::rule;

use super::*;

/// Rules that fit if each has a table of this length: 160 of 1024 chunks of 16 entries.
const FITS: u32 = 160;
const LENGTH: usize = 16_381;

/// So many rules with three backends each and tables of this length. Backends of one number are down, the table does
/// without them.
fn shared(rules: u32, length: usize, down: Option<u32>) -> Desired {
    let mut desired = Desired::default();
    for number in 1..=rules {
        let ids: Vec<u32> = (0..3).map(|place| (number - 1) * 3 + place + 1).collect();
        let used: Vec<BackendId> = (0..3_u32)
            .zip(&ids)
            .filter(|(place, _)| Some(*place) != down)
            .map(|(_, id)| BackendId(*id))
            .collect();
        let port = u16::try_from(number).expect("there are not so many");
        let listen = SocketAddr::new("10.0.0.10".parse().expect("it works in a test"), port);
        let table = (0..length).map(|place| used[place % used.len()]).collect();
        desired.rules.push(RuleState { table, ..rule(number, Transport::Tcp, listen, &[]) });
        desired.backends.extend((0..3_u32).zip(ids).map(|(place, id)| {
            let address = SocketAddr::new([10, 0, 1, u8::try_from(place).expect("three")].into(), port);
            let standing = if Some(place) == down { Standing::Draining } else { Standing::Up };
            BackendState { standing, ..backend(id, number, address) }
        }));
    }
    desired
}

/// Publishes, and reads back from the kernel what another process would find.
fn publish(redirect: &mut Redirect, file_system: &BpfFileSystem, desired: &Desired, changed: u64) {
    assert_eq!(redirect.publish(desired).expect("it fits").rules_changed, changed);
    let read = Redirect::peek(&file_system.root()).expect("it can be read").expect("it is there");
    assert!(read.published().expect("it can be read") == *desired, "the kernel has something else");
}

#[test]
fn a_backend_that_all_rules_share_goes_down_however_full_the_tables_are() {
    if !require_root() {
        return;
    }
    let file_system = BpfFileSystem::new();
    Namespace::new().run(|| {
        let (mut redirect, _) = file_system.open(64);
        // More than half of the room, then all of it.
        for rules in [100, FITS] {
            let all = shared(rules, LENGTH, None);
            redirect.publish(&all).unwrap();
            for down in [Some(1), Some(2), None] {
                publish(&mut redirect, &file_system, &shared(rules, LENGTH, down), rules.into());
            }
        }
        // One too many: nothing changes, not even the backend that goes down in the same change.
        let before = redirect.published().unwrap();
        let error = redirect.publish(&shared(FITS + 1, LENGTH, Some(0))).unwrap_err();
        assert!(matches!(error, RedirectError::Tables { wanted: 16_384, free: 0 }), "{error}");
        assert!(redirect.published().unwrap() == before);

        // All are shortened where they are, and grow again there.
        publish(&mut redirect, &file_system, &shared(FITS, 251, None), FITS.into());
        publish(&mut redirect, &file_system, &shared(FITS, LENGTH, None), FITS.into());

        // One half gives up what the other half needs: that takes a round of waiting.
        for half in [0..80, 80..160] {
            let mut desired = shared(FITS, LENGTH, None);
            for rule in &mut desired.rules[half.clone()] {
                rule.table = [].into();
            }
            let changed = if half.start == 0 { FITS / 2 } else { FITS };
            publish(&mut redirect, &file_system, &desired, changed.into());
        }
        let packet = described(true, address("172.16.0.1:999"), address("10.0.0.10:80"), SYN);
        let outcome = run(redirect.program("weir_client_l2").unwrap(), &packet.frame(), 0);
        assert_eq!((outcome.verdict, outcome.frame[30..33].to_vec()), (NEXT, vec![10, 0, 1]));
    });
}

#[test]
fn a_long_table_finds_room_in_the_gaps_between_short_ones() {
    if !require_root() {
        return;
    }
    let file_system = BpfFileSystem::new();
    Namespace::new().run(|| {
        let (mut redirect, _) = file_system.open(64);
        // A quarter as long, four times as many: every second one goes.
        let mut desired = shared(4 * FITS, 4093, None);
        redirect.publish(&desired).unwrap();
        for rule in desired.rules.iter_mut().step_by(2) {
            rule.table = [].into();
        }
        publish(&mut redirect, &file_system, &desired, (2 * FITS).into());
        for number in 0..3 {
            let rule = &mut desired.rules[number * 2];
            let first = u32::try_from(number * 6).expect("three");
            rule.table = (0..LENGTH).map(|place| BackendId(first + [1, 2, 3][place % 3])).collect();
            publish(&mut redirect, &file_system, &desired, 1);
        }
    });
}
