//! `weir proxy` where client and backend are the same machine, as typed.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread,
};

use weir_integration::{Namespace, machine::Machine, require_root, require_tool, tcp::wait_until};

/// Answers every request over HTTP.
fn serve(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind("10.0.0.1:8080")).expect("it works in a test");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut room = [0; 1024];
            drop(stream.read(&mut room));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"));
        }
    });
}

/// A machine at 10.0.0.1 whose backend there answers at port 8080.
fn machine_with_backend(namespace: &Namespace) -> Machine {
    namespace.ip("link add veth0 type veth peer name nobody");
    namespace.ip("link set nobody up");
    namespace.ip("address add 10.0.0.1/24 dev veth0");
    namespace.ip("link set veth0 up");
    serve(namespace);
    Machine::new(namespace)
}

const ADD: &str = "weir proxy rule add web --listen tcp:10.0.0.10:80 --backend 10.0.0.1:8080";

/// Calls the listener from a process of this cgroup.
fn call_from(group: &Path) -> String {
    format!(
        "echo $$ >{}/cgroup.procs && exec curl -s --max-time 5 -w ' %{{remote_ip}}' http://10.0.0.10:80",
        group.display()
    )
}

#[test]
fn a_backend_on_the_same_machine_is_reached_and_every_command_says_how() {
    if !require_root() || !require_tool("curl") {
        return;
    }
    let machine = machine_with_backend(&Namespace::new());
    let Some(groups) = machine.groups() else { return };
    let call = call_from(groups);

    machine.types("weir proxy run -i veth0 --detach");
    machine.types(ADD);
    assert_eq!(machine.types(&call), "hello 10.0.0.10");
    let listed = machine.types("weir proxy ls");
    for part in ["(cgroup)\n", "on this machine: its sockets are led there (cgroup)"] {
        assert!(listed.contains(part), "{part} in\n{listed}");
    }
    let stats = machine.types("weir proxy stats -o json");
    assert!(stats.contains("\"sockets\":1"), "{stats}");
    let traced = machine.types("weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:80'");
    assert!(traced.contains("is led to 10.0.0.1:8080 as it connects"), "{traced}");
    let looked = machine.types("weir proxy doctor");
    assert!(looked.contains("are led to backends on this machine"), "{looked}");
    let metrics = machine
        .types("curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/metrics | grep sockets");
    assert!(metrics.contains("weir_proxy_rule_sockets_total{rule=\"web\"} 1"), "{metrics}");

    // Without a control process, and with another one.
    machine.kill_proxy();
    assert_eq!(machine.types(&call), "hello 10.0.0.10");
    assert!(machine.types("weir proxy ls").contains("its sockets are led there"));
    machine.types("weir proxy run --detach");
    assert_eq!(machine.types(&call), "hello 10.0.0.10");
    assert!(machine.types("weir proxy stats -o json").contains("\"sockets\":3"));

    let torn = machine.types("weir proxy teardown");
    assert_eq!(torn.matches("removed: cgroup program weir_").count(), 8, "{torn}");
    assert!(!machine.shell(&call).status.success(), "nobody leads it any more");
    machine.types("weir proxy run -i veth0 --local off --detach");
    assert!(machine.types("weir proxy ls").contains("sockets:    left alone\n"));
}

#[test]
fn a_cgroup_outlasts_restarts_and_is_attached_to_again_when_it_is_made_anew() {
    if !require_root() || !require_tool("curl") {
        return;
    }
    let machine = machine_with_backend(&Namespace::new());
    let Some(groups) = machine.groups() else { return };
    let service = groups.join("service");
    let (make, remove) = (format!("mkdir {}", service.display()), format!("rmdir {}", service.display()));
    let sockets = format!("sockets:    {} (cgroup)", service.display());
    machine.types(&make);
    machine.types(&format!("weir proxy run -i veth0 --cgroup {} --detach", service.display()));
    machine.types(ADD);
    assert_eq!(machine.types(&call_from(&service)), "hello 10.0.0.10");

    machine.kill_proxy();
    machine.types("weir proxy run --detach");
    let listed = machine.types("weir proxy ls");
    assert!(listed.contains(&sockets), "{listed}");

    // A service that ends takes its cgroup with it.
    machine.types(&remove);
    wait_until("the doctor misses the cgroup", || {
        let looked = machine.shell("weir proxy doctor");
        let said = String::from_utf8_lossy(&looked.stdout).into_owned();
        looked.status.code() == Some(1) && said.contains("cannot attach to the cgroup")
    });
    machine.types(&make);
    wait_until("the cgroup is attached to", || machine.types("weir proxy ls").contains(&sockets));
    assert_eq!(machine.types(&call_from(&service)), "hello 10.0.0.10");
    machine.types("weir proxy doctor");

    machine.kill_proxy();
    machine.types("weir proxy run --local off --detach");
    machine.kill_proxy();
    machine.types("weir proxy run --detach");
    assert!(machine.types("weir proxy ls").contains("sockets:    left alone\n"));
    machine.types("weir proxy teardown");
    machine.types(&remove);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    if !require_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link add veth0 type veth peer name nobody");
    let machine = Machine::new(&namespace);
    let said = machine.types_in_vain("weir proxy run -i veth0 -i etn1", 2);
    assert!(said.contains("etn1"), "{said}");
    assert_eq!(machine.types("find /sys/fs/bpf -name 'weir*'"), "");
    let there = machine.types("weir proxy teardown");
    assert!(!there.contains("removed"), "{there}");
}
