//! A PostgreSQL server of Debian, in a directory of its own, run by a user without privileges.
//!
//! It listens on a unix socket in that directory and on a port of the loopback interface. It ends when it is dropped.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use crate::{cannot_run, permission::succeed, reserved_port::ReservedPort};

/// Where Debian keeps its programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

const PATIENCE: Duration = Duration::from_mins(1);

/// A server. Its superuser is `postgres`, who needs no password on the unix socket.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    port: u16,
    /// Nobody else gets the port while the server is away.
    _reserved: Option<ReservedPort>,
    settings: Vec<String>,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a server with a database `weir` and a role of that name with the password `secret`, who must give it when
    /// coming by TCP. `None` if that cannot be done here, which has then been said.
    #[must_use]
    pub fn start() -> Option<Self> {
        let reserved = ReservedPort::new();
        let port = reserved.address().port();
        Self::started(port, Some(reserved))
    }

    /// The same at a port that is known to be free.
    #[must_use]
    pub fn start_at(port: u16) -> Option<Self> {
        Self::started(port, None)
    }

    fn started(port: u16, reserved: Option<ReservedPort>) -> Option<Self> {
        if !Path::new(PROGRAMS).join("initdb").is_file() {
            cannot_run(&format!("{PROGRAMS}/initdb is missing: install postgresql-15"));
            return None;
        }
        if geteuid().is_root() && !crate::require_tool("setpriv") {
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("there is room");
        if geteuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
            chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let mut initdb = program("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        succeed(initdb.args(["--locale", "C"]));
        let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("there is room");
        let mut postgres = Self { directory, port, _reserved: reserved, settings: Vec::new(), server: None };
        postgres.start_again();
        postgres.query("CREATE ROLE weir LOGIN PASSWORD 'secret'");
        postgres.query("CREATE DATABASE weir OWNER weir");
        Some(postgres)
    }

    /// Directory of its unix socket, which is its host too.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A setting for the next start, `name=value`.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Starts it where it was, and waits until it answers.
    pub fn start_again(&mut self) {
        let mut command = program("postgres");
        command.arg("-D").arg(self.directory.path().join("data"));
        command.arg("-k").arg(self.directory.path()).args(["-p", &self.port.to_string()]);
        // A test kills the server and not the machine. With `fsync` it would write all of its files to a disk that others
        // keep busy before it starts again.
        for setting in ["listen_addresses=127.0.0.1", "autovacuum=off", "max_connections=30", "fsync=off"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = fs::File::options().append(true).create(true).open(self.log_file()).expect("there is room");
        command.stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("it is installed"));
        let start = Instant::now();
        while self.try_query("postgres", "SELECT 1").is_none() {
            assert!(start.elapsed() < PATIENCE, "{}", self.log());
            std::thread::yield_now();
        }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Ends it and all its processes at once, as a crash of the machine would.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        for pid in Self::processes(&server) {
            kill(pid, Signal::SIGKILL).ok();
        }
        server.wait().expect("it is our child");
        // Or the next one takes it for running.
        fs::remove_file(self.directory.path().join("data/postmaster.pid")).ok();
    }

    /// Stops all its processes: it takes what the kernel takes for it, and answers nothing.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.server.as_ref().expect("it runs");
        for pid in Self::processes(server) {
            kill(pid, signal).ok();
        }
    }

    /// The server, first, and the processes that it started. It is stopped, so that it starts no others meanwhile.
    fn processes(server: &Child) -> Vec<Pid> {
        let pid = server.id();
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid fits")), Signal::SIGSTOP).ok();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        [i32::try_from(pid).expect("a pid fits")].into_iter().chain(children).map(Pid::from_raw).collect()
    }

    /// Asks the database `weir` as superuser; gives back lines of values with `|` between them.
    pub fn query(&self, statement: &str) -> String {
        let is_global = ["CREATE ROLE", "CREATE DATABASE", "CREATE TABLESPACE"];
        let is_global = is_global.iter().any(|begin| statement.starts_with(begin));
        let database = if is_global { "postgres" } else { "weir" };
        self.try_query(database, statement).unwrap_or_else(|| panic!("{statement}: {}", self.log()))
    }

    /// Asks a database. `None` where that fails.
    pub fn try_query(&self, database: &str, statement: &str) -> Option<String> {
        let mut psql = Command::new(Path::new(PROGRAMS).join("psql"));
        psql.arg("-h").arg(self.directory.path()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
        psql.args(["-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        let output = psql.output().expect("it is installed");
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        output.status.success().then_some(text)
    }

    /// Makes a certificate for `name`, signed by one of its own, and serves TLS with it from the next start on. Gives back the
    /// file of the signer.
    pub fn enable_tls(&mut self, name: &str) -> PathBuf {
        let directory = self.directory.path().to_owned();
        let at = |file: &str| directory.join(file).display().to_string();
        let openssl = |arguments: &[&str]| succeed(Command::new("openssl").args(arguments));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=signer of this test",
            "-keyout",
            &at("ca.key"),
            "-out",
            &at("ca.crt"),
        ]);
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=server",
            "-keyout",
            &at("server.key"),
            "-out",
            &at("server.csr"),
        ]);
        fs::write(at("names"), format!("subjectAltName={name}\n")).expect("there is room");
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &at("server.csr"),
            "-CA",
            &at("ca.crt"),
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-extfile",
            &at("names"),
            "-out",
            &at("server.crt"),
        ]);
        if geteuid().is_root() {
            for file in ["server.key", "server.crt"] {
                chown(at(file), Some(NOBODY), Some(NOBODY)).expect("root may");
            }
        }
        self.set("ssl=on");
        self.set(&format!("ssl_cert_file={}", at("server.crt")));
        self.set(&format!("ssl_key_file={}", at("server.key")));
        directory.join("ca.crt")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of the server, which refuses to run as root.
fn program(name: &str) -> Command {
    let path = Path::new(PROGRAMS).join(name);
    if !geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(path);
    // It cannot look at where the test runs.
    command.current_dir("/");
    command
}
