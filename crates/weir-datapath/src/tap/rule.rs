//! Rules: whose bytes are copied, and how many. They are evaluated in the kernel, before anything is copied.

use std::{net::IpAddr, ops::RangeInclusive};

/// Most rules that are in force at once.
pub const MOST_RULES: usize = 64;

/// Most bytes that are copied of one call, whatever a rule says.
pub const MOST_CALL: u32 = 1 << 20;

/// Bytes that [`Payload::Headers`] copies of what one side says before the other one speaks.
pub const HEADER_BYTES: u32 = 2048;

/// Number of a rule, 1 to 255, chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// Whose bytes are copied: a call matches if every member lets it through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number, told with everything that it lets through.
    pub id: RuleId,
    /// Who sends or receives.
    pub processes: Processes,
    /// Where the other end is: address and length of the prefix, an IPv4 prefix also matches mapped addresses. Empty: anywhere.
    pub networks: Vec<(IpAddr, u8)>,
    /// The port of either end. Empty: any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Which way the bytes go. `None`: both.
    pub way: Option<Way>,
    /// What our end is. `None`: either, and connections of which it is not known.
    pub role: Option<Role>,
    /// What is copied.
    pub payload: Payload,
    /// How much of it.
    pub limits: Limits,
}

/// Processes, by any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Every process.
    pub all: bool,
    /// Process identifiers, as the first pid namespace numbers them.
    pub pids: Vec<u32>,
    /// Identifiers of cgroups (v2); processes of cgroups below them are meant too.
    pub cgroups: Vec<u64>,
    /// Command names of processes (not threads), filled up with zeros.
    pub commands: Vec<[u8; 16]>,
}

/// Which way bytes go, as the process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The process sent them.
    Sent,
    /// The process received them.
    Received,
}

/// What the end that is tapped was when the connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// Nothing: every call is a gap of known length.
    None,
    /// The first [`HEADER_BYTES`] of what one side says before the other one speaks.
    Headers,
    /// Everything, within the limits.
    Full,
}

/// How much is copied. What is beyond is a gap of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one call, at most [`MOST_CALL`].
    pub call: u32,
    /// Bytes of one socket, both directions together.
    pub connection: Option<u64>,
    /// Bytes per second that the rule copies, on all sockets together. Counted per second of the kernel's clock; calls that
    /// run at the same time may exceed it by their own length.
    pub per_second: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: 64 << 10, connection: None, per_second: None }
    }
}

/// Why rules cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Too many.
    #[error("{0} rules are more than {MOST_RULES}: join some of them")]
    TooMany(usize),
    /// A number that is none, or one that is there twice.
    #[error("rule number {0} is used twice or is not 1 to 255: give each rule a number of its own")]
    Number(u32),
    /// A rule without processes lets nothing through, which nobody can want.
    #[error("rule {} names no process: give processes, cgroups or commands, or all", .0.0)]
    NoProcess(RuleId),
    /// A prefix that is longer than the address.
    #[error("rule {}: {address}/{length} is no network", rule.0)]
    Network {
        /// The rule.
        rule: RuleId,
        /// Address.
        address: IpAddr,
        /// Length of the prefix.
        length: u8,
    },
    /// A range of ports that ends before it begins.
    #[error("rule {}: ports {first} to {last} are no range", rule.0)]
    Ports {
        /// The rule.
        rule: RuleId,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Ports that the kernel's table has no room for.
    #[error("the rules name {0} ranges of ports that differ, of which 127 fit: join some of them")]
    TooManyPorts(usize),
    /// A limit that is out of range.
    #[error("rule {}: {bytes} bytes of a call are more than {MOST_CALL}", rule.0)]
    Call {
        /// The rule.
        rule: RuleId,
        /// The limit.
        bytes: u32,
    },
}

/// Looks whether rules can be put in force.
pub(super) fn check(rules: &[Rule]) -> Result<(), RuleError> {
    if rules.len() > MOST_RULES {
        return Err(RuleError::TooMany(rules.len()));
    }
    for (index, rule) in rules.iter().enumerate() {
        let is_taken = rules[..index].iter().any(|earlier| earlier.id == rule.id);
        if is_taken || !(1..=255).contains(&rule.id.0) {
            return Err(RuleError::Number(rule.id.0));
        }
        let processes = &rule.processes;
        let names_any =
            !(processes.pids.is_empty() && processes.cgroups.is_empty() && processes.commands.is_empty());
        if !processes.all && !names_any {
            return Err(RuleError::NoProcess(rule.id));
        }
        for &(address, length) in &rule.networks {
            if length > if address.is_ipv4() { 32 } else { 128 } {
                return Err(RuleError::Network { rule: rule.id, address, length });
            }
        }
        if let Some(ports) = rule.ports.iter().find(|ports| ports.start() > ports.end()) {
            return Err(RuleError::Ports { rule: rule.id, first: *ports.start(), last: *ports.end() });
        }
        if rule.limits.call > MOST_CALL {
            return Err(RuleError::Call { rule: rule.id, bytes: rule.limits.call });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: u32) -> Rule {
        Rule {
            id: RuleId(id),
            processes: Processes { all: true, ..Processes::default() },
            networks: vec![],
            ports: vec![],
            way: None,
            role: None,
            payload: Payload::Full,
            limits: Limits::default(),
        }
    }

    #[test]
    fn rules_that_cannot_be_are_refused_with_what_is_wrong() {
        assert_eq!(check(&[rule(1), rule(255)]), Ok(()));
        assert_eq!(check(&[rule(0)]), Err(RuleError::Number(0)));
        assert_eq!(check(&[rule(256)]), Err(RuleError::Number(256)));
        assert_eq!(check(&[rule(3), rule(3)]), Err(RuleError::Number(3)));
        let many: Vec<_> = (1..=65).map(rule).collect();
        assert_eq!(check(&many), Err(RuleError::TooMany(65)));
        let nobody = Rule { processes: Processes::default(), ..rule(1) };
        assert_eq!(check(&[nobody]), Err(RuleError::NoProcess(RuleId(1))));
        let address: IpAddr = "10.0.0.0".parse().unwrap();
        let network = Rule { networks: vec![(address, 33)], ..rule(1) };
        assert_eq!(check(&[network]), Err(RuleError::Network { rule: RuleId(1), address, length: 33 }));
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        let ports = Rule { ports: vec![9..=8], ..rule(1) };
        assert_eq!(check(&[ports]), Err(RuleError::Ports { rule: RuleId(1), first: 9, last: 8 }));
        let call = Rule { limits: Limits { call: MOST_CALL + 1, ..Limits::default() }, ..rule(1) };
        assert_eq!(check(&[call]), Err(RuleError::Call { rule: RuleId(1), bytes: MOST_CALL + 1 }));
    }
}
