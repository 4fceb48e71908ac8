//! The verdict on machines that are not this one.

use super::*;

/// A current machine with everything, seen by root.
fn everything() -> Facts {
    let works = || Attempt::Works(String::new());
    Facts {
        release: Release::parse("6.12.9-amd64"),
        version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1".to_owned(),
        config: Some(Config::from_text("CONFIG_HZ=250\nCONFIG_NET_SCH_INGRESS=m\nCONFIG_NET_CLS_BPF=m\n")),
        user: 0,
        capabilities: CapabilitySet::ALL,
        sees_all_processes: true,
        memlock: Some(8 << 20),
        load: works(),
        tcx: works(),
        clsact: Attempt::NotNeeded,
        grace: works(),
        batch: works(),
        btf_bytes: Some(5 << 20),
        task_file_iterator: true,
        storage_iterator: true,
        drop_reasons: true,
        socket_lengths: true,
        unprivileged_bpf_disabled: Some(2),
        cgroup2: Some("/sys/fs/cgroup".into()),
        cgroup2_is_topmost: true,
        sock_ops: works(),
        bpffs: Some("/sys/fs/bpf".into()),
        possible_cpus: 8,
        jit: Some(1),
        memory_available: Some(4 << 30),
        ..Facts::default()
    }
}

/// The same as seen by a user without any capability.
fn unprivileged(facts: Facts) -> Facts {
    let refused = || Attempt::Refused(libc::EPERM);
    Facts {
        user: 1000,
        capabilities: CapabilitySet::NONE,
        load: refused(),
        tcx: refused(),
        clsact: Attempt::NotTried,
        grace: refused(),
        batch: refused(),
        jit: None,
        ..facts
    }
}

#[track_caller]
fn check(facts: &Facts, expect: &[(&str, &str, &str)]) {
    let report = evaluate(facts);
    for (name, state, text) in expect {
        let feature = report.get(name).unwrap_or_else(|| panic!("no feature {name}"));
        assert_eq!(feature.state.as_str(), *state, "{name}: {}", feature.state);
        assert!(feature.state.to_string().contains(text), "{name}: {}", feature.state);
    }
}

#[test]
fn a_current_machine_has_everything() {
    for feature in evaluate(&everything()).features {
        assert!(matches!(feature.state, State::Available(_)), "{}: {}", feature.name, feature.state);
    }
}

#[test]
fn on_5_10_clsact_takes_the_place_of_tcx() {
    let facts = Facts {
        release: Release::parse("5.10.0-32-amd64"),
        tcx: Attempt::Refused(libc::EINVAL),
        clsact: Attempt::Works(String::new()),
        capabilities: CapabilitySet::of(&[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon]),
        memlock: Some(64 << 10),
        ..everything()
    };
    check(
        &facts,
        &[
            ("kernel", "available", "5.10.0-32-amd64"),
            ("counting", "available", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
            ("tcx", "degraded", "clsact is used"),
            ("clsact", "available", "tried"),
            ("locked memory", "missing", "limited to 64 KiB: ulimit -l unlimited"),
            ("packet sockets", "missing", "CAP_NET_RAW"),
            ("process names", "degraded", "CAP_SYS_PTRACE"),
        ],
    );
}

#[test]
fn on_5_4_sys_admin_is_what_is_missing() {
    let facts = unprivileged(Facts {
        release: Release::parse("5.4.0-150-generic"),
        task_file_iterator: false,
        btf_bytes: None,
        ..everything()
    });
    check(
        &facts,
        &[
            ("kernel", "missing", "use kernel 5.10"),
            ("counting", "missing", "needs CAP_SYS_ADMIN and CAP_NET_ADMIN"),
            ("batches", "unknown", "CAP_SYS_ADMIN"),
            ("socket walk", "degraded", "sock_diag"),
            ("kernel types", "degraded", "CONFIG_DEBUG_INFO_BTF"),
        ],
    );
}

#[test]
fn without_privilege_what_was_not_tried_is_not_called_missing() {
    check(
        &unprivileged(everything()),
        &[
            ("counting", "missing", "run as root, or: setcap cap_bpf,cap_net_admin,cap_perfmon+ep "),
            ("packet sockets", "missing", "setcap cap_bpf,cap_net_admin,cap_perfmon,cap_net_raw+ep "),
            ("tcx", "unknown", "needs CAP_NET_ADMIN"),
            ("clsact", "available", "configured, not tried"),
            ("grace period", "unknown", "CAP_BPF"),
            ("jit", "unknown", "cannot be read"),
            ("program names", "degraded", "only their ids"),
        ],
    );
}

#[test]
fn a_container_is_told_what_to_add() {
    let facts =
        Facts { user: 0, in_container: true, sees_all_processes: false, ..unprivileged(everything()) };
    check(
        &Facts { user: 0, ..facts.clone() },
        &[("counting", "missing", "add to the container: capabilities BPF, NET_ADMIN, PERFMON")],
    );
    check(
        &Facts { capabilities: CapabilitySet::ALL, ..facts },
        &[("process names", "degraded", "hostPID: true"), ("counting", "missing", "seccomp")],
    );
}

#[test]
fn capabilities_of_a_user_namespace_do_not_count() {
    check(&Facts { in_user_namespace: true, ..everything() }, &[("counting", "missing", "user namespace")]);
}

#[test]
fn a_real_time_kernel_without_the_softirq_lock_is_named() {
    let real_time = |release: &str, config: Option<&str>| Facts {
        release: Release::parse(release),
        version: "#1 SMP PREEMPT_RT".to_owned(),
        config: config.map(Config::from_text),
        ..everything()
    };
    for (facts, interleave) in [
        (real_time("6.1.0-13-rt-amd64", None), false),
        (real_time("6.18.2", Some("CONFIG_PREEMPT_RT_NEEDS_BH_LOCK=y\n")), false),
        (real_time("6.18.2", Some("# CONFIG_PREEMPT_RT_NEEDS_BH_LOCK is not set\n")), true),
        (real_time("7.0.0", None), true),
        (Facts { release: Release::parse("7.0.0"), config: None, ..everything() }, false),
    ] {
        assert_eq!(softirqs_interleave(&facts), interleave, "{} {}", facts.release, facts.version);
        let state = if interleave { "degraded" } else { "available" };
        check(&facts, &[("real time", state, "")]);
    }
}

#[test]
fn confidentiality_lockdown_takes_the_socket_walk_away() {
    check(
        &Facts { lockdown: Some("confidentiality".to_owned()), ..everything() },
        &[("socket walk", "degraded", "lockdown"), ("lockdown", "degraded", "integrity")],
    );
}

#[test]
fn the_error_without_privilege_names_what_is_missing_and_the_remedy() {
    let check = |facts: &Facts, expect: Option<&str>| {
        let error = missing_privilege(facts, &COUNTING, "./weir").map(|error| error.to_string());
        assert_eq!(error.as_deref(), expect);
    };
    let user = unprivileged(everything());
    check(&everything(), None);
    check(
        &user,
        Some(
            "cannot load the counting programs: needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
             (run as root, or: setcap cap_bpf,cap_net_admin,cap_perfmon+ep ./weir)",
        ),
    );
    check(
        &Facts {
            capabilities: CapabilitySet::of(&[Capability::NetAdmin, Capability::Perfmon]),
            ..user.clone()
        },
        Some(
            "cannot load the counting programs: needs CAP_BPF \
             (run as root, or: setcap cap_bpf,cap_net_admin,cap_perfmon+ep ./weir)",
        ),
    );
    check(
        &Facts { release: Release::parse("5.4"), ..user },
        Some(
            "cannot load the counting programs: needs CAP_SYS_ADMIN and CAP_NET_ADMIN \
             (run as root, or: setcap cap_sys_admin,cap_net_admin+ep ./weir)",
        ),
    );
}

#[test]
fn what_sockets_and_drops_need_is_named() {
    let check_quality = |facts: &Facts, state, text| check(facts, &[("tcp quality", state, text)]);
    check_quality(&everything(), "available", "works");
    check_quality(&Facts { cgroup2: None, ..everything() }, "degraded", "mount cgroup2");
    check_quality(&Facts { storage_iterator: false, ..everything() }, "degraded", "5.10");
    let busy = Attempt::Refused(libc::EBUSY);
    check_quality(&Facts { sock_ops: busy, ..everything() }, "degraded", "BPF_F_ALLOW_MULTI");
    check_quality(&Facts { cgroup2_is_topmost: false, ..everything() }, "degraded", "--cgroupns=host");
    check_quality(&unprivileged(everything()), "degraded", "needs CAP_");
    check(&everything(), &[("packet drops", "available", "names of this kernel")]);
    check(&Facts { drop_reasons: false, ..everything() }, &[("packet drops", "degraded", "5.17")]);
    let confidential = Facts { lockdown: Some("confidentiality".to_owned()), ..everything() };
    for name in ["tcp quality", "packet drops"] {
        check(&confidential, &[(name, "degraded", "lockdown")]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_tap_says_by_which_hooks() {
    check(&everything(), &[("tap", "available", "tier S")]);
    check(&Facts { socket_lengths: false, ..everything() }, &[("tap", "degraded", "system calls (T)")]);
    check(&Facts { btf_bytes: None, ..everything() }, &[("tap", "degraded", "CONFIG_DEBUG_INFO_BTF")]);
}
