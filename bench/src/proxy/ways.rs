//! How a connection gets from the client to the server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use weir_datapath::redirect::{Place, Redirect, Role, Settings, Transport};
use weir_integration::{Namespace, Neighbours, Veth, redirecting::one_to_one};

use crate::traffic::{self, Load, Measured, Server};

/// What clients call.
const CALLED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

/// Port of the server, and of what is called.
const PORT: u16 = 7000;

/// Ports at which proxies listen, in the namespace of the client.
const HAPROXY_PORT: u16 = 7001;
const SOCAT_PORT: u16 = 7002;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To the server itself.
    Direct,
    /// The same once more.
    DirectAgain,
    /// By our programs on the client's interface.
    Weir,
    /// By DNAT in the output chain of nftables.
    Nftables,
    /// By `HAProxy`, mode tcp.
    Haproxy,
    /// By socat, a process for each connection.
    Socat,
}

impl Way {
    pub(super) const ALL: [Self; 6] =
        [Self::Direct, Self::DirectAgain, Self::Weir, Self::Nftables, Self::Haproxy, Self::Socat];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectAgain => "direct again",
            Self::Weir => "weir",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy",
            Self::Socat => "socat",
        }
    }
}

/// A client and a server on one wire, and everything that may stand between them.
pub(super) struct Stage {
    wire: Veth,
    server: Server,
    root: PathBuf,
    redirect: Redirect,
    proxies: Vec<(Way, Child)>,
    has_nft: bool,
}

impl Stage {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (client, server) = (Namespace::new(), Namespace::new());
        let wire = Veth::connect((&client, "left0"), (&server, "right0"), 1, Neighbours::Static);
        client.ip(&format!("route add {CALLED}/32 via {}", wire.right.ipv4));
        let answering = Server::listen(&wire.right.namespace, (wire.right.ipv4, PORT).into())?;
        let root = PathBuf::from(format!("/sys/fs/bpf/weir-bench-{}", std::process::id()));
        let redirect = client.run(|| load(&root, (wire.right.ipv4, PORT).into()))?;
        let mut stage = Self { wire, server: answering, root, redirect, proxies: Vec::new(), has_nft: false };
        stage.has_nft = stage.nft_works();
        stage.start_proxies()?;
        Ok(stage)
    }

    /// Whether this way can be taken here.
    pub(super) fn has(&self, way: Way) -> bool {
        match way {
            Way::Direct | Way::DirectAgain | Way::Weir => true,
            Way::Nftables => self.has_nft,
            Way::Haproxy | Way::Socat => self.proxies.iter().any(|(there, _)| *there == way),
        }
    }

    /// Makes the way; what clients have to call.
    pub(super) fn enter(&mut self, way: Way) -> anyhow::Result<SocketAddr> {
        let client = self.wire.left.namespace.clone();
        Ok(match way {
            Way::Direct | Way::DirectAgain => (self.wire.right.ipv4, PORT).into(),
            Way::Weir => {
                let place = Place { interface: self.wire.left.name.clone(), role: Role::Uplink };
                let redirect = &mut self.redirect;
                client.run(|| redirect.attach(&place))?;
                (CALLED, PORT).into()
            }
            Way::Nftables => {
                self.nft(&self.dnat())?;
                (CALLED, PORT).into()
            }
            Way::Haproxy => (Ipv4Addr::LOCALHOST, HAPROXY_PORT).into(),
            Way::Socat => (Ipv4Addr::LOCALHOST, SOCAT_PORT).into(),
        })
    }

    /// Takes the way away again.
    pub(super) fn leave(&mut self, way: Way) -> anyhow::Result<()> {
        match way {
            Way::Weir => {
                let client = self.wire.left.namespace.clone();
                let (name, redirect) = (self.wire.left.name.clone(), &mut self.redirect);
                client.run(|| redirect.detach(&name))?;
                client.run(|| redirect.expire())?;
            }
            Way::Nftables => self.nft("delete table ip weir_bench")?,
            Way::Direct | Way::DirectAgain | Way::Haproxy | Way::Socat => {}
        }
        Ok(())
    }

    pub(super) fn measure(
        &self,
        load: Load,
        address: SocketAddr,
        milliseconds: u64,
    ) -> anyhow::Result<Measured> {
        let others: Vec<u32> = self.proxies.iter().map(|(_, child)| child.id()).collect();
        traffic::measure(load, &self.wire.left.namespace, address, &self.server, milliseconds, &others)
    }

    fn dnat(&self) -> String {
        let server = self.wire.right.ipv4;
        format!(
            "add table ip weir_bench; add chain ip weir_bench out {{ type nat hook output priority -100; }}; \
             add rule ip weir_bench out ip daddr {CALLED} tcp dport {PORT} dnat to {server}:{PORT}"
        )
    }

    fn nft(&self, commands: &str) -> anyhow::Result<()> {
        let output =
            self.wire.left.namespace.command("nft").arg(commands).output().context("cannot run nft")?;
        if !output.status.success() {
            bail!("nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn nft_works(&self) -> bool {
        let works = self.nft(&self.dnat()).is_ok();
        works && self.nft("delete table ip weir_bench").is_ok()
    }

    /// Those that are installed run all the time; who is not called costs nothing.
    fn start_proxies(&mut self) -> anyhow::Result<()> {
        let server = self.wire.right.ipv4;
        let config = format!(
            "global\n nbthread 2\n maxconn 2000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen bench\n bind 127.0.0.1:{HAPROXY_PORT}\n server one {server}:{PORT}\n"
        );
        let path = std::env::temp_dir().join(format!("weir-bench-{}.cfg", std::process::id()));
        std::fs::write(&path, config)?;
        let mut haproxy = self.wire.left.namespace.command("haproxy");
        haproxy.arg("-db").arg("-f").arg(&path);
        let mut socat = self.wire.left.namespace.command("socat");
        socat
            .arg(format!("TCP-LISTEN:{SOCAT_PORT},bind=127.0.0.1,reuseaddr,fork,backlog=512"))
            .arg(format!("TCP:{server}:{PORT},nodelay"));
        for (way, port, mut command) in
            [(Way::Haproxy, HAPROXY_PORT, haproxy), (Way::Socat, SOCAT_PORT, socat)]
        {
            if let Some(child) = self.start(&mut command, port) {
                self.proxies.push((way, child));
            }
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }

    fn start(&self, command: &mut Command, port: u16) -> Option<Child> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        traffic::answers(&self.wire.left.namespace, address).then_some(child)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, child) in &mut self.proxies {
            drop(child.kill());
            drop(child.wait());
        }
        let root = &self.root;
        drop(self.wire.left.namespace.run(|| Redirect::teardown(root, false)));
    }
}

fn load(root: &std::path::Path, server: SocketAddr) -> anyhow::Result<Redirect> {
    let settings = Settings { root: root.to_owned(), ..Settings::default() };
    let (mut redirect, _) = Redirect::open(&settings)?;
    redirect.publish(&one_to_one(&[(Transport::Tcp, (CALLED, PORT).into(), server)]))?;
    Ok(redirect)
}
