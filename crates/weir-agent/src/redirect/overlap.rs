//! Which listeners share an address and a port.
//!
//! Prefixes contain each other or have nothing in common, so a listener can only meet those at its own prefix, at one
//! that contains it, or at one within it. Looking up each length that is in use finds the first two; the third is found
//! from the other side, by the order of addresses. Ten thousand listeners are judged in milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use weir_datapath::redirect::{Listener, Ports, Prefix, Transport};

use super::{
    rules::{Pair, Rule, RuleSet},
    text::masked,
};

/// A prefix of one transport and the first port of a range there, in an order in which what lies within a prefix comes
/// right behind it.
type Place = (Transport, IpAddr, u8, u16);

/// Listeners, and who owns them.
#[derive(Clone, Debug)]
pub(super) struct Listeners<O = Arc<str>> {
    /// The last port of each range, and whose it is.
    by_place: BTreeMap<Place, (u16, O)>,
    /// Lengths in use, by transport and family.
    lengths: BTreeSet<(Transport, bool, u8)>,
}

impl<O> Default for Listeners<O> {
    fn default() -> Self {
        Self { by_place: BTreeMap::new(), lengths: BTreeSet::new() }
    }
}

impl<O> Listeners<O> {
    /// Adds one. Whether it overlaps another is asked before; then the other stays the one that is found.
    pub(super) fn add(&mut self, listener: Listener, owner: O) {
        let Listener { transport, prefix, ports } = listener;
        let place = (transport, prefix.address, prefix.length, ports.first);
        self.by_place.entry(place).or_insert((ports.last, owner));
        self.lengths.insert((transport, prefix.address.is_ipv4(), prefix.length));
    }

    /// Removes one that was added. Its length stays in use, which costs a look where there is nothing.
    pub(super) fn remove(&mut self, listener: &Listener) {
        let Listener { transport, prefix, ports } = *listener;
        self.by_place.remove(&(transport, prefix.address, prefix.length, ports.first));
    }

    /// One that shares an address and a port with this, and who owns it.
    pub(super) fn overlapping(&self, listener: &Listener) -> Option<(Listener, &O)> {
        let Listener { transport, prefix, ports } = *listener;
        self.at_or_above(transport, prefix, ports).or_else(|| self.within(transport, prefix, ports))
    }

    /// One that would divert what goes to this backend, and who owns it. A backend without a port gets those that its
    /// own listeners have.
    pub(super) fn catching(
        &self,
        transport: Transport,
        address: SocketAddr,
        own: &[Listener],
    ) -> Option<(Listener, &O)> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let prefix = Prefix { address: address.ip(), length };
        if address.port() != 0 {
            let ports = Ports { first: address.port(), last: address.port() };
            return self.at_or_above(transport, prefix, ports);
        }
        let same = own.iter().filter(|listener| listener.transport == transport);
        same.into_iter().find_map(|listener| self.at_or_above(transport, prefix, listener.ports))
    }

    fn at_or_above(&self, transport: Transport, prefix: Prefix, ports: Ports) -> Option<(Listener, &O)> {
        let family = prefix.address.is_ipv4();
        let lengths = self.lengths.range((transport, family, 0)..=(transport, family, prefix.length));
        lengths.into_iter().find_map(|(_, _, length)| {
            let address = masked(prefix.address, *length);
            let places = (transport, address, *length, 0)..=(transport, address, *length, ports.last);
            // Ranges at one place do not overlap, so the last that begins in time is the only one that can.
            meeting(self.by_place.range(places).next_back()?, ports)
        })
    }

    fn within(&self, transport: Transport, prefix: Prefix, ports: Ports) -> Option<(Listener, &O)> {
        let places = self.by_place.range((transport, prefix.address, prefix.length, 0)..);
        places
            .take_while(|((which, address, length, _), _)| {
                *which == transport
                    && address.is_ipv4() == prefix.address.is_ipv4()
                    && masked(*address, prefix.length.min(*length)) == prefix.address
            })
            .filter(|((_, _, length, _), _)| *length >= prefix.length)
            .find_map(|entry| meeting(entry, ports))
    }
}

/// Whether what has changed among rules that were right cannot be wrong: no listener meets another, and no backend is
/// diverted. Costs as much as was changed, and a look at each backend where a listener is new. `listening` are the listeners
/// before, `rules` all that there are now. `false` says only that all of them have to be judged.
pub(super) fn is_apart(changed: &[Pair<'_>], rules: &RuleSet, listening: &Listeners<()>) -> bool {
    let leaving: HashSet<&Listener> =
        changed.iter().filter_map(|(before, _)| *before).flat_map(|rule| &rule.listeners).collect();
    let mut new = Listeners::default();
    let mut has_fresh = false;
    for listener in changed.iter().filter_map(|(_, after)| *after).flat_map(|rule| &rule.listeners) {
        // One that stays where it was met nobody there.
        let is_fresh = !leaving.contains(listener);
        if is_fresh && listening.overlapping(listener).is_some() || new.overlapping(listener).is_some() {
            return false;
        }
        new.add(*listener, ());
        has_fresh |= is_fresh;
    }
    let is_diverted = |rule: &Rule, by: &Listeners<()>| {
        rule.transports().any(|transport| {
            let mut backends = rule.backends.iter();
            backends.any(|backend| by.catching(transport, backend.address, &rule.listeners).is_some())
        })
    };
    let mut of_changed = changed.iter().filter_map(|(_, after)| *after);
    if of_changed.any(|rule| is_diverted(rule, listening)) {
        return false;
    }
    !has_fresh || !rules.values().any(|rule| is_diverted(rule, &new))
}

/// The listener there, if it shares a port with these.
fn meeting<'a, O>(
    ((transport, address, length, first), (last, owner)): (&Place, &'a (u16, O)),
    ports: Ports,
) -> Option<(Listener, &'a O)> {
    let listener = Listener {
        transport: *transport,
        prefix: Prefix { address: *address, length: *length },
        ports: Ports { first: *first, last: *last },
    };
    (*first <= ports.last && *last >= ports.first).then_some((listener, owner))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redirect::{
        rules::{Rules, judge_set, unlike},
        text::parse_listener,
    };

    fn overlap(first: &str, second: &str) -> bool {
        let mut listeners = Listeners::default();
        listeners.add(parse_listener(first).unwrap(), "first");
        listeners.overlapping(&parse_listener(second).unwrap()).is_some()
    }

    #[test]
    fn listeners_overlap_if_they_share_an_address_and_a_port() {
        fn check(first: &str, second: &str, expect: bool) {
            assert_eq!(overlap(first, second), expect, "{first} {second}");
            assert_eq!(overlap(second, first), expect, "{second} {first}");
        }
        check("tcp:10.0.0.10:80", "tcp:10.0.0.10:80", true);
        check("tcp:10.0.0.10:80", "udp:10.0.0.10:80", false);
        check("tcp:10.0.0.10:80", "tcp:10.0.0.10:81", false);
        check("tcp:10.0.0.10:80-90", "tcp:10.0.0.10:90", true);
        check("tcp:10.0.0.10:*", "tcp:10.0.0.10:90", true);
        check("tcp:10.0.0.0/24:90", "tcp:10.0.0.10:90", true);
        check("tcp:10.0.0.0/24:90", "tcp:10.0.1.10:90", false);
        check("tcp:10.0.0.0/24:90", "tcp:10.0.0.0/25:80-100", true);
        check("tcp:0.0.0.0/0:90", "tcp:10.0.0.10:90", true);
        check("tcp:0.0.0.0/0:90", "tcp:[fd00::1]:90", false);
        check("tcp:[fd00::/16]:90", "tcp:[fd00::1]:*", true);
    }

    fn any_listener() -> impl Strategy<Value = Listener> {
        (any::<u8>(), 24u8..=32, 1u16..12, 0u16..4).prop_map(|(host, length, first, more)| Listener {
            transport: Transport::Tcp,
            prefix: Prefix { address: masked(IpAddr::from([10, 0, 0, host]), length), length },
            ports: Ports { first, last: first + more },
        })
    }

    fn share(first: &Listener, second: &Listener) -> bool {
        let length = first.prefix.length.min(second.prefix.length);
        masked(first.prefix.address, length) == masked(second.prefix.address, length)
            && first.ports.first <= second.ports.last
            && second.ports.first <= first.ports.last
    }

    /// Rules of a few names, addresses and ports, each right by itself.
    fn any_rules() -> impl Strategy<Value = RuleSet> {
        let rule = (0u8..4, 0u8..4, 29u8..=32, 1u16..5, 0u16..3, 0u8..8, 1u16..8);
        prop::collection::vec(rule, 0..5).prop_map(|rules| {
            let rules = rules.into_iter().map(|(name, host, length, first, more, backend, port)| {
                let network = masked(IpAddr::from([10, 0, 0, host]), length);
                let text = format!(
                    "rules: [{{name: rule-{name}, listen: ['tcp:{network}/{length}:{first}-{}'], backends: ['10.0.0.{backend}:{port}']}}]",
                    first + more
                );
                // A rule may divert its own backend: then there is none.
                Rules::read(&text).map(|rules| rules.rules).unwrap_or_default()
            });
            rules.flatten().collect()
        })
    }

    proptest! {
        #[test]
        fn changes_that_are_apart_leave_rules_right(old in any_rules(), new in any_rules()) {
            prop_assume!(judge_set(&old).is_ok());
            let mut listening = Listeners::default();
            let listeners = old.values().flat_map(|rule| rule.listeners.clone());
            listeners.for_each(|listener| listening.add(listener, ()));
            // What is the same is the same memory, as it is where a command changes one rule.
            let same = |name: &Arc<str>, rule: Arc<Rule>| old.get(name).filter(|it| **it == rule).cloned().unwrap_or(rule);
            let new: RuleSet = new.into_iter().map(|(name, rule)| (Arc::clone(&name), same(&name, rule))).collect();
            let changed = unlike(&old, &new);
            let is_right = judge_set(&new).is_ok();
            prop_assert!(!is_apart(&changed, &new, &listening) || is_right);
            // Whoever only takes away breaks nothing.
            let fewer: RuleSet = old.iter().skip(1).map(|(name, rule)| (Arc::clone(name), Arc::clone(rule))).collect();
            prop_assert!(is_apart(&unlike(&old, &fewer), &fewer, &listening));
        }

        #[test]
        fn it_finds_what_comparing_all_with_all_finds(all in prop::collection::vec(any_listener(), 1..40)) {
            let mut listeners = Listeners::default();
            let mut apart: Vec<Listener> = Vec::new();
            for listener in all {
                let expect = apart.iter().any(|other| share(other, &listener));
                prop_assert_eq!(listeners.overlapping(&listener).is_some(), expect);
                if !expect {
                    listeners.add(listener, ());
                    apart.push(listener);
                }
            }
        }
    }
}
