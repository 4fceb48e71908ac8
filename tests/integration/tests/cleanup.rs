//! What a killed Weir leaves is found and removed; what belongs to others or to a live Weir stays as it is.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use weir_datapath::cleanup::{self, CleanupError, Force, Leftover, Removal, Status};
use weir_integration::{Namespace, require_root};

/// A Weir in a process of its own that counts (`flow`) or captures (`packets`) by clsact filters.
struct Weir {
    child: Child,
    number: String,
}

impl Weir {
    fn start(namespace: &Namespace, object: &str, interfaces: &[&str]) -> Self {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_hold-filters"));
        command.arg(object).args(interfaces).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the helper starts");
        let mut number = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        output.read_line(&mut number).expect("the helper prints its number");
        assert!(!number.is_empty(), "the helper failed, see above");
        Self { child, number: number.trim().to_owned() }
    }

    /// Leaves it no chance to detach.
    fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Lets it end as it likes.
    fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("it is our child");
        assert!(status.success());
    }
}

/// A namespace with two interfaces; on `theirs`, somebody else has a clsact qdisc with filters in both directions.
fn namespace() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add ours type veth peer name theirs");
    for name in ["ours", "theirs"] {
        namespace.ip(&format!("link set {name} up"));
    }
    namespace.tc("qdisc add dev theirs clsact");
    for direction in ["ingress", "egress"] {
        let filter = format!("filter add dev theirs {direction}");
        namespace.tc(&format!("{filter} prio 7 protocol ip u32 match u32 0 0"));
        namespace.tc(&format!("{filter} chain 3 prio 1 protocol ipv6 u32 match u32 0 0"));
    }
    namespace
}

/// Qdiscs and filters as tc shows them.
fn everything_attached(namespace: &Namespace) -> String {
    let mut text = namespace.tc("qdisc show");
    for name in ["ours", "theirs"] {
        for direction in ["ingress", "egress"] {
            text += &namespace.tc(&format!("filter show dev {name} {direction}"));
        }
    }
    text
}

fn list(namespace: &Namespace) -> Vec<Leftover> {
    namespace.run(cleanup::list).expect("root may list filters")
}

fn remove(namespace: &Namespace, leftover: &Leftover) -> Result<Removal, CleanupError> {
    namespace.run(|| cleanup::remove(leftover, Force::No))
}

#[test]
fn a_killed_weir_is_cleaned_up_and_nothing_else() {
    if !require_root() {
        return;
    }
    for object in ["flow", "packets"] {
        check_killed(object);
    }
}

fn check_killed(object: &str) {
    let namespace = namespace();
    let before = everything_attached(&namespace);
    let weir = Weir::start(&namespace, object, &["ours", "theirs"]);
    let number = weir.number.clone();
    weir.kill();

    let mut leftovers = list(&namespace);
    leftovers.sort_by_key(|leftover| (leftover.interface.to_string(), leftover.direction()));
    for leftover in &leftovers {
        assert_eq!(leftover.status, Status::Dead, "{leftover:?}");
        assert_eq!(leftover.instance.to_string(), number);
        assert!(leftover.name().starts_with("weir_"), "{leftover:?}");
    }
    let places: Vec<(&str, &str)> =
        leftovers.iter().map(|leftover| (&*leftover.interface, leftover.direction().as_str())).collect();
    assert_eq!(
        places,
        [("ours", "ingress"), ("ours", "egress"), ("theirs", "ingress"), ("theirs", "egress")]
    );

    let removals = leftovers.iter().map(|leftover| remove(&namespace, leftover).expect("nobody uses it"));
    let removals: Vec<Removal> = removals.collect();
    // The qdisc goes with the last filter where weir had added it, and stays where it had found it.
    assert_eq!(removals, [Removal::Filter, Removal::FilterAndQdisc, Removal::Filter, Removal::Filter]);
    assert_eq!(everything_attached(&namespace), before);
    assert!(list(&namespace).is_empty());
    assert!(matches!(remove(&namespace, &leftovers[0]), Ok(Removal::Gone)));
}

#[test]
fn two_weirs_live_side_by_side_and_cleanup_leaves_the_live_one_alone() {
    if !require_root() {
        return;
    }
    let namespace = namespace();
    let before = everything_attached(&namespace);
    let first = Weir::start(&namespace, "flow", &["ours", "theirs"]);
    let with_first = everything_attached(&namespace);
    let second = Weir::start(&namespace, "flow", &["ours", "theirs"]);
    assert_ne!(first.number, second.number);
    let live_number = first.number.clone();
    assert!(list(&namespace).iter().all(|leftover| leftover.status == Status::Live));
    assert_eq!(list(&namespace).len(), 8);
    second.kill();

    for leftover in list(&namespace) {
        let is_live = leftover.instance.to_string() == live_number;
        let expect = if is_live { Status::Live } else { Status::Dead };
        assert_eq!(leftover.status, expect, "{leftover:?}");
        let removal = remove(&namespace, &leftover);
        match removal {
            Err(CleanupError::InUse { .. }) => assert!(is_live, "{leftover:?}"),
            Ok(removal) => {
                assert!(!is_live, "{leftover:?}");
                assert_eq!(removal, Removal::Filter);
            }
            Err(error) => panic!("{leftover:?}: {error}"),
        }
    }
    assert_eq!(everything_attached(&namespace), with_first);
    first.end();
    assert_eq!(everything_attached(&namespace), before);
}

#[test]
fn of_two_weirs_each_detaches_its_own() {
    if !require_root() {
        return;
    }
    let namespace = namespace();
    let first = Weir::start(&namespace, "flow", &["theirs"]);
    let with_first = everything_attached(&namespace);
    Weir::start(&namespace, "flow", &["theirs"]).end();
    assert_eq!(everything_attached(&namespace), with_first);
    first.end();
}

#[test]
fn a_filter_with_a_handle_like_ours_is_not_ours() {
    if !require_root() {
        return;
    }
    let namespace = namespace();
    // The program is "return 0" in the classic instructions, which are all that tc itself can make.
    let arguments = "filter add dev theirs ingress prio 1 handle 0x57000123 protocol all bpf bytecode";
    let mut command = namespace.command("tc");
    let status = command.args(arguments.split(' ')).arg("1,6 0 0 0,").status().unwrap();
    assert!(status.success());
    assert!(list(&namespace).is_empty());
}
