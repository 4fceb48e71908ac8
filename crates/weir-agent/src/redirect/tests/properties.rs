//! What holds whatever happens, in whatever order.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use weir_datapath::redirect::{BackendId, Desired, Standing};

use super::rules;
use crate::redirect::{engine::Engine, health::Target, text::parse_listener};

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Replace(Vec<(u8, Vec<u8>)>),
    Check(u8, u8, bool),
    Drain(u8, u8, bool),
    Weigh(u8, u8, u16),
    Wait(u16, bool),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let backends = prop::collection::btree_set(0u8..5, 0..4).prop_map(|set| set.into_iter().collect());
    let all = prop::collection::btree_map(0u8..4, backends, 0..4).prop_map(|map| map.into_iter().collect());
    prop_oneof![
        all.prop_map(Event::Replace),
        (0u8..4, 0u8..5, any::<bool>()).prop_map(|(rule, backend, is_up)| Event::Check(rule, backend, is_up)),
        (0u8..4, 0u8..5, any::<bool>()).prop_map(|(rule, backend, on)| Event::Drain(rule, backend, on)),
        (0u8..4, 0u8..5, 0u16..4).prop_map(|(rule, backend, weight)| Event::Weigh(rule, backend, weight)),
        (0u16..400, any::<bool>()).prop_map(|(seconds, is_busy)| Event::Wait(seconds, is_busy)),
        Just(Event::Restart),
    ]
}

fn file(rules: &[(u8, Vec<u8>)]) -> String {
    let mut text = String::from("rules:\n");
    for (rule, backends) in rules {
        let transport = if rule % 2 == 0 { "tcp" } else { "udp" };
        let backends: Vec<String> = backends.iter().map(|backend| format!("10.1.0.{backend}:80")).collect();
        let backends = backends.join(", ");
        let health = "health: tcp, rise: 1, fall: 1";
        writeln!(
            text,
            "  - {{name: r{rule}, listen: [{transport}:10.0.0.{rule}:80], backends: [{backends}], {health}}}"
        )
        .expect("a string takes any text");
    }
    if rules.is_empty() { String::new() } else { text }
}

fn target(rule: u8, backend: u8) -> Target {
    Target { rule: format!("r{rule}").into(), backend: ([10, 1, 0, backend], 80).into() }
}

/// No number twice; tables lead to backends of the same rule that are up.
fn is_sound(desired: &Desired) -> Result<(), TestCaseError> {
    let mut backends: BTreeMap<BackendId, _> = BTreeMap::new();
    for backend in &desired.backends {
        prop_assert!(backends.insert(backend.id, backend).is_none(), "{:?} is there twice", backend.id);
    }
    for (index, rule) in desired.rules.iter().enumerate() {
        prop_assert!(desired.rules[..index].iter().all(|other| other.id != rule.id));
        prop_assert!(desired.rules[..index].iter().all(|other| other.listener != rule.listener));
        for place in rule.table.iter() {
            let backend = backends.get(place).expect("tables name backends that are there");
            prop_assert_eq!((backend.rule, backend.standing), (rule.id, Standing::Up));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_the_wanted_state_is_sound(events in prop::collection::vec(event(), 1..25)) {
        let mut now = Instant::now();
        let mut engine = Engine::new(&Desired::default());
        let mut current = Vec::new();
        for event in events {
            let before = engine.desired();
            match event {
                Event::Replace(wanted) => {
                    engine.replace(rules(&file(&wanted)).rules, now);
                    current = wanted;
                }
                Event::Check(rule, backend, is_up) => {
                    let outcome = if is_up { Ok(()) } else { Err("no".to_owned()) };
                    engine.observe(&target(rule, backend), outcome);
                }
                Event::Drain(rule, backend, on) => {
                    engine.drain(&target(rule, backend), on);
                }
                Event::Weigh(rule, backend, weight) => {
                    engine.weigh(&target(rule, backend), weight);
                }
                Event::Wait(seconds, is_busy) => {
                    now += Duration::from_secs(u64::from(seconds));
                    engine.tick(now, |_| u64::from(is_busy));
                }
                Event::Restart => {
                    let (rules, orders) = (engine.rules().clone(), engine.orders().clone());
                    engine = Engine::new(&before);
                    engine.replace(rules, now);
                    engine.restore(orders);
                }
            }
            let desired = engine.desired();
            is_sound(&desired)?;
            // Who was there and still is keeps its number.
            for backend in &desired.backends {
                let same = |it: &&_| { let it: &weir_datapath::redirect::BackendState = it; it.rule == backend.rule && it.address == backend.address };
                if let Some(old) = before.backends.iter().find(same) {
                    prop_assert_eq!(old.id, backend.id);
                }
            }
            for (rule, _) in &current {
                let listener = desired.rules.iter().find(|it| engine.owner(it.id).is_some_and(|name| **name == *format!("r{rule}")));
                prop_assert!(listener.is_some(), "every rule is published");
            }
        }
        // With nobody left and time gone by, nothing stays behind.
        engine.replace(rules("").rules, now);
        engine.tick(now + Duration::from_hours(1), |_| 0);
        prop_assert_eq!(engine.desired(), Desired::default());
    }

    #[test]
    fn reading_never_panics(text in "\\PC{0,60}") {
        drop(parse_listener(&text));
        drop(crate::redirect::text::parse_backend(&text));
        drop(crate::redirect::text::parse_tuple(&text));
        drop(crate::redirect::text::parse_check(&text));
    }
}
