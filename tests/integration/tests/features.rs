//! What the probe says about the machine that runs the tests, with privilege and without.

use std::thread;

use caps::{CapSet, Capability as Held};
use weir_datapath::features::{self, Capability, State};
use weir_integration::require_root;

/// Runs `inside` on a thread whose effective capabilities lack `dropped`. Capabilities belong to threads.
fn without<T: Send + 'static>(dropped: &[Held], inside: impl FnOnce() -> T + Send + 'static) -> T {
    let dropped = dropped.to_vec();
    let thread = thread::spawn(move || {
        for capability in dropped {
            caps::drop(None, CapSet::Effective, capability).expect("root may drop capabilities");
        }
        inside()
    });
    thread.join().expect("the test itself failed")
}

#[test]
fn everything_that_root_can_try_here_works() {
    if !require_root() {
        return;
    }
    let report = features::probe();
    for feature in &report.features {
        println!("{:18} {:10} {}", feature.name, feature.state.as_str(), feature.state);
    }
    for name in
        ["kernel", "counting", "grace period", "batches", "socket walk", "packet drops", "cpus", "memory"]
    {
        let feature = report.get(name).unwrap();
        assert!(matches!(feature.state, State::Available(_)), "{name}: {}", feature.state);
    }
    assert_eq!(features::missing_for_counting(), None);
}

#[test]
fn one_missing_capability_is_named_alone() {
    if !require_root() {
        return;
    }
    let error = without(&[Held::CAP_NET_ADMIN], features::missing_for_counting).unwrap();
    assert_eq!(error.missing, [Capability::NetAdmin]);
    assert!(
        error.to_string().starts_with("cannot load the counting programs: needs CAP_NET_ADMIN ("),
        "{error}"
    );
}

#[test]
fn without_capabilities_the_kernel_refuses_and_the_report_says_so() {
    if !require_root() {
        return;
    }
    let all = [Held::CAP_NET_ADMIN, Held::CAP_BPF, Held::CAP_PERFMON, Held::CAP_SYS_ADMIN, Held::CAP_NET_RAW];
    let report = without(&all, features::probe);
    for (name, state) in [
        ("counting", "missing"),
        ("packet sockets", "missing"),
        ("namespaces", "missing"),
        ("batches", "unknown"),
    ] {
        let feature = report.get(name).unwrap();
        assert_eq!(feature.state.as_str(), state, "{name}: {}", feature.state);
    }
}
