//! Servers that others have written, behind rules.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use weir_integration::{Namespace, require_root, require_tool, tcp::wait_until};

use super::Street;

/// A program that is killed at the end of the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it is installed"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_download_outlives_the_drain_of_its_server_and_a_sick_server_gets_nothing_new() {
    if !require_root() || !require_tool("nginx") || !require_tool("curl") {
        return;
    }
    let street = Street::new();
    let directory = tempfile::tempdir().expect("there is room");
    let mut servers = Vec::new();
    for (namespace, name) in [(&street.first, "first"), (&street.second, "second")] {
        let home = directory.path().join(name);
        fs::create_dir_all(home.join("www")).expect("there is room");
        fs::write(home.join("www/name"), name).expect("there is room");
        fs::write(home.join("www/large"), vec![b'x'; 24 << 20]).expect("there is room");
        let path = home.display();
        // Slow enough that the download is under way for a while.
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/log;
             events {{ worker_connections 256; }}
             http {{ access_log off; client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
                     uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
                     server {{ listen 80; root {path}/www; location /large {{ limit_rate 8m; }} location /ready {{ if (!-f {path}/sick) {{ return 204; }} return 503; }} }} }}"
        );
        fs::write(home.join("nginx.conf"), text).expect("there is room");
        let mut command = namespace.command("nginx");
        servers.push(Running::start(command.arg("-c").arg(home.join("nginx.conf"))));
    }
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(
        "weir proxy rule add web --listen tcp:10.0.0.10:80 --backend 10.0.0.138:80 --backend 10.0.0.139:80,weight=0 \
         --health http:/ready --health-interval 100ms --health-timeout 2s --rise 2 --fall 2",
    );
    let name = || street.machine.types("curl -s --retry 5 --retry-connrefused http://10.0.0.10/name");
    wait_until("the first is up", || street.state(0) == "up" && name() == "first");
    let download = street
        .machine
        .command("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{size_download}", "http://10.0.0.10/large"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    wait_until("the download is under way", || {
        street.json("weir proxy conns -o json")["connections"].as_array().is_some_and(|all| {
            all.iter().any(|it| it["state"] == "established" && it["backend"] == "10.0.0.138:80")
        })
    });
    street.machine.types("weir proxy backend weight web 10.0.0.139:80 1");
    street.machine.types("weir proxy backend drain web 10.0.0.138:80");
    assert_eq!(name(), "second");
    let output = download.wait_with_output().expect("curl ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), (24u64 << 20).to_string());

    street.machine.types("weir proxy backend undrain web 10.0.0.138:80");
    wait_until("both are up", || street.state(0) == "up" && street.state(1) == "up");
    fs::write(directory.path().join("second/sick"), "").expect("there is room");
    wait_until("the second is down", || street.state(1) == "down");
    for _ in 0..20 {
        assert_eq!(name(), "first");
    }
    assert!(street.machine.types("weir proxy ls").contains("answers with status 503"));
    let metrics = "curl -s --unix-socket /run/weir/proxy/control.sock http://localhost/metrics";
    let metrics = street.machine.types(metrics);
    assert!(metrics.contains("weir_proxy_backend_up{rule=\"web\",backend=\"10.0.0.139:80\"} 0"), "{metrics}");
    drop(servers.remove(0));
    wait_until("the first is down", || street.state(0) == "down");
    let refused = street.machine.shell("curl -s -m 5 http://10.0.0.10/name");
    assert_eq!(refused.status.code(), Some(7), "nobody is left, so the connection is refused");
    fs::remove_file(directory.path().join("second/sick")).expect("it is there");
    wait_until("the second is up again", || street.state(1) == "up");
    assert_eq!(name(), "second");
}

#[test]
fn questions_about_names_are_diverted_over_both_transports() {
    if !require_root() || !require_tool("dnsmasq") || !require_tool("dig") {
        return;
    }
    let street = Street::new();
    let serve = |namespace: &Namespace, address: &str| {
        let record = format!("--address=/name.example/{address}");
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--pid-file=",
            "--user=root",
            &record,
        ]);
        Running::start(&mut command)
    };
    let first = serve(&street.first, "192.0.2.1");
    let _second = serve(&street.second, "192.0.2.2");
    street.machine.types("weir proxy run -i veth0 --detach");
    street.machine.types(
        "weir proxy rule add names --listen udp:10.0.0.10:53 --listen tcp:10.0.0.10:53 --listen udp:10.0.0.10:5353 --backend 10.0.0.138:53 \
         --health udp:0001010000010000000000000000020001 --health-interval 100ms --health-timeout 2s --fall 2",
    );
    street.machine.types("weir proxy rule add names6 --listen 'udp:[fd00::a]:53' --backend '[fd00::8a]:53'");
    let ask = |options: &str| {
        street
            .machine
            .types(&format!("dig +short +tries=5 +timeout=2 {options} name.example"))
            .trim()
            .to_owned()
    };
    wait_until("the first is up", || street.state(0) == "up" && ask("@10.0.0.10") == "192.0.2.1");
    assert_eq!(ask("+tcp @10.0.0.10"), "192.0.2.1");
    assert_eq!(ask("-p 5353 @10.0.0.10"), "192.0.2.1");
    assert_eq!(ask("@fd00::a"), "192.0.2.1");
    // The same socket, so the same connection as far as the kernel sees: it gets another backend all the same.
    street.machine.types(
        "weir proxy rule add names --listen udp:10.0.0.10:53 --listen tcp:10.0.0.10:53 --backend 10.0.0.138:53 --backend 10.0.0.139:53 \
         --health udp:0001010000010000000000000000020001 --health-interval 100ms --health-timeout 2s --fall 2",
    );
    drop(first);
    wait_until("the first is down", || street.state(0) == "down" && street.state(1) == "up");
    for _ in 0..10 {
        assert_eq!(ask("-b 10.0.0.1#4000 @10.0.0.10"), "192.0.2.2");
    }
}

/// Errors of checksums that a namespace counted.
fn checksum_errors(namespace: &Namespace) -> String {
    let counted = namespace.tool("nstat", "-asz");
    let errors = counted.lines().filter(|line| line.contains("CsumErrors"));
    errors.filter(|line| line.split_whitespace().nth(1) != Some("0")).collect()
}

/// A socat that gives every connection at a port to this script.
fn serve_by(namespace: &Namespace, port: u16, script: &Path, text: &str) -> Running {
    fs::write(script, text).expect("there is room");
    let mut socat = namespace.command("socat");
    socat.arg(format!("TCP-LISTEN:{port},fork,reuseaddr")).arg(format!("EXEC:sh {}", script.display()));
    Running::start(&mut socat)
}

/// Sets all offloads of the client and of the first backend.
fn offload(street: &Street, to: &str) {
    for namespace in [&street.client, &street.first] {
        namespace.offload("veth0", &format!("tx {to} rx {to} sg {to} gso {to} gro {to}"));
    }
}

#[test]
fn a_gigabyte_arrives_as_it_was_sent_and_no_checksum_is_wrong() {
    if !require_root() || !require_tool("socat") || !require_tool("openssl") || !require_tool("nstat") {
        return;
    }
    let street = Street::diverted();
    let directory = tempfile::tempdir().expect("there is room");
    let arrived = directory.path().join("arrived");
    let bytes = |mebibytes: u32| {
        format!(
            "head -c {mebibytes}M /dev/zero | openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv 0123456789abcdef0123456789abcdef"
        )
    };
    let to = arrived.display();
    let keep = format!("sha1sum > {to}.new && mv {to}.new {to}");
    let _up = serve_by(&street.first, 80, &directory.path().join("up"), &keep);
    let _down = serve_by(&street.first, 81, &directory.path().join("down"), &bytes(256));
    street.machine.types(
        "weir proxy rule add up --listen tcp:10.0.0.10:80 --backend 10.0.0.138:80
         weir proxy rule add down --listen tcp:10.0.0.10:81 --backend 10.0.0.138:81",
    );
    for (offloads, mebibytes) in [("on", 1024), ("off", 64)] {
        offload(&street, offloads);
        drop(fs::remove_file(&arrived));
        let sent = street.machine.types(&format!("{} | sha1sum", bytes(mebibytes)));
        street.machine.types(&format!("{} > /dev/tcp/10.0.0.10/80", bytes(mebibytes)));
        wait_until("everything has arrived", || arrived.exists());
        let arrived = fs::read_to_string(&arrived).expect("it is there");
        assert_eq!(arrived, sent, "{mebibytes} MiB, offloads {offloads}");
    }
    let fetched = street.machine.types("cat < /dev/tcp/10.0.0.10/81 | sha1sum");
    assert_eq!(fetched, street.machine.types(&format!("{} | sha1sum", bytes(256))));
    for namespace in [&street.client, &street.first] {
        assert_eq!(checksum_errors(namespace), "");
    }
}

/// Frames of a capture that tshark finds to be like this.
fn frames(capture: &Path, like: &str) -> String {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture);
    for option in ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"] {
        tshark.args(["-o", option]);
    }
    let output = tshark.args(["-Y", like]).output().expect("it is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn streams_and_datagrams_of_a_benchmark_get_through_and_nobody_sees_a_wrong_checksum() {
    if !require_root() || !require_tool("iperf3") || !require_tool("tcpdump") || !require_tool("tshark") {
        return;
    }
    let street = Street::diverted();
    let mut server = street.first.command("iperf3");
    let _server = Running::start(server.args(["-s", "-p", "5201"]));
    street.machine.types(
        "weir proxy rule add iperf --listen tcp:10.0.0.10:5201 --listen udp:10.0.0.10:5201 --backend 10.0.0.138:5201",
    );
    let directory = tempfile::tempdir().expect("there is room");
    for offloads in ["on", "off"] {
        offload(&street, offloads);
        let watched: Vec<(Running, _)> = [(&street.client, "client"), (&street.first, "server")]
            .into_iter()
            .filter(|_| offloads == "off")
            .map(|(namespace, name)| {
                let path = directory.path().join(name);
                let mut tcpdump = namespace.command("tcpdump");
                tcpdump
                    .args(["-i", "veth0", "-n", "-s", "0", "-U", "-Z", "root", "-c", "4000", "-w"])
                    .arg(&path);
                let running = Running::start(&mut tcpdump);
                wait_until("tcpdump listens", || path.exists());
                (running, path)
            })
            .collect();
        for (options, sum) in [
            ("-n 32M", "sum_received"),
            ("-n 32M -R -P 3", "sum_received"),
            ("-u -b 50M -n 4M", "sum"),
            ("-u -b 50M -n 4M -R", "sum"),
        ] {
            let line = format!("iperf3 -J -c 10.0.0.10 -p 5201 {options}");
            let mut report = serde_json::Value::Null;
            // The server says that it is busy until it has put the last test away.
            wait_until("iperf3 has its turn", || {
                let output = street.machine.shell(&line);
                report = serde_json::from_slice(&output.stdout).unwrap_or_default();
                output.status.success()
            });
            let bytes = report["end"][sum]["bytes"].as_f64().unwrap_or_default();
            assert!(bytes > 3e6, "{line}: {report}");
        }
        for (running, path) in watched {
            drop(running);
            let good = frames(&path, "tcp.checksum.status == Good || udp.checksum.status == Good");
            // Linux writes ffff where the sum of TCP is 0, which means the same.
            let bad = frames(
                &path,
                "ip.checksum.status == Bad || (tcp.checksum.status == Bad && tcp.checksum != 0xffff) || udp.checksum.status == Bad",
            );
            assert!(good.lines().count() > 1000 && bad.is_empty(), "{}: {bad}", path.display());
        }
    }
    for namespace in [&street.client, &street.first] {
        assert_eq!(checksum_errors(namespace), "");
    }
}
