//! What on this machine could get in the way of diverting, and what to do about it.
//!
//! Settings are read from `/proc/sys` ([`Facts::read`]); what they mean is judged apart from that ([`judge`]).

use std::{fs, path::Path};

use serde::Serialize;
use weir_datapath::{
    hook::{HookProgram, tcx_programs},
    interface::{Interfaces, Offloads},
    netns::Netns,
    redirect::{LocalState, Place, PlaceState, Role},
};
use weir_flow::Direction;

use super::state::role_text;

/// What the names of our programs begin with.
const OURS: [&str; 3] = ["weir_uplink", "weir_client", "weir_answer"];

/// What the names of all programs of Weir begin with.
const COUNTING: &str = "weir_";

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It may be in the way.
    Less,
    /// It is in the way.
    No,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub mark: Mark,
    /// What it is, such as `eth0 rp_filter`.
    pub name: String,
    /// How it is.
    pub detail: String,
    /// What to do, if something is to be done.
    pub remedy: Option<String>,
}

/// What is known of an interface.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether there is one of that name.
    pub exists: bool,
    /// `rp_filter`, the stricter one of the interface and of `all`.
    pub rp_filter: Option<u32>,
    /// `accept_local`.
    pub accept_local: Option<u32>,
    /// `net.ipv4.ip_forward`.
    pub forwards_ipv4: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwards_ipv6: bool,
    /// Segmentation and joining of packets, if the driver says.
    pub offloads: Option<Offloads>,
    /// TCX programs, or why they cannot be listed.
    pub programs: Result<Vec<HookProgram>, String>,
}

impl Facts {
    /// Looks at an interface of this namespace.
    pub fn read(interface: &str) -> Self {
        let conf = |name: &str, key: &str| number(&format!("/proc/sys/net/ipv4/conf/{name}/{key}"));
        let strictest = |key: &str| conf(interface, key).max(conf("all", key));
        let interfaces = Netns::current().ok().and_then(|netns| Interfaces::open(&netns).ok());
        let programs = tcx_programs(interface).map_err(|error| crate::causes::with_causes(&error));
        Self {
            exists: Path::new("/proc/sys/net/ipv4/conf").join(interface).exists(),
            rp_filter: strictest("rp_filter"),
            accept_local: strictest("accept_local"),
            forwards_ipv4: number("/proc/sys/net/ipv4/ip_forward") == Some(1),
            forwards_ipv6: number("/proc/sys/net/ipv6/conf/all/forwarding") == Some(1),
            offloads: interfaces.and_then(|interfaces| interfaces.offloads(interface)),
            programs,
        }
    }
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What the facts of one interface mean for its role.
pub fn judge(place: &Place, attached: Option<&PlaceState>, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |mark, what: &str, detail: String, remedy: Option<String>| {
        findings.push(Finding { mark, name: format!("{} {what}", place.interface), detail, remedy });
    };
    let interface = &place.interface;
    if !facts.exists {
        let remedy = "it is attached as soon as it is there, if it was before".to_owned();
        add(Mark::No, "interface", "does not exist in this network namespace".to_owned(), Some(remedy));
        return findings;
    }
    match attached {
        Some(state) if state.is_alive => {
            add(Mark::Ok, "attached", format!("as {}", role_text(state.role)), None);
        }
        Some(_) => {
            let remedy = "a running control process attaches it again: see `weir proxy ls`".to_owned();
            add(Mark::No, "attached", "our programs are not on it".to_owned(), Some(remedy));
        }
        None => {
            let remedy = format!("weir proxy run -i {interface}={}", role_text(place.role));
            add(Mark::Less, "attached", "not attached".to_owned(), Some(remedy));
        }
    }
    match facts.rp_filter {
        Some(1) => {
            let detail =
                "1, strict: answers are dropped if the way to the listener's address is another interface";
            let remedy = format!("sysctl -w net.ipv4.conf.{interface}.rp_filter=2, unless ways are the same");
            add(Mark::Less, "rp_filter", detail.to_owned(), Some(remedy));
        }
        value => {
            add(Mark::Ok, "rp_filter", value.map_or("unknown".to_owned(), |value| value.to_string()), None);
        }
    }
    if place.role == Role::Client {
        for (family, forwards, key) in [
            ("IPv4", facts.forwards_ipv4, "net.ipv4.ip_forward"),
            ("IPv6", facts.forwards_ipv6, "net.ipv6.conf.all.forwarding"),
        ] {
            if forwards {
                add(Mark::Ok, "forwarding", format!("{family} is forwarded"), None);
            } else {
                let detail =
                    format!("{family} is not forwarded: clients reach backends on this machine only");
                add(Mark::Less, "forwarding", detail, Some(format!("sysctl -w {key}=1")));
            }
        }
    }
    if let Some(accept_local) = facts.accept_local {
        add(Mark::Ok, "accept_local", format!("{accept_local}; not needed"), None);
    }
    if let Some(offloads) = facts.offloads {
        let word = |is_on: bool| if is_on { "on" } else { "off" };
        let detail = format!(
            "tso {}, gro {}: checksums stay right either way",
            word(offloads.tso),
            word(offloads.gro)
        );
        add(Mark::Ok, "offloads", detail, None);
    }
    programs(facts, &mut add);
    findings
}

/// What becomes of sockets of this machine. `trouble` is why they are left alone though they should not be.
pub fn judge_sockets(local: Option<&LocalState>, trouble: Option<&str>) -> Finding {
    let finding = |mark, detail: String, remedy: Option<&str>| Finding {
        mark,
        name: "sockets".to_owned(),
        detail,
        remedy: remedy.map(str::to_owned),
    };
    let state = local.map(|local| (&local.cgroup, local.is_alive));
    if let Some(trouble) = trouble.filter(|_| !matches!(state, Some((Some(_), true)))) {
        let detail = format!("connections of this machine to backends on it are not diverted: {trouble}");
        return finding(
            Mark::No,
            detail,
            Some("name another cgroup with --cgroup, or --local off if that is right"),
        );
    }
    match state {
        Some((Some(cgroup), true)) => {
            let cgroup = cgroup.display();
            finding(Mark::Ok, format!("processes in {cgroup} are led to backends on this machine"), None)
        }
        Some((Some(cgroup), false)) => {
            let detail = format!("not all of our programs are at {}", cgroup.display());
            finding(Mark::No, detail, Some("the next `weir proxy run` attaches them"))
        }
        _ => {
            let detail = "left alone: connections of this machine to backends on it are not diverted";
            finding(Mark::Ok, detail.to_owned(), None)
        }
    }
}

/// The programs on the hook, in their order.
fn programs(facts: &Facts, add: &mut impl FnMut(Mark, &str, String, Option<String>)) {
    let programs = match &facts.programs {
        Ok(programs) => programs,
        Err(reason) => {
            let remedy = "see `tc filter show dev … ingress` and `egress`".to_owned();
            return add(Mark::Less, "programs", format!("cannot be listed: {reason}"), Some(remedy));
        }
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        let there: Vec<&HookProgram> = programs.iter().filter(|it| it.direction == direction).collect();
        let names: Vec<String> = there.iter().map(|it| format!("{} (id {})", it.name, it.id)).collect();
        let what = match direction {
            Direction::Ingress => "ingress programs",
            Direction::Egress => "egress programs",
        };
        let is_ours = |it: &&HookProgram| OURS.iter().any(|name| it.name.starts_with(name));
        let in_front = there.iter().position(is_ours).unwrap_or(0);
        let detail = if names.is_empty() { "none".to_owned() } else { names.join(", then ") };
        // Those that count let everything go on.
        if there.iter().take(in_front).all(|it| it.name.starts_with(COUNTING)) {
            add(Mark::Ok, what, detail, None);
        } else {
            let remedy = "packets for which these do not say \"next\" never reach ours".to_owned();
            add(Mark::Less, what, detail, Some(remedy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            exists: true,
            rp_filter: Some(0),
            accept_local: Some(0),
            forwards_ipv4: true,
            forwards_ipv6: true,
            offloads: None,
            programs: Ok(Vec::new()),
        }
    }

    fn place(role: Role) -> Place {
        Place { interface: "eth0".to_owned(), role }
    }

    fn worst(role: Role, facts: &Facts) -> Vec<String> {
        let findings = judge(&place(role), None, facts).into_iter();
        findings.filter(|it| it.mark != Mark::Ok).map(|it| it.name).collect()
    }

    fn program(direction: Direction, name: &str) -> HookProgram {
        HookProgram { direction, id: 1, name: name.to_owned() }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        assert_eq!(worst(Role::Uplink, &facts()), ["eth0 attached"]);
        assert_eq!(worst(Role::Uplink, &Facts { exists: false, ..facts() }), ["eth0 interface"]);
        let strict = Facts { rp_filter: Some(1), forwards_ipv4: false, ..facts() };
        assert_eq!(worst(Role::Uplink, &strict), ["eth0 attached", "eth0 rp_filter"]);
        assert_eq!(worst(Role::Client, &strict), ["eth0 attached", "eth0 rp_filter", "eth0 forwarding"]);
    }

    #[test]
    fn sockets_that_are_left_alone_against_the_will_are_named() {
        let local = |cgroup: Option<&str>, is_alive| LocalState { cgroup: cgroup.map(Into::into), is_alive };
        let mark = |local: &LocalState, trouble| judge_sockets(Some(local), trouble).mark;
        assert_eq!(mark(&local(None, false), None), Mark::Ok);
        assert_eq!(mark(&local(Some("/x"), true), None), Mark::Ok);
        assert_eq!(mark(&local(Some("/x"), false), None), Mark::No);
        let failed = judge_sockets(Some(&local(None, false)), Some("cannot attach to the cgroup /x"));
        assert_eq!(failed.mark, Mark::No);
        assert!(failed.detail.ends_with("cannot attach to the cgroup /x"), "{}", failed.detail);
    }

    #[test]
    fn programs_in_front_of_ours_are_named_unless_they_only_count() {
        let with = |names: &[&str]| {
            let programs = names.iter().map(|name| program(Direction::Egress, name)).collect();
            worst(Role::Uplink, &Facts { programs: Ok(programs), ..facts() }).len()
        };
        assert_eq!(with(&["weir_uplink_l2", "cil_to_netdev"]), 1);
        assert_eq!(with(&["weir_egress_l2", "weir_uplink_l2"]), 1);
        assert_eq!(with(&["cil_to_netdev", "weir_uplink_l2"]), 2);
        assert_eq!(with(&["cil_to_netdev"]), 1);
    }
}
