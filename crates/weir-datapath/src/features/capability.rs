//! Capabilities of this process, and which of them stand in for others.

use std::fmt;

use super::kernel::Release;

/// A capability that some part of Weir needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Loads programs and makes maps; since 5.8, `CAP_SYS_ADMIN` before.
    Bpf,
    /// Attaches to interfaces.
    NetAdmin,
    /// Lets programs do arithmetic on pointers and read kernel memory; since 5.8, `CAP_SYS_ADMIN` before.
    Perfmon,
    /// Opens packet sockets.
    NetRaw,
    /// Looks into processes of other users.
    SysPtrace,
    /// Enters namespaces, and much more.
    SysAdmin,
    /// Goes beyond resource limits.
    SysResource,
}

impl Capability {
    /// The name as `setcap` and `capsh` take it, such as `cap_bpf`.
    pub const fn lower_case(self) -> &'static str {
        match self {
            Self::Bpf => "cap_bpf",
            Self::NetAdmin => "cap_net_admin",
            Self::Perfmon => "cap_perfmon",
            Self::NetRaw => "cap_net_raw",
            Self::SysPtrace => "cap_sys_ptrace",
            Self::SysAdmin => "cap_sys_admin",
            Self::SysResource => "cap_sys_resource",
        }
    }

    /// Number of the bit in the sets of `/proc/PID/status` (include/uapi/linux/capability.h).
    const fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::NetRaw => 13,
            Self::SysPtrace => 19,
            Self::SysAdmin => 21,
            Self::SysResource => 24,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// What a kernel of this release asks for in its place.
    #[must_use]
    pub fn on(self, release: &Release) -> Self {
        match self {
            // CAP_BPF and CAP_PERFMON were split off in 5.8 (a17b53c4a4b5, 980737282232).
            Self::Bpf | Self::Perfmon if !release.is_at_least(5, 8) => Self::SysAdmin,
            other => other,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lower_case().to_uppercase())
    }
}

/// A set of capabilities, as a bit mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability at all.
    pub const NONE: Self = Self(0);
    /// Every capability there is.
    pub const ALL: Self = Self(u64::MAX);

    /// The set with these members.
    pub fn of(members: &[Capability]) -> Self {
        Self(members.iter().fold(0, |mask, member| mask | 1 << member.bit()))
    }

    /// The effective set out of the text of `/proc/PID/status`.
    pub fn effective_of_status(status: &str) -> Option<Self> {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(mask.trim(), 16).ok().map(Self)
    }

    /// Whether the set permits what `capability` is for, by itself or through `CAP_SYS_ADMIN`, which includes
    /// `CAP_BPF` and `CAP_PERFMON`.
    pub fn permits(self, capability: Capability) -> bool {
        let holds = |capability: Capability| self.0 & 1 << capability.bit() != 0;
        holds(capability)
            || matches!(capability, Capability::Bpf | Capability::Perfmon) && holds(Capability::SysAdmin)
    }

    /// Those of `needed` that are not permitted, by the names that a kernel of this release knows, each once.
    pub fn missing(self, needed: &[Capability], release: &Release) -> Vec<Capability> {
        let mut missing = Vec::new();
        for capability in needed.iter().map(|capability| capability.on(release)) {
            if !self.permits(capability) && !missing.contains(&capability) {
                missing.push(capability);
            }
        }
        missing
    }
}

/// `A`, `A and B`, `A, B and C`.
pub(super) fn enumerate(capabilities: &[Capability]) -> String {
    let mut text = String::new();
    for (position, capability) in capabilities.iter().enumerate() {
        if position > 0 {
            text.push_str(if position + 1 == capabilities.len() { " and " } else { ", " });
        }
        text.push_str(&capability.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_only() {
        let set = CapabilitySet::of(&[Capability::SysAdmin]);
        assert!(set.permits(Capability::Bpf));
        assert!(set.permits(Capability::Perfmon));
        assert!(!set.permits(Capability::NetAdmin));
        assert!(!set.permits(Capability::NetRaw));
    }

    #[test]
    fn before_5_8_sys_admin_is_asked_for_once() {
        let needed = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
        let old = Release::parse("5.4.0-150-generic");
        assert_eq!(CapabilitySet::NONE.missing(&needed, &old), [Capability::SysAdmin, Capability::NetAdmin]);
        // The bits exist in the mask of a newer container runtime, but mean nothing to this kernel.
        assert_eq!(CapabilitySet::of(&needed).missing(&needed, &old), [Capability::SysAdmin]);
    }

    #[test]
    fn the_effective_set_is_read_from_status() {
        let status = "Name:\tcat\nCapInh:\t0000000000000000\nCapEff:\t000000c000001000\nCapBnd:\t0\n";
        let set = CapabilitySet::effective_of_status(status).unwrap();
        assert_eq!(set, CapabilitySet::of(&[Capability::Bpf, Capability::Perfmon, Capability::NetAdmin]));
        assert_eq!(CapabilitySet::effective_of_status("Name:\tcat\n"), None);
    }

    #[test]
    fn lists_read_as_english() {
        let all = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
        assert_eq!(enumerate(&all[..1]), "CAP_BPF");
        assert_eq!(enumerate(&all[..2]), "CAP_BPF and CAP_NET_ADMIN");
        assert_eq!(enumerate(&all), "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
    }
}
