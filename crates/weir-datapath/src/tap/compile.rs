//! Rules in the form that the kernel reads: masks with a bit per rule.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use weir_common::tap::{self, PORT_STARTS, RULES, RuleSet};
use zerocopy::FromZeros as _;

use super::rule::{Payload, Role, Rule, RuleError, Way, check};

/// A set of rules with everything that leads to it.
pub(super) struct Compiled {
    /// The set.
    pub(super) set: Box<RuleSet>,
    /// Masks by pid.
    pub(super) pids: BTreeMap<u64, u64>,
    /// Masks by cgroup.
    pub(super) cgroups: BTreeMap<u64, u64>,
    /// Masks by command.
    pub(super) commands: BTreeMap<[u8; 16], u64>,
    /// Masks by address and length of the prefix in 128 bits, each with those of the networks around it.
    pub(super) networks: BTreeMap<(u128, u8), u64>,
}

/// Translates rules.
pub(super) fn compile(rules: &[Rule]) -> Result<Compiled, RuleError> {
    check(rules)?;
    let mut compiled = Compiled {
        set: Box::new(RuleSet::new_zeroed()),
        pids: BTreeMap::new(),
        cgroups: BTreeMap::new(),
        commands: BTreeMap::new(),
        networks: BTreeMap::new(),
    };
    let set = &mut *compiled.set;
    for (index, rule) in rules.iter().enumerate() {
        let bit = 1_u64 << index;
        let processes = &rule.processes;
        if processes.all {
            set.all |= bit;
        }
        for pid in &processes.pids {
            *compiled.pids.entry(u64::from(*pid)).or_default() |= bit;
        }
        for cgroup in &processes.cgroups {
            *compiled.cgroups.entry(*cgroup).or_default() |= bit;
        }
        for command in &processes.commands {
            *compiled.commands.entry(*command).or_default() |= bit;
        }
        for &(address, length) in &rule.networks {
            *compiled.networks.entry(prefix(address, length)).or_default() |= bit;
        }
        if rule.networks.is_empty() {
            set.any_network |= bit;
        }
        if rule.ports.is_empty() {
            set.any_port |= bit;
        }
        for (way, mask) in [Way::Sent, Way::Received].into_iter().zip(&mut set.ways) {
            if rule.way.is_none_or(|wanted| wanted == way) {
                *mask |= bit;
            }
        }
        // Masks by role; the first is for roles that are not known.
        for (role, mask) in [None, Some(Role::Client), Some(Role::Server)].into_iter().zip(&mut set.roles) {
            if rule.role.is_none() || rule.role == role {
                *mask |= bit;
            }
        }
        set.rules[index] = kernel_rule(rule);
    }
    set.commands = u32::from(!compiled.commands.is_empty());
    set.cgroups = u32::from(!compiled.cgroups.is_empty());
    set.ends = u32::from(rules.iter().any(|rule| !rule.networks.is_empty() || !rule.ports.is_empty()));
    ports(rules, set)?;
    let prefixes: Vec<_> = compiled.networks.iter().map(|(prefix, mask)| (*prefix, *mask)).collect();
    for ((address, length), mask) in &mut compiled.networks {
        for ((outer, outer_length), outer_mask) in &prefixes {
            if outer_length <= length && cut(*address, *outer_length) == *outer {
                *mask |= outer_mask;
            }
        }
    }
    Ok(compiled)
}

fn kernel_rule(rule: &Rule) -> tap::Rule {
    tap::Rule {
        connection: rule.limits.connection.unwrap_or(u64::MAX),
        per_second: rule.limits.per_second.unwrap_or(u64::MAX),
        call: rule.limits.call,
        id: u8::try_from(rule.id.0).expect("rules were checked"),
        payload: match rule.payload {
            Payload::None => tap::payload::NONE,
            Payload::Headers => tap::payload::HEADERS,
            Payload::Full => tap::payload::FULL,
        },
        reserved: [0; 2],
    }
}

/// A network as a mapped one, without the bits behind the prefix.
fn prefix(address: IpAddr, length: u8) -> (u128, u8) {
    let (address, length) = match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), length + 96),
        IpAddr::V6(address) => (address, length),
    };
    (cut(u128::from(address), length), length)
}

fn cut(address: u128, length: u8) -> u128 {
    if length == 0 { 0 } else { address & u128::MAX << (128 - u32::from(length)) }
}

/// The address of a prefix as it lies in memory.
pub(super) fn octets(address: u128) -> [u8; 16] {
    Ipv6Addr::from(address).octets()
}

/// Fills the table of ports: where anything changes, and what holds from there on.
fn ports(rules: &[Rule], set: &mut RuleSet) -> Result<(), RuleError> {
    let ranges = || {
        rules.iter().enumerate().flat_map(|(index, rule)| {
            rule.ports.iter().map(move |ports| (index, *ports.start(), *ports.end()))
        })
    };
    let mut starts = vec![0];
    for (_, first, last) in ranges() {
        starts.push(first);
        starts.extend(last.checked_add(1));
    }
    starts.sort_unstable();
    starts.dedup();
    if starts.len() > PORT_STARTS {
        return Err(RuleError::TooManyPorts(starts.len() / 2));
    }
    let mut mask = 0;
    for index in 0..PORT_STARTS {
        if let Some(start) = starts.get(index) {
            mask = ranges()
                .filter(|(_, first, last)| (first..=last).contains(&start))
                .fold(set.any_port, |mask, (rule, ..)| mask | 1 << rule);
            set.port_starts[index] = *start;
        } else {
            set.port_starts[index] = u16::MAX;
        }
        set.port_masks[index] = mask;
    }
    Ok(())
}

const _: () = {
    assert!(RULES == super::rule::MOST_RULES);
    assert!(tap::HEADER_BYTES == super::rule::HEADER_BYTES);
    assert!(tap::REASONS == super::event::GapReason::COUNT);
};

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::tap::rule::{Limits, Processes, RuleId};

    fn rule(id: u32, ports: &[RangeInclusive<u16>], networks: &[&str]) -> Rule {
        let network = |text: &&str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        Rule {
            id: RuleId(id),
            processes: Processes { all: true, ..Processes::default() },
            networks: networks.iter().map(network).collect(),
            ports: ports.to_vec(),
            way: None,
            role: None,
            payload: Payload::Full,
            limits: Limits::default(),
        }
    }

    /// What the kernel's search finds.
    fn mask_of_port(set: &RuleSet, port: u16) -> u64 {
        set.port_masks[set.port_starts.iter().rposition(|start| *start <= port).unwrap()]
    }

    #[test]
    fn ports_find_the_rules_that_name_them_or_none() {
        let rules =
            [rule(1, &[80..=80, 443..=443], &[]), rule(2, &[], &[]), rule(3, &[100..=65_535, 0..=0], &[])];
        let set = compile(&rules).unwrap().set;
        for (port, expect) in [
            (0, 0b110),
            (1, 0b010),
            (79, 0b010),
            (80, 0b011),
            (81, 0b010),
            (100, 0b110),
            (443, 0b111),
            (65_535, 0b110),
        ] {
            assert_eq!(mask_of_port(&set, port), expect, "{port}");
        }
        let many: Vec<_> = (0..128).map(|number| 2 * number + 1..=2 * number + 1).collect();
        assert!(matches!(compile(&[rule(1, &many, &[])]), Err(RuleError::TooManyPorts(_))));
        assert!(compile(&[rule(1, &many[..127], &[])]).is_ok());
    }

    #[test]
    fn a_network_has_the_rules_of_those_around_it() {
        let rules =
            [rule(1, &[], &["10.0.0.0/8"]), rule(2, &[], &["10.1.2.3/16", "::/0"]), rule(3, &[], &[])];
        let compiled = compile(&rules).unwrap();
        let mask = |text: &str, length| compiled.networks[&prefix(text.parse().unwrap(), length)];
        assert_eq!(mask("10.0.0.0", 8), 0b11);
        assert_eq!(mask("10.1.0.0", 16), 0b11);
        assert_eq!(mask("::", 0), 0b10);
        assert_eq!(compiled.networks.len(), 3);
        assert_eq!(compiled.set.any_network, 0b100);
    }

    #[test]
    fn roles_and_ways_are_masks_of_what_they_let_through() {
        let only = |way, role| Rule { way, role, ..rule(1, &[], &[]) };
        let set = compile(&[only(Some(Way::Received), None)]).unwrap().set;
        assert_eq!((set.ways, set.roles), ([0, 1], [1, 1, 1, 0]));
        let set = compile(&[only(None, Some(Role::Server))]).unwrap().set;
        assert_eq!((set.ways, set.roles), ([1, 1], [0, 0, 1, 0]));
    }
}
