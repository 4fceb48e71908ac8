//! A filter looks at the other end of each datagram where the socket has none of its own: what it does not mean is never told.

use std::thread;

use weir_datapath::tap::{Settings, Tier, Totals, Way};
use weir_integration::tapping::{
    Recorder, alone,
    datagrams::Named,
    peers::{self, By, CANARY, Family, Stage, WANTED, check},
    tier,
};

fn is_balanced(totals: &Totals) -> bool {
    totals.sent.is_balanced() && totals.received.is_balanced()
}

#[test]
fn what_goes_to_others_or_comes_from_them_is_never_told() {
    let Some(_alone) = alone() else { return };
    let families = [Family::V4, Family::V6, Family::Mapped];
    let cases = families.map(|family| [(family, By::Host), (family, By::Port)]).concat();
    for tier in [tier(), Some(Tier::Syscalls)] {
        peers::what_goes_to_others_or_comes_from_them_is_never_told(tier, &cases);
    }
}

#[test]
fn a_datagram_whose_other_end_nobody_tells_is_not_meant_and_counted() {
    let Some(_alone) = alone() else { return };
    for tier in [tier(), Some(Tier::Syscalls)] {
        let stage = Stage::new(Family::V4);
        let settings = Settings { tier, ..Settings::default() };
        let Some(recorder) = Recorder::open(&settings, &[stage.by_host()]) else { return };
        // The kernel is asked about one that is only looked at, and not about the one that is taken.
        for _ in 0..2 {
            stage.wanted.send(WANTED).expect("loopback works");
        }
        stage.own.peek_from(&mut [0; 64]).expect("loopback works");
        for _ in 0..2 {
            stage.own.recv(&mut [0; 64]).expect("loopback works");
        }
        let mut nameless = 2;
        // Messages that are not counted cannot be told apart.
        Named::Messages.send(&stage.own, &[(stage.to[0], WANTED), (stage.to[1], CANARY)]);
        let mut count = 1;
        if recorder.chosen.tier != Tier::Syscalls {
            nameless += 2;
            count = 0;
        }
        let (told, totals) = recorder.close();
        let sent = told.values().flat_map(|told| told.side(Way::Sent)).count();
        let received = told.values().flat_map(|told| told.side(Way::Received)).count();
        assert_eq!((sent, received, totals.nameless), (count, 0, nameless), "{tier:?}");
        assert!(is_balanced(&totals), "{totals:?}");
    }
}

#[test]
fn threads_that_share_a_socket_do_not_take_the_ends_of_each_other() {
    const EACH: usize = 3000;
    let Some(_alone) = alone() else { return };
    for tier in [tier(), Some(Tier::Syscalls)] {
        let stage = Stage::new(Family::V4);
        let settings = Settings { tier, ring: 64 << 20, ..Settings::default() };
        let Some(recorder) = Recorder::open(&settings, &[stage.by_host()]) else { return };
        thread::scope(|scope| {
            for (socket, bytes, to) in
                [(&stage.wanted, WANTED, stage.to[0]), (&stage.other, CANARY, stage.to[1])]
            {
                let own = &stage.own;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        // One after another, so that none finds the queue full.
                        own.send_to(bytes, to).expect("loopback works");
                        socket.recv(&mut [0; 64]).expect("loopback works");
                        socket.send(bytes).expect("loopback works");
                        own.recv_from(&mut [0; 64]).expect("loopback works");
                    }
                });
            }
        });
        let (told, totals) = recorder.close();
        check(&told, stage.id, stage.meant(), EACH, &format!("{tier:?}"));
        assert!(is_balanced(&totals), "{totals:?}");
        assert_eq!(totals.nameless, 0, "{tier:?}");
    }
}
