//! What the kernel is told as rules, health and orders change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_datapath::redirect::{BackendId, Desired, OnEmpty, RuleState, Standing};

use super::rules;
use crate::redirect::{
    engine::{Engine, in_effect, recovered},
    health::{Target, Turn},
    text::{ListenerText, parse_backend_address},
};

fn target(rule: &str, backend: &str) -> Target {
    Target { rule: rule.into(), backend: parse_backend_address(backend).unwrap() }
}

/// One line per rule with the shares of its table, and one per backend.
fn shown(desired: &Desired) -> String {
    let share = |rule: &RuleState, id: BackendId| rule.table.iter().filter(|place| **place == id).count();
    let mut lines = Vec::new();
    for rule in &desired.rules {
        lines.push(format!("{} {} {:?}", rule.id.0, ListenerText(rule.listener), rule.on_empty));
        for backend in desired.backends.iter().filter(|backend| backend.rule == rule.id) {
            let (id, standing) = (backend.id.0, backend.standing);
            lines.push(format!("  {id} {} {standing:?} {}", backend.address, share(rule, backend.id)));
        }
    }
    let is_orphan = |rule| !desired.rules.iter().any(|it| it.id == rule);
    for backend in desired.backends.iter().filter(|backend| is_orphan(backend.rule)) {
        lines.push(format!("? {} {} {:?}", backend.id.0, backend.address, backend.standing));
    }
    lines.join("\n")
}

fn engine(text: &str, now: Instant) -> Engine {
    let mut engine = Engine::new(&Desired::default());
    engine.replace(rules(text).rules, now);
    engine
}

const TWO: &str = "rules: [{name: web, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:80, '10.1.0.2:80,weight=3'], health: tcp}]";
const ONE: &str = "rules: [{name: web, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:80], health: tcp}]";

#[test]
fn weights_are_shares() {
    let mut engine = engine(TWO, Instant::now());
    assert_eq!(
        shown(&engine.desired()),
        "1 tcp:10.0.0.10:80 Reset\n  1 10.1.0.1:80 Up 255\n  2 10.1.0.2:80 Up 766"
    );
}

#[test]
fn a_removed_backend_drains_then_ends_then_is_forgotten() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    engine.replace(rules(ONE).rules, start);
    let drains = "1 tcp:10.0.0.10:80 Reset\n  1 10.1.0.1:80 Up 1\n  2 10.1.0.2:80 Draining 0";
    assert_eq!(shown(&engine.desired()), drains);
    let busy = |_| 7;
    assert!(!engine.tick(start + Duration::from_secs(299), busy));
    assert!(engine.tick(start + Duration::from_mins(5), busy));
    assert_eq!(shown(&engine.desired()), drains.replace("Draining", "Gone"));
    assert!(!engine.tick(start + Duration::from_secs(330), busy));
    assert!(engine.tick(start + Duration::from_mins(6), busy));
    assert_eq!(shown(&engine.desired()), "1 tcp:10.0.0.10:80 Reset\n  1 10.1.0.1:80 Up 1");
}

#[test]
fn a_removed_backend_without_connections_is_forgotten_at_once() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    engine.replace(rules(ONE).rules, start);
    assert!(!engine.tick(start + Duration::from_secs(1), |_| 0), "something may be on its way");
    assert!(engine.tick(start + Duration::from_secs(2), |_| 0));
    assert_eq!(engine.desired().backends.len(), 1);
}

#[test]
fn a_backend_that_comes_back_in_time_is_the_same() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    let before = shown(&engine.desired());
    engine.replace(rules(ONE).rules, start);
    engine.tick(start + Duration::from_secs(10), |_| 1);
    engine.replace(rules(TWO).rules, start + Duration::from_secs(11));
    assert_eq!(shown(&engine.desired()), before);
    assert!(!engine.tick(start + Duration::from_secs(400), |_| 1));
}

#[test]
fn a_removed_rule_lets_new_connections_pass_while_old_ones_end() {
    let start = Instant::now();
    let mut engine = engine(ONE, start);
    engine.replace(rules("").rules, start);
    assert_eq!(shown(&engine.desired()), "1 tcp:10.0.0.10:80 Pass\n  1 10.1.0.1:80 Draining 0");
    engine.end_leaving(start);
    assert_eq!(shown(&engine.desired()), "1 tcp:10.0.0.10:80 Pass\n  1 10.1.0.1:80 Gone 0");
    assert!(engine.tick(start + Duration::from_secs(2), |_| 0));
    assert_eq!(shown(&engine.desired()), "");
}

#[test]
fn a_renamed_rule_keeps_its_numbers() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    let before = shown(&engine.desired());
    engine.replace(rules(&TWO.replace("web", "shop")).rules, start);
    assert_eq!(shown(&engine.desired()), before);
}

#[test]
fn a_wider_listener_takes_the_place_of_a_leaving_one() {
    let start = Instant::now();
    let mut engine = engine(ONE, start);
    engine.replace(
        rules(&ONE.replace(":80]", ":80-90]").replace("10.1.0.1:80-90", "10.1.0.1:80")).rules,
        start,
    );
    assert_eq!(
        shown(&engine.desired()),
        "2 tcp:10.0.0.10:80-90 Reset\n  2 10.1.0.1:80 Up 1\n? 1 10.1.0.1:80 Draining"
    );
}

#[test]
fn a_dead_backend_gets_nothing_new_and_udp_is_chosen_again() {
    let start = Instant::now();
    let mut tcp = engine(TWO, start);
    let dead = target("web", "10.1.0.1:80");
    assert_eq!(tcp.observe(&dead, Err("refused".to_owned())), Some(Turn::Down));
    assert_eq!(
        shown(&tcp.desired()),
        "1 tcp:10.0.0.10:80 Reset\n  1 10.1.0.1:80 Draining 0\n  2 10.1.0.2:80 Up 1"
    );
    assert_eq!(tcp.observe(&dead, Ok(())), None);
    assert_eq!(tcp.observe(&dead, Ok(())), Some(Turn::Up));
    let mut udp = engine(&TWO.replace("tcp:", "udp:"), start);
    udp.observe(&dead, Err("refused".to_owned()));
    assert_eq!(udp.desired().backends[0].standing, Standing::Gone);
}

#[test]
fn what_is_thought_of_a_backend_outlives_other_changes_of_its_rule() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    let dead = target("web", "10.1.0.1:80");
    engine.observe(&dead, Err("refused".to_owned()));
    engine.replace(rules(&TWO.replace("health: tcp", "health: tcp, affinity: 5m")).rules, start);
    assert_eq!(engine.desired().backends[0].standing, Standing::Draining);
    engine.replace(rules(&TWO.replace("health: tcp", "health: none")).rules, start);
    assert_eq!(engine.desired().backends[0].standing, Standing::Up);
}

#[test]
fn orders_outlive_the_file_and_a_changed_weight_is_the_last_word() {
    let start = Instant::now();
    let mut engine = engine(TWO, start);
    assert!(engine.drain(&target("web", "10.1.0.1:80"), true));
    assert!(engine.weigh(&target("web", "10.1.0.2:80"), 7));
    assert!(!engine.drain(&target("web", "10.9.9.9:80"), true));
    assert!(!engine.drain_rule("nobody", true));
    engine.replace(rules(&TWO.replace("health: tcp", "affinity: 5m")).rules, start);
    let orders = engine.orders().clone();
    assert_eq!((orders.drained.len(), orders.weights.len()), (1, 1));
    assert_eq!(engine.desired().backends[0].standing, Standing::Draining);
    engine.replace(rules(&TWO.replace("weight=3", "weight=4")).rules, start);
    assert!(engine.orders().weights.is_empty());
    engine.replace(rules("").rules, start);
    assert!(engine.orders().drained.is_empty(), "a rule that comes back begins anew");
}

#[test]
fn a_drained_rule_keeps_its_connections() {
    let mut engine = engine(TWO, Instant::now());
    assert!(engine.drain_rule("web", true));
    let desired = engine.desired();
    assert!(desired.rules[0].table.is_empty());
    assert_eq!(desired.rules[0].on_empty, OnEmpty::Reset);
    assert!(desired.backends.iter().all(|backend| backend.standing == Standing::Draining));
    assert!(engine.drain_rule("web", false));
    assert_eq!(engine.desired().rules[0].table.len(), 1021);
}

#[test]
fn a_restart_finds_the_same_numbers_and_the_dead_stay_dead() {
    let start = Instant::now();
    let mut first = engine(TWO, start);
    first.observe(&target("web", "10.1.0.1:80"), Err("refused".to_owned()));
    let before = first.desired();
    let mut second = Engine::new(&before);
    second.replace(rules(TWO).rules, start);
    assert_eq!(second.desired(), before);
    let mut third = Engine::new(&before);
    third.replace(rules("").rules, start);
    assert_eq!(shown(&third.desired()).matches("Draining").count(), 2);
}

#[test]
fn rules_can_be_recovered_from_the_kernel() {
    let start = Instant::now();
    let published = engine(&TWO.replace("health: tcp", "affinity: 5m, on_empty: drop"), start).desired();
    let recovered = recovered(&published);
    let rule = Arc::clone(&recovered["recovered-1"]);
    let backends: Vec<String> = rule.backends.iter().map(ToString::to_string).collect();
    assert_eq!(backends, ["10.1.0.1:80", "10.1.0.2:80,weight=3"]);
    let mut again = Engine::new(&published);
    again.replace(recovered, start);
    assert_eq!(again.desired().backends, published.backends);
}

#[test]
fn the_endpoints_of_a_service_are_found_in_the_kernel() {
    let start = Instant::now();
    let published = engine(&TWO.replace(", health: tcp", ""), start).desired();
    let text = TWO
        .replace("10.1.0.1:80, '10.1.0.2:80,weight=3'", "service:shop/web:80")
        .replace("health: tcp", "affinity: 5m");
    let written = rules(&text).rules;
    let known = in_effect(&published, &written);
    let backends: Vec<String> = known["web"].backends.iter().map(ToString::to_string).collect();
    assert_eq!(backends, ["10.1.0.1:80", "10.1.0.2:80,weight=3"]);
    assert_eq!(
        (known["web"].affinity, &known["web"].services),
        (written["web"].affinity, &written["web"].services)
    );
    assert!(in_effect(&Desired::default(), &written)["web"].backends.is_empty());
    assert!(in_effect(&published, &rules(TWO).rules).is_empty());
}
