use proptest::{collection::vec, prelude::*};
use weir_flow::WorkloadKind;

use super::*;

fn pod(uid: &str) -> Arc<Workload> {
    Arc::new(Workload {
        kind: WorkloadKind::Pod,
        namespace: None,
        name: uid.into(),
        uid: uid.into(),
        owner_kind: "Pod".into(),
        owner_name: uid.into(),
        node: None,
        labels: Box::default(),
    })
}

fn at(holdings: &Holdings, time: u64) -> Option<&str> {
    holdings.at(Wall(time)).map(|pod| &*pod.uid)
}

fn since(earliest: u64, sure: u64) -> Since {
    Since { earliest: Wall(earliest), sure: Wall(sure) }
}

#[test]
fn one_who_is_alone_has_the_address_from_the_earliest_moment() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("a"), since(5, 10));
    assert_eq!([4, 5, 1000].map(|time| at(&holdings, time)), [None, Some("a"), Some("a")]);
}

#[test]
fn a_reused_address_belongs_to_each_in_its_time() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("a"), since(5, 6));
    holdings.release("a", Wall(20));
    holdings.claim(&pod("b"), since(15, 30));
    let times = [5, 19, 20, 29, 30, 99];
    assert_eq!(times.map(|time| at(&holdings, time).unwrap()), ["a", "a", "b", "b", "b", "b"]);
}

#[test]
fn a_new_holder_ends_the_old_one_even_if_nobody_said_that_it_is_gone() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("a"), since(5, 6));
    holdings.claim(&pod("b"), since(8, 30));
    assert_eq!([29, 30].map(|time| at(&holdings, time).unwrap()), ["a", "b"]);
    // The news of the end come late and change nothing.
    holdings.release("a", Wall(50));
    assert_eq!([29, 30, 49, 51].map(|time| at(&holdings, time).unwrap()), ["a", "b", "b", "b"]);
}

#[test]
fn news_of_an_older_one_do_not_take_the_address_from_the_newer_one() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("b"), Since::exactly(Wall(30)));
    holdings.claim(&pod("a"), Since::exactly(Wall(10)));
    assert_eq!([10, 29, 30, 99].map(|time| at(&holdings, time).unwrap()), ["a", "a", "b", "b"]);
}

#[test]
fn the_end_is_told_as_it_was_and_nobody_has_the_address_then() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("a"), Since::exactly(Wall(10)));
    holdings.release("a", Wall(20));
    assert_eq!([19, 20].map(|time| at(&holdings, time)), [Some("a"), None]);
    holdings.forget(Wall(19));
    assert_eq!(at(&holdings, 15), Some("a"));
    holdings.forget(Wall(20));
    assert!(holdings.is_empty());
}

#[test]
fn one_who_is_described_anew_keeps_the_beginning() {
    let mut holdings = Holdings::default();
    holdings.claim(&pod("a"), Since::exactly(Wall(10)));
    let mut renamed = (*pod("a")).clone();
    renamed.owner_name = "web".into();
    holdings.claim(&Arc::new(renamed), Since::exactly(Wall(50)));
    assert_eq!(holdings.at(Wall(10)).map(|pod| &*pod.owner_name), Some("web"));
}

#[derive(Clone, Debug)]
enum Step {
    Claim { who: usize, earliest: u64, later: u64 },
    Release { who: usize, at: u64 },
    Forget { horizon: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_usize, 0..100_u64, 0..20_u64).prop_map(|(who, earliest, later)| Step::Claim { who, earliest, later }),
        3 => (0..6_usize, 0..120_u64).prop_map(|(who, at)| Step::Release { who, at }),
        1 => (0..100_u64).prop_map(|horizon| Step::Forget { horizon }),
    ]
}

proptest! {
    #[test]
    fn intervals_never_overlap_whatever_is_said_in_whatever_order(steps in vec(step(), 0..40)) {
        let pods: Vec<_> = (0..6).map(|who| pod(&format!("pod-{who}"))).collect();
        let mut holdings = Holdings::default();
        for step in steps {
            match step {
                Step::Claim { who, earliest, later } => holdings.claim(&pods[who], since(earliest, earliest + later)),
                Step::Release { who, at } => holdings.release(&pods[who].uid, Wall(at)),
                Step::Forget { horizon } => holdings.forget(Wall(horizon)),
            }
            for (index, holding) in holdings.0.iter().enumerate() {
                prop_assert!(holding.from <= holding.until);
                if let Some(next) = holdings.0.get(index + 1) {
                    prop_assert!(holding.until <= next.from, "{holdings:?}");
                }
            }
        }
    }

    /// The life of one address as it really is: one pod after the other, each with a gap after it, and what is said
    /// of them arrives late, but in the order in which a watch delivers it.
    #[test]
    fn a_flow_never_gets_a_pod_that_did_not_have_the_address(
        lives in vec((1..50_u64, 0..10_u64, 1..20_u64, any::<bool>()), 1..8),
        flows in vec(0..400_u64, 1..50),
    ) {
        let mut holdings = Holdings::default();
        let mut time = 0;
        let mut truth = Vec::new();
        for (index, (life, start_up, gap, is_end_told)) in lives.into_iter().enumerate() {
            let uid = format!("pod-{index}");
            // It is accepted by its node, gets the address after a while, and loses it again.
            let (earliest, from) = (time, time + start_up);
            let until = from + life;
            time = until + gap;
            holdings.claim(&pod(&uid), since(earliest, from));
            if is_end_told {
                holdings.release(&uid, Wall(until));
            }
            truth.push((uid, earliest, until, is_end_told, time));
        }
        for flow in flows {
            if let Some(found) = at(&holdings, flow) {
                let (_, earliest, until, is_end_told, next) =
                    truth.iter().find(|(uid, ..)| uid == found).expect("only these were there");
                // Without news of the end it may be assumed until somebody else is known to have the address.
                let last = truth.last().is_some_and(|(uid, ..)| uid == found);
                let end = if *is_end_told { *until } else if last { u64::MAX } else { *next + 10 };
                prop_assert!((*earliest..end).contains(&flow), "{found} at {flow}: {truth:?}");
            }
            // Nobody else has it while one surely has it.
            for (uid, earliest, until, ..) in &truth {
                if (earliest + 10..*until).contains(&flow) {
                    prop_assert_eq!(at(&holdings, flow), Some(&**uid));
                }
            }
        }
    }
}
