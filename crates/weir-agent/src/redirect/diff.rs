//! What changes between two sets of rules, in the words of the rules file.
//!
//! A rule is a list of `key: value` lines. Those that only the old one has and those that only the new one has are the
//! change; keys with the usual value are left out.

use std::{fmt, time::Duration};

use weir_api::proxy::{Change, RuleDiff, RulesDiff};
use weir_datapath::redirect::{OnEmpty, OnFull, PortPolicy};

use super::{
    document::TimeoutsDocument,
    rules::{Check, Pair, Rule, RuleSet, unlike},
    text::ListenerText,
};
use crate::units::parse_duration;

/// Compares two sets of rules.
pub fn diff(old: &RuleSet, new: &RuleSet) -> RulesDiff {
    diff_of(&unlike(old, new))
}

/// What was changed, in words.
pub fn diff_of(changed: &[Pair<'_>]) -> RulesDiff {
    let mut rules = Vec::new();
    for &(before, after) in changed {
        if before == after {
            continue;
        }
        let Some(name) = before.or(after).map(|rule| &rule.name) else { continue };
        let change = match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        let before = before.map(|rule| lines(rule)).unwrap_or_default();
        let after = after.map(|rule| lines(rule)).unwrap_or_default();
        let without = |lines: &[String], others: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !others.contains(line)).cloned().collect()
        };
        let (removed, added) = (without(&before, &after), without(&after, &before));
        rules.push(RuleDiff { name: name.to_string(), change, removed, added });
    }
    RulesDiff { rules }
}

/// A rule as lines of `key: value`, without what goes without saying.
pub fn lines(rule: &Rule) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: &dyn fmt::Display| lines.push(format!("{key}: {value}"));
    rule.listeners.iter().for_each(|listener| line("listen", &ListenerText(*listener)));
    rule.backends.iter().for_each(|backend| line("backend", backend));
    rule.services.iter().for_each(|service| line("backend", service));
    let health = &rule.health;
    if health.check != Check::None {
        line("health", &health.check);
        health.port.iter().for_each(|port| line("health_port", port));
        line("health_interval", &length(health.interval));
        line("health_timeout", &length(health.timeout));
        line("rise", &health.rise);
        line("fall", &health.fall);
    }
    rule.affinity.iter().for_each(|affinity| line("affinity", &length(*affinity)));
    match rule.on_empty {
        OnEmpty::Reset => {}
        OnEmpty::Drop => line("on_empty", &"drop"),
        OnEmpty::Pass => line("on_empty", &"pass"),
    }
    if rule.on_full == OnFull::Pass {
        line("on_full", &"pass");
    }
    match rule.ports {
        PortPolicy::OnCollision => {}
        PortPolicy::Preserve => line("port_policy", &"preserve"),
        PortPolicy::Always => line("port_policy", &"always"),
    }
    let (timeouts, usual) = (&rule.timeouts, TimeoutsDocument::default());
    for (key, value, usual) in [
        ("timeouts.syn", timeouts.syn, &usual.syn),
        ("timeouts.established", timeouts.established, &usual.established),
        ("timeouts.closing", timeouts.closing, &usual.closing),
        ("timeouts.udp", timeouts.udp, &usual.udp),
        ("timeouts.udp_unreplied", timeouts.udp_unreplied, &usual.udp_unreplied),
    ] {
        if parse_duration(usual.as_str()) != Ok(value) {
            line(key, &length(value));
        }
    }
    rule.new_per_second.iter().for_each(|rate| line("new_per_second", rate));
    if rule.drain_timeout != Duration::from_mins(5) {
        line("drain_timeout", &length(rule.drain_timeout));
    }
    if rule.is_drained {
        line("drain", &true);
    }
    lines
}

/// A length of time in the largest unit that leaves no fraction.
pub fn length(length: Duration) -> String {
    let milliseconds = length.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if milliseconds > 0 && milliseconds.is_multiple_of(unit) {
            return format!("{}{name}", milliseconds / unit);
        }
    }
    format!("{milliseconds}ms")
}
