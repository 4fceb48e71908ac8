//! Whether what is wanted can be had, and what the kernel looks rules up by. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use weir_common::redirect::{ListenerKey, MOST_RANGES, PortRange, PrefixKey, PrefixValue};

use super::{
    desired::{BackendId, BackendState, Desired, Listener, Prefix, RuleId, RuleState, Transport},
    error::RedirectError,
    words::{listener_key, prefix_key},
};

/// How rules are found.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Lookup {
    /// Listeners of one address, and one port or all.
    pub(super) listeners: HashMap<ListenerKey, RuleId>,
    /// Every prefix, with the ranges that hold there.
    pub(super) prefixes: HashMap<(u32, PrefixKey), PrefixValue>,
}

/// Everything that is wanted, by number, and what of it is not what it was.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Wanted {
    pub(super) rules: BTreeMap<RuleId, RuleState>,
    pub(super) backends: BTreeMap<BackendId, BackendState>,
    /// Rules that are new or other than before, and those that are gone.
    pub(super) rule_changes: Changes<RuleId>,
    /// The same of backends.
    pub(super) backend_changes: Changes<BackendId>,
    /// `None` if listeners are what they were, and the kernel has all of them.
    pub(super) lookup: Option<Lookup>,
}

/// What is not what it was.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Changes<K> {
    /// New, or other than before.
    pub(super) changed: Vec<K>,
    /// Not there any more.
    pub(super) gone: Vec<K>,
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self { changed: Vec::new(), gone: Vec::new() }
    }
}

impl<K: Copy + Ord> Changes<K> {
    /// Compares both in one pass.
    fn between<V>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>, is_same: impl Fn(&V, &V) -> bool) -> Self {
        let mut changes = Self::default();
        let mut before = before.iter().peekable();
        for (key, value) in now {
            while let Some((gone, _)) = before.next_if(|(other, _)| *other < key) {
                changes.gone.push(*gone);
            }
            let there = before.next_if(|(other, _)| *other == key);
            if !there.is_some_and(|(_, there)| is_same(there, value)) {
                changes.changed.push(*key);
            }
        }
        changes.gone.extend(before.map(|(gone, _)| *gone));
        changes
    }
}

/// What is published.
pub(super) struct Before<'a> {
    pub(super) rules: &'a BTreeMap<RuleId, RuleState>,
    pub(super) backends: &'a BTreeMap<BackendId, BackendState>,
    /// Whether what belongs to it is, too.
    pub(super) is_whole: bool,
}

impl Wanted {
    /// Checks everything that is not as before, which is known to be right.
    pub(super) fn new(desired: &Desired, before: &Before<'_>) -> Result<Self, RedirectError> {
        let Before { rules: rules_before, backends: backends_before, is_whole } = *before;
        let wanted_rules = desired.rules.iter().map(|rule| {
            let mut rule = rule.clone();
            rule.listener.prefix = normal(rule.listener.prefix);
            (rule.id, rule)
        });
        let rules: BTreeMap<RuleId, RuleState> = wanted_rules.collect();
        check_twice(rules.len(), desired.rules.iter().map(|rule| rule.id.0))?;
        let backends: BTreeMap<BackendId, BackendState> =
            desired.backends.iter().map(|backend| (backend.id, *backend)).collect();
        check_twice(backends.len(), desired.backends.iter().map(|backend| backend.id.0))?;
        let rule_changes = Changes::between(rules_before, &rules, is_same);
        let backend_changes = Changes::between(backends_before, &backends, |before, now| before == now);

        if let Some(id) = rule_changes.changed.iter().find(|id| id.0 == 0 || **id > RuleId::LAST) {
            return Err(RedirectError::RuleNumber(*id));
        }
        for id in &backend_changes.changed {
            if id.0 == 0 || *id > BackendId::LAST {
                return Err(RedirectError::BackendNumber(*id));
            }
            let backend = &backends[id];
            let before = backends_before.get(id);
            if before.is_some_and(|before| before.address != backend.address || before.rule != backend.rule) {
                return Err(RedirectError::BackendChanged(*id));
            }
        }
        check_backends(&rules, &backends, &rule_changes.changed, &backend_changes, backends_before)?;
        let listens_elsewhere =
            |id| rules_before.get(id).map(|rule| rule.listener) != Some(rules[id].listener);
        let is_looked_up_anew =
            !is_whole || !rule_changes.gone.is_empty() || rule_changes.changed.iter().any(listens_elsewhere);
        let lookup = if is_looked_up_anew { Some(Lookup::new(&rules)?) } else { None };
        Ok(Self { rules, backends, rule_changes, backend_changes, lookup })
    }
}

/// Fails if a number is there twice; so many different ones there are.
fn check_twice(different: usize, numbers: impl ExactSizeIterator<Item = u32>) -> Result<(), RedirectError> {
    if numbers.len() == different {
        return Ok(());
    }
    let mut seen = HashSet::new();
    numbers
        .into_iter()
        .find(|number| !seen.insert(*number))
        .map_or(Ok(()), |twice| Err(RedirectError::Twice(twice)))
}

/// Fails if a table that is new, or that lost a backend, names one that is not of its rule, or if one is of another family.
fn check_backends(
    rules: &BTreeMap<RuleId, RuleState>,
    backends: &BTreeMap<BackendId, BackendState>,
    changed_rules: &[RuleId],
    changes: &Changes<BackendId>,
    backends_before: &BTreeMap<BackendId, BackendState>,
) -> Result<(), RedirectError> {
    let is_of_family = |rule: &RuleState, backend: &BackendState| {
        rule.listener.prefix.address.is_ipv4() == backend.address.is_ipv4()
    };
    for backend in changes.changed.iter().map(|id| &backends[id]) {
        if rules.get(&backend.rule).is_some_and(|rule| !is_of_family(rule, backend)) {
            return Err(RedirectError::Family { rule: backend.rule, backend: backend.id });
        }
    }
    let that_lost = changes.gone.iter().filter_map(|id| backends_before.get(id)).map(|backend| backend.rule);
    let touched: BTreeSet<RuleId> = changed_rules.iter().copied().chain(that_lost).collect();
    for rule in touched.iter().filter_map(|id| rules.get(id)) {
        let named: BTreeSet<BackendId> = rule.table.iter().copied().collect();
        for id in named {
            match backends.get(&id).filter(|backend| backend.rule == rule.id) {
                None => return Err(RedirectError::NotItsBackend { rule: rule.id, backend: id }),
                Some(backend) if !is_of_family(rule, backend) => {
                    return Err(RedirectError::Family { rule: rule.id, backend: id });
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Whether a rule is what it was. Tables that are the same memory need not be compared.
fn is_same(before: &RuleState, now: &RuleState) -> bool {
    if !Arc::ptr_eq(&before.table, &now.table) {
        return before == now;
    }
    let RuleState { id, listener, table: _, affinity, on_empty, on_full, ports, timeouts, new_per_second } =
        now;
    (before.id, &before.listener, &before.affinity, before.on_empty) == (*id, listener, affinity, *on_empty)
        && (before.on_full, before.ports, &before.timeouts) == (*on_full, *ports, timeouts)
        && before.new_per_second == *new_per_second
}

impl Lookup {
    fn new(rules: &BTreeMap<RuleId, RuleState>) -> Result<Self, RedirectError> {
        let mut lookup = Self::default();
        let mut by_prefix: HashMap<(Transport, Prefix), Vec<(Listener, RuleId)>> = HashMap::new();
        for rule in rules.values() {
            let listener = rule.listener;
            if is_simple(&listener) && lookup.listeners.insert(listener_key(&listener), rule.id).is_some() {
                let other = rules.values().find(|other| other.listener == listener);
                return Err(RedirectError::Overlap(other.map_or(rule.id, |other| other.id), rule.id));
            }
            by_prefix.entry((listener.transport, listener.prefix)).or_default().push((listener, rule.id));
        }
        let lengths: BTreeSet<u8> = by_prefix.keys().map(|(_, prefix)| prefix.length).collect();
        for (transport, prefix) in by_prefix.keys() {
            let mut value = PrefixValue::default();
            let mut ranges: Vec<(Listener, RuleId)> = Vec::new();
            // What shorter prefixes that cover this one have holds here too.
            for length in lengths.range(..=prefix.length) {
                let covering = normal(Prefix { address: prefix.address, length: *length });
                if let Some(there) = by_prefix.get(&(*transport, covering)) {
                    ranges.extend(there);
                }
            }
            check_overlap(&ranges)?;
            let ranges = ranges.iter().filter(|(listener, _)| !is_simple(listener));
            for (place, (listener, rule)) in ranges.enumerate() {
                let Some(range) = value.ranges.get_mut(place) else {
                    return Err(RedirectError::TooManyRanges { rule: *rule, most: MOST_RANGES });
                };
                *range = PortRange { first: listener.ports.first, last: listener.ports.last, rule: rule.0 };
            }
            lookup.prefixes.insert(prefix_key(*transport, *prefix), value);
        }
        Ok(lookup)
    }
}

/// Fails if two of the listeners, all of which hold at one place, have a port in common.
fn check_overlap(listeners: &[(Listener, RuleId)]) -> Result<(), RedirectError> {
    let mut sorted: Vec<&(Listener, RuleId)> = listeners.iter().collect();
    sorted.sort_by_key(|(listener, _)| (listener.ports.first, listener.ports.last));
    for pair in sorted.windows(2) {
        let [(first, rule), (second, other)] = pair else { continue };
        if second.ports.first <= first.ports.last {
            return Err(RedirectError::Overlap(*rule, *other));
        }
    }
    Ok(())
}

/// Whether a listener is found by its address, and its port or none.
fn is_simple(listener: &Listener) -> bool {
    let full = if listener.prefix.address.is_ipv4() { 32 } else { 128 };
    let ports = listener.ports;
    listener.prefix.length >= full
        && (ports == super::desired::Ports::ALL || ports.first == ports.last && ports.first != 0)
}

/// A prefix with zeros behind its length.
fn normal(prefix: Prefix) -> Prefix {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match prefix.address {
        IpAddr::V4(address) => {
            let length = prefix.length.min(32);
            let mask = u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
            Prefix { address: IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask)), length }
        }
        IpAddr::V6(address) => {
            let length = prefix.length.min(128);
            let mask = u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0);
            Prefix { address: IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask)), length }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::redirect::{OnEmpty, OnFull, PortPolicy, Ports, Standing, Timeouts};

    fn rule(id: u32, address: &str, length: u8, first: u16, last: u16) -> RuleState {
        RuleState {
            id: RuleId(id),
            listener: Listener {
                transport: Transport::Tcp,
                prefix: Prefix { address: address.parse().unwrap(), length },
                ports: Ports { first, last },
            },
            table: [].into(),
            affinity: Some(Duration::from_secs(1)),
            on_empty: OnEmpty::Reset,
            on_full: OnFull::Drop,
            ports: PortPolicy::OnCollision,
            timeouts: Timeouts::default(),
            new_per_second: None,
        }
    }

    fn new(desired: &Desired, before: &Wanted) -> Result<Wanted, RedirectError> {
        Wanted::new(desired, &Before { rules: &before.rules, backends: &before.backends, is_whole: true })
    }

    fn check(rules: &[RuleState]) -> Result<Wanted, RedirectError> {
        new(&Desired { rules: rules.to_vec(), backends: Vec::new() }, &Wanted::default())
    }

    #[test]
    fn longer_prefixes_repeat_the_ranges_of_shorter_ones() {
        let wanted = check(&[
            rule(1, "10.0.0.0", 8, 443, 443),
            rule(2, "10.1.2.3", 16, 80, 90),
            rule(3, "10.1.2.3", 32, 8080, 8080),
        ])
        .unwrap();
        let lookup = wanted.lookup.as_ref().unwrap();
        let ranges = |prefix: &str, length| {
            let prefix = Prefix { address: prefix.parse().unwrap(), length };
            let value = lookup.prefixes[&prefix_key(Transport::Tcp, prefix)];
            let used = value.ranges.into_iter().filter(|range| range.rule != 0);
            used.map(|range| (range.first, range.last, range.rule)).collect::<Vec<_>>()
        };
        assert_eq!(ranges("10.0.0.0", 8), [(443, 443, 1)]);
        assert_eq!(ranges("10.1.0.0", 16), [(443, 443, 1), (80, 90, 2)]);
        assert_eq!(ranges("10.1.2.3", 32), [(443, 443, 1), (80, 90, 2)]);
        assert_eq!(lookup.listeners.len(), 1);
        let desired = Desired { rules: wanted.rules.values().cloned().collect(), backends: Vec::new() };
        let again = new(&desired, &wanted).unwrap();
        assert_eq!((again.lookup, again.rule_changes), (None, Changes::default()));
    }

    #[test]
    fn listeners_that_overlap_are_refused() {
        for (case, first, second) in [
            ("same", rule(1, "10.0.0.1", 32, 80, 80), rule(2, "10.0.0.1", 32, 80, 80)),
            ("all ports", rule(1, "10.0.0.1", 32, 0, 65535), rule(2, "10.0.0.1", 32, 80, 80)),
            ("range", rule(1, "10.0.0.1", 32, 70, 80), rule(2, "10.0.0.1", 32, 80, 90)),
            ("prefix", rule(1, "10.0.0.0", 8, 80, 80), rule(2, "10.0.0.1", 32, 80, 80)),
            ("all addresses", rule(1, "0.0.0.0", 0, 1, 100), rule(2, "10.0.0.0", 8, 100, 101)),
        ] {
            assert!(matches!(check(&[first, second]), Err(RedirectError::Overlap(..))), "{case}");
        }
        check(&[rule(1, "10.0.0.1", 32, 80, 80), rule(2, "10.0.0.2", 32, 80, 80)]).unwrap();
        check(&[rule(1, "::", 0, 80, 80), rule(2, "0.0.0.0", 0, 80, 80)]).unwrap();
    }

    #[test]
    fn numbers_and_backends_are_checked() {
        assert!(matches!(check(&[rule(0, "10.0.0.1", 32, 80, 80)]), Err(RedirectError::RuleNumber(_))));
        let one = rule(1, "10.0.0.1", 32, 80, 80);
        assert!(matches!(check(&[one.clone(), one.clone()]), Err(RedirectError::Twice(1))));
        let with_table = RuleState { table: [BackendId(5)].into(), ..one };
        assert!(matches!(check(std::slice::from_ref(&with_table)), Err(RedirectError::NotItsBackend { .. })));
        let backend = |rule, address: &str| BackendState {
            id: BackendId(5),
            rule: RuleId(rule),
            address: address.parse().unwrap(),
            standing: Standing::Up,
        };
        for (address, number, is_right) in
            [("10.0.0.9:80", 1, true), ("[::1]:80", 1, false), ("10.0.0.9:80", 2, false)]
        {
            let desired =
                Desired { rules: vec![with_table.clone()], backends: vec![backend(number, address)] };
            let wanted = new(&desired, &Wanted::default());
            assert_eq!(wanted.is_ok(), is_right, "{address} of rule {number}");
        }
    }
}
