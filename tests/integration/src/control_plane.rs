//! A real control plane of Kubernetes, one for each test that asks for it: etcd, the API server and, if wanted, the
//! controller manager. There is no kubelet: what it would report is said by patching the status.
//!
//! Everything listens on loopback, lives in a temporary directory and ends with the value. `cargo xtask setup` builds
//! the binary; `cargo xtask test` says where it is.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{cannot_run, permission::succeed, require_tool, reserved_port::ReservedPort};

mod link;

pub use link::Link;

/// Tells where the binary is.
const VARIABLE: &str = "WEIR_CONTROL_PLANE";

/// How long anything here may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

const ADMIN: &str = "admintoken";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    directory: TempDir,
    // Nobody else gets them before a server listens, nor while it is away.
    etcd_port: ReservedPort,
    peer_port: ReservedPort,
    api_port: ReservedPort,
    manager_port: ReservedPort,
    etcd: Option<Program>,
    api_server: Option<Program>,
    controller_manager: Option<Program>,
}

/// A program that ends when it is dropped.
#[derive(Debug)]
struct Program(Child);

impl ControlPlane {
    /// Starts etcd and an API server, and waits until it answers. `None` if that cannot be done here, which has then
    /// been said.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(binary) = env::var_os(VARIABLE).map(PathBuf::from) else {
            cannot_run(&format!(
                "{VARIABLE} is not set: run it by `cargo xtask test netns`, with Go installed"
            ));
            return None;
        };
        if !binary.is_file() {
            cannot_run(&format!("{} is not there: run `cargo xtask setup`", binary.display()));
            return None;
        }
        if !require_tool("openssl") || !require_tool("setpriv") {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory for the control plane");
        for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
            symlink(&binary, directory.path().join(name)).expect("a new directory takes links");
        }
        let mut plane = Self {
            directory,
            etcd_port: ReservedPort::new(),
            peer_port: ReservedPort::new(),
            api_port: ReservedPort::new(),
            manager_port: ReservedPort::new(),
            etcd: None,
            api_server: None,
            controller_manager: None,
        };
        plane.write_keys();
        plane.start_etcd();
        plane.start_api();
        Some(plane)
    }

    /// Starts the controllers: replica sets make pods, services get endpoint slices.
    pub fn start_controllers(&mut self) {
        let kubeconfig = self.kubeconfig("admin", ADMIN);
        let port = self.manager_port.address().port().to_string();
        let flag = |name: &str| format!("--{name}={}", kubeconfig.display());
        let mut manager = self.program("kube-controller-manager");
        manager
            .args([flag("kubeconfig"), flag("authentication-kubeconfig"), flag("authorization-kubeconfig")])
            .args(["--authentication-skip-lookup", "--leader-elect=false", "--bind-address=127.0.0.1"])
            .args(["--secure-port", &port])
            .arg(self.flag_with_path("service-account-private-key-file", "sa.key"))
            .arg(self.flag_with_path("root-ca-file", "certificates/apiserver.crt"))
            .arg("--controllers=*,-nodeipam,-certificatesigningrequest-signing-controller,-node-lifecycle-controller");
        self.controller_manager = Some(self.spawn(manager, "kube-controller-manager"));
    }

    /// Ends the API server, as a crash would.
    pub fn stop_api(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server where it was, and waits until it answers.
    pub fn start_api(&mut self) {
        let mut server = self.program("kube-apiserver");
        server
            .arg(format!("--etcd-servers=http://{}", self.etcd_port.address()))
            .args([
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
            ])
            .args(["--secure-port", &self.api_port().to_string()])
            .arg(self.flag_with_path("cert-dir", "certificates"))
            .arg(self.flag_with_path("token-auth-file", "tokens.csv"))
            .arg(self.flag_with_path("service-account-key-file", "sa.pub"))
            .arg(self.flag_with_path("service-account-signing-key-file", "sa.key"))
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=Node,RBAC",
            ])
            .arg("--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112");
        self.api_server = Some(self.spawn(server, "kube-apiserver"));
        // The certificate is made by the server, and the client's configuration needs it.
        wait("the API server", || {
            self.path("certificates/apiserver.crt").is_file() && self.try_get("/readyz").is_ok()
        });
        // It makes this by itself, perhaps after it said that it is ready.
        wait("the default namespace", || self.try_get("/api/v1/namespaces/default").is_ok());
    }

    /// Forgets the past: a watch from before ends with 410 Gone. The API server is restarted, because it has a memory
    /// of its own.
    pub fn compact(&mut self) {
        let revision = self.get("/api/v1/namespaces/default")["metadata"]["resourceVersion"].clone();
        // The list tells the newest revision.
        let newest = self.get("/api/v1/namespaces")["metadata"]["resourceVersion"].clone();
        let newest = newest.as_str().or(revision.as_str()).expect("lists have a version").to_owned();
        self.stop_api();
        let body = json!({ "revision": newest, "physical": true }).to_string();
        let answer = post(self.etcd_port.address().port(), "/v3/kv/compaction", &body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        self.etcd = None;
        self.start_etcd();
        self.start_api();
    }

    /// The port of the API server.
    pub fn api_port(&self) -> u16 {
        self.api_port.address().port()
    }

    /// Makes objects. An error is a failure of the test.
    pub fn create(&self, objects: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string();
        let file = self.path("objects.json");
        fs::write(&file, list).expect("the temporary directory takes files");
        succeed(self.kubectl().args(["create", "-f"]).arg(file));
    }

    /// Applies a manifest, checked as strictly as the server can.
    pub fn apply(&self, manifest: &Path) {
        succeed(self.kubectl().args(["apply", "--validate=strict", "-f"]).arg(manifest));
    }

    /// Merges into the status of an object, as a kubelet does.
    pub fn patch_status(&self, kind: &str, namespace: &str, name: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let mut kubectl = self.kubectl();
        kubectl.args(["patch", kind, name, "--namespace", namespace, "--subresource=status", "--type=merge"]);
        succeed(kubectl.args(["--patch", &patch]));
    }

    /// Runs kubectl as the administrator; returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(self.kubectl().args(arguments))
    }

    /// Runs kubectl as the administrator; returns what it prints, or what it complains about.
    pub fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.kubectl().args(arguments).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Posts to a path of the API that kubectl has no command for.
    pub fn post(&self, path: &str, object: &Value) {
        let file = self.path("posted.json");
        fs::write(&file, object.to_string()).expect("the temporary directory takes files");
        succeed(self.kubectl().args(["create", "--raw", path, "-f"]).arg(file));
    }

    /// Deletes a pod at once, as if its kubelet had done so.
    pub fn delete_pod(&self, namespace: &str, name: &str) {
        let arguments =
            ["delete", "pod", name, "--namespace", namespace, "--grace-period=0", "--force", "--wait=false"];
        self.run(&arguments);
    }

    /// What a path of the API answers.
    pub fn get(&self, path: &str) -> Value {
        let text = self.try_get(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    fn try_get(&self, path: &str) -> Result<String, String> {
        self.try_run(&["get", "--raw", path])
    }

    /// A kubeconfig for a service account, with a token that the server made for it.
    pub fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.run(&["create", "token", name, "--namespace", namespace]);
        self.kubeconfig(name, token.trim())
    }

    /// A kubeconfig for the administrator.
    pub fn admin(&self) -> PathBuf {
        self.kubeconfig("admin", ADMIN)
    }

    /// A kubeconfig for the administrator by way of another port.
    pub fn admin_through(&self, link: &Link) -> PathBuf {
        self.write_kubeconfig("through-link", ADMIN, link.port())
    }

    fn kubeconfig(&self, user: &str, token: &str) -> PathBuf {
        self.write_kubeconfig(user, token, self.api_port())
    }

    fn write_kubeconfig(&self, user: &str, token: &str, port: u16) -> PathBuf {
        let file = self.path(&format!("{user}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "users": [{ "name": user, "user": { "token": token } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.path("certificates/apiserver.crt"),
            }}],
        });
        fs::write(&file, config.to_string()).expect("the temporary directory takes files");
        file
    }

    fn kubectl(&self) -> Command {
        let mut kubectl = self.program("kubectl");
        kubectl.arg("--kubeconfig").arg(self.kubeconfig("admin", ADMIN)).env("HOME", self.directory.path());
        kubectl
    }

    fn write_keys(&self) {
        fs::create_dir(self.path("certificates")).expect("a new directory takes another");
        fs::write(self.path("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))
            .expect("a new directory takes files");
        let (key, public) = (self.path("sa.key"), self.path("sa.pub"));
        succeed(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"));
        succeed(Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(key).arg("-out").arg(public));
    }

    fn start_etcd(&mut self) {
        let clients = format!("http://{}", self.etcd_port.address());
        let peers = format!("http://{}", self.peer_port.address());
        let mut etcd = self.program("etcd");
        etcd.arg("--data-dir")
            .arg(self.path("etcd-data"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(["--unsafe-no-fsync", "--log-level", "warn"]);
        self.etcd = Some(self.spawn(etcd, "etcd"));
        wait("etcd", || TcpStream::connect(self.etcd_port.address()).is_ok());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn flag_with_path(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    fn program(&self, name: &str) -> Command {
        // Not even a test that is killed leaves anything running.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(self.path(name)).stdin(Stdio::null());
        command
    }

    fn spawn(&self, mut command: Command, name: &str) -> Program {
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log")));
        let log = log.expect("the temporary directory takes files");
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        Program(command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}")))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("last lines of the API server, the newest first:\n{}", lines.join("\n"));
        }
        // Those that depend on others first.
        (self.controller_manager, self.api_server, self.etcd) = (None, None, None);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is as good as one that we end.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until something holds; fails the test after [`PATIENCE`].
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        #[expect(
            clippy::disallowed_methods,
            reason = "the server offers nothing to wait for but its answer"
        )]
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn post(port: u16, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
