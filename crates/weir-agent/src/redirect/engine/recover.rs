//! Rules from what the kernel has, for when the file that names them was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use weir_datapath::redirect::{BackendId, Desired, RuleState, Standing};

use crate::redirect::rules::{Backend, Check, Health, Rule, RuleSet};

/// The rules that the kernel has and that are not leaving. Their names are made up, and checks are unknown: backends
/// count as up, except those that drain.
pub fn recovered(published: &Desired) -> RuleSet {
    published
        .rules
        .iter()
        .filter_map(|state| {
            let rule = recover(state, published)?;
            Some((Arc::clone(&rule.name), Arc::new(rule)))
        })
        .collect()
}

/// Rules with services as the kernel has them: with the backends that there are at their listeners.
pub fn in_effect(published: &Desired, rules: &RuleSet) -> RuleSet {
    let with_services = rules.values().filter(|rule| !rule.services.is_empty());
    with_services
        .map(|rule| {
            let mut of_listener =
                published.rules.iter().filter(|state| rule.listeners.contains(&state.listener));
            let known = of_listener.find_map(|state| recover(state, published));
            let backends = known.map(|known| known.backends).unwrap_or_default();
            (Arc::clone(&rule.name), Arc::new(Rule { backends, ..Rule::clone(rule) }))
        })
        .collect()
}

fn recover(state: &RuleState, published: &Desired) -> Option<Rule> {
    let weights = weights(&state.table);
    let of_rule = published.backends.iter().filter(|backend| backend.rule == state.id);
    let mut seen = BTreeSet::new();
    let backends: Vec<Backend> = of_rule
        .filter(|backend| backend.standing != Standing::Gone && seen.insert(backend.address))
        .map(|backend| Backend {
            address: backend.address,
            weight: weights.get(&backend.id).copied().unwrap_or(1),
            is_drained: backend.standing == Standing::Draining,
        })
        .collect();
    // Nobody can take anything: the rule was on its way out, or as good as.
    if state.table.is_empty() {
        return None;
    }
    Some(Rule {
        name: format!("recovered-{}", state.id.0).into(),
        listeners: vec![state.listener],
        backends,
        services: Vec::new(),
        health: Health {
            check: Check::None,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        },
        affinity: state.affinity,
        on_empty: state.on_empty,
        on_full: state.on_full,
        ports: state.ports,
        timeouts: state.timeouts,
        new_per_second: state.new_per_second,
        drain_timeout: Duration::from_mins(5),
        is_drained: false,
    })
}

/// Weights that lead to about the same shares, the smallest share being 1.
fn weights(table: &[BackendId]) -> BTreeMap<BackendId, u16> {
    let mut shares: BTreeMap<BackendId, usize> = BTreeMap::new();
    for id in table {
        *shares.entry(*id).or_default() += 1;
    }
    let least = shares.values().copied().min().unwrap_or(1);
    let weight = |share: usize| u16::try_from((share + least / 2) / least).unwrap_or(u16::MAX);
    shares.into_iter().map(|(id, share)| (id, weight(share).clamp(1, 256))).collect()
}
