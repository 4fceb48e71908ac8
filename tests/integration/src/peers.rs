//! nginx and Redis, each in a directory of its own and on a unix socket, so that no port is needed. They end when dropped.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::require_tool;

const PATIENCE: Duration = Duration::from_mins(1);

/// A server.
#[derive(Debug)]
pub struct Peer {
    directory: TempDir,
    process: Child,
}

impl Peer {
    /// nginx with these lines in its server. Files are served from [`Peer::directory`]. `None` if it is not installed, which has then been said.
    #[must_use]
    pub fn nginx(lines: &str) -> Option<Self> {
        if !require_tool("nginx") {
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().display();
        // One process, which keeps everything below its directory.
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/log;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {path}/t1;\nproxy_temp_path {path}/t2;\nfastcgi_temp_path {path}/t3;\n\
             uwsgi_temp_path {path}/t4;\nscgi_temp_path {path}/t5;\n\
             server {{\nlisten unix:{path}/socket;\nroot {path};\n{lines}\n}}\n}}\n"
        );
        fs::write(directory.path().join("configuration"), configuration).expect("there is room");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(directory.path().join("configuration"));
        Some(Self::start(command, directory))
    }

    /// Redis with a password. `None` if it is not installed, which has then been said.
    #[must_use]
    pub fn redis(password: &str) -> Option<Self> {
        Self::redis_at(password, 0)
    }

    /// The same, which also listens at a port that is known to be free.
    #[must_use]
    pub fn redis_at(password: &str, port: u16) -> Option<Self> {
        if !require_tool("redis-server") {
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room");
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            password,
        ]);
        command.arg("--unixsocket").arg(directory.path().join("socket")).arg("--dir").arg(directory.path());
        Some(Self::start(command, directory))
    }

    fn start(mut command: Command, directory: TempDir) -> Self {
        let log = fs::File::create(directory.path().join("output")).expect("there is room");
        let errors = log.try_clone().expect("there are descriptors");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let peer = Self { process: command.spawn().expect("it is installed"), directory };
        let start = Instant::now();
        while UnixStream::connect(peer.socket()).is_err() {
            let output = fs::read_to_string(peer.directory.path().join("output")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "{output}");
            std::thread::yield_now();
        }
        peer
    }

    /// The number of its process.
    pub fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}
