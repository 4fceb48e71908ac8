//! TLS of the agent's HTTP interface, seen by curl and by `weir flows`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use weir_integration::{
    Namespace,
    agent::{self, Agent},
    certificates::{Authority, Certified},
    require_root, require_tool,
};

const URL: &str = "https://127.0.0.1:4780";

struct Stage {
    namespace: Namespace,
    authority: Authority,
    directory: TempDir,
}

fn stage() -> Option<Stage> {
    if !require_root() || !require_tool("openssl") || !require_tool("curl") {
        return None;
    }
    let directory = tempfile::tempdir().expect("there is room");
    Some(Stage { namespace: Namespace::new(), authority: Authority::new(), directory })
}

impl Stage {
    /// The configuration of an agent that listens with a certificate of its own.
    fn configuration(&self, more: &str) -> PathBuf {
        let server = self.authority.sign("server", "IP:127.0.0.1");
        let path = self.directory.path().join("weir.yaml");
        let tls = format!("certificate: {}, key: {}", server.certificate.display(), server.key.display());
        let text = format!("interfaces: [lo]\nserver:\n  tls: {{{tls}{more}}}\n");
        fs::write(&path, text).expect("there is room");
        path
    }

    /// An agent, once it listens.
    fn agent(&self, more: &str) -> Agent {
        let agent = Agent::spawn(&self.namespace, Some(&self.configuration(more)), &[]);
        agent.until_says("listening on https://127.0.0.1:4780");
        agent
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let mut curl = self.namespace.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "20"]);
        curl.arg("--cacert").arg(self.authority.certificate());
        curl.args(arguments).output().expect("curl is installed")
    }

    fn flows(&self, authority: &Path, more: &[&Path]) -> Output {
        let mut flows: Command = self.namespace.command(agent::binary());
        flows.args(["flows", "--agent", URL, "--ca-file"]).arg(authority).args(more);
        flows.output().expect("weir starts")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn as_client(certified: &Certified) -> [&Path; 4] {
    ["--cert-file".as_ref(), &certified.certificate, "--key-file".as_ref(), &certified.key]
}

#[test]
fn answers_come_by_tls_and_by_nothing_older_and_nothing_plain() {
    let Some(stage) = stage() else { return };
    let agent = stage.agent("");
    let health = format!("{URL}/healthz");
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let output = stage.curl(&[&version[..], &[&health]].concat());
        assert_eq!(output.stdout, b"ok\n", "{version:?}: {}", said(&output));
    }
    let old = stage.curl(&["--ciphers", "DEFAULT@SECLEVEL=0", "--tlsv1.0", "--tls-max", "1.1", &health]);
    assert!(!old.status.success());
    assert!(!stage.curl(&["http://127.0.0.1:4780/healthz"]).status.success());

    let good = stage.flows(&stage.authority.certificate(), &[]);
    assert!(good.status.success(), "{}", said(&good));
    let other = Authority::new();
    let stranger = stage.flows(&other.certificate(), &[]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(said(&stranger).contains("invalid peer certificate"), "{}", said(&stranger));
    agent.end();
}

#[test]
fn with_an_authority_for_clients_only_those_get_in_that_it_signed() {
    let Some(stage) = stage() else { return };
    let client = stage.authority.sign("client", "DNS:client");
    let others = Authority::new();
    let stranger = others.sign("stranger", "DNS:client");
    let trust = format!(", client_authority: {}", stage.authority.certificate().display());
    let agent = stage.agent(&trust);
    let health = format!("{URL}/healthz");
    let as_curl = |certified: &Certified| {
        let (certificate, key) = (certified.certificate.to_string_lossy(), certified.key.to_string_lossy());
        stage.curl(&["--cert", &certificate, "--key", &key, &health])
    };
    let good = as_curl(&client);
    assert_eq!(good.stdout, b"ok\n", "{}", said(&good));
    for output in [stage.curl(&[&health]), as_curl(&stranger)] {
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    let authority = stage.authority.certificate();
    let good = stage.flows(&authority, &as_client(&client));
    assert!(good.status.success(), "{}", said(&good));
    for output in [stage.flows(&authority, &[]), stage.flows(&authority, &as_client(&stranger))] {
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
    agent.end();
}

#[test]
fn certificates_that_cannot_be_used_are_told_before_anything_starts() {
    let Some(stage) = stage() else { return };
    let file = stage.configuration("");
    let key = stage.authority.directory().join("server.key");
    let cases = [
        ("", "there is none"),
        ("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n", "cannot use the certificate"),
    ];
    for (text, reason) in cases {
        fs::write(&key, text).expect("there is room");
        let output = agent::command(&stage.namespace, Some(&file), &[]).output().expect("weir starts");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(reason), "{}", said(&output));
        assert!(said(&output).contains("server.key"), "{}", said(&output));
        assert!(!said(&output).contains("secret"), "{}", said(&output));
    }
}
