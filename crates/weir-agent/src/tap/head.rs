//! [`Head`]: who talks to whom on a connection, as far as is known.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use weir_datapath::tap::{Opened, Role, Transport};
use weir_l7::{Part, Way};

use crate::enrich::containers::Located;

/// A connection; of a socket that exchanges datagrams with several others, one of them.
#[derive(Debug)]
pub struct Head {
    /// Its number, in the order of opening, from 1.
    pub number: u64,
    /// What the kernel told.
    pub opened: Opened,
    /// The other end of datagrams, where the socket has none of its own.
    pub peer: Option<SocketAddr>,
    /// Name of the process.
    pub process: String,
    /// Its container and pod, where it has any.
    pub container: Option<Arc<Located>>,
    /// Which part our end plays, as soon as that is known.
    pub part: Option<Part>,
    /// Where what comes next begins, by [`Way`].
    pub next: [u64; 2],
}

impl Head {
    pub(super) fn new(
        number: u64,
        opened: Opened,
        peer: Option<SocketAddr>,
        container: Option<Arc<Located>>,
    ) -> Self {
        let command = opened.process.command;
        let length = command.iter().position(|byte| *byte == 0).unwrap_or(command.len());
        let part = opened.role.map(|role| match role {
            Role::Client => Part::Client,
            Role::Server => Part::Server,
        });
        Self {
            number,
            peer: opened.remote.or(peer),
            process: String::from_utf8_lossy(&command[..length]).into_owned(),
            container,
            part,
            next: [0; 2],
            opened,
        }
    }

    /// `tcp`, `udp` or `unix`.
    pub const fn transport(&self) -> &'static str {
        match self.opened.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Unix => "unix",
        }
    }

    /// The ends, ours first; mapped addresses as what they stand for.
    pub fn ends(&self) -> (SocketAddr, Option<SocketAddr>) {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        (canonical(self.opened.local), self.peer.map(canonical))
    }

    /// Process, container and pod in one text.
    pub fn who(&self) -> String {
        let mut who = format!("{}[{}]", self.process, self.opened.process.pid);
        if let Some(located) = &self.container {
            if let Some(pod) = located.place.pod {
                write!(who, " pod {:032x}", pod.0).expect("a string takes any text");
            }
            if let Some(container) = &located.container {
                who.push_str(" container ");
                who.push_str(&container.id);
            }
        }
        who
    }
}

/// The way of the kernel's event in terms of the streams.
pub(super) const fn way(way: weir_datapath::tap::Way) -> Way {
    match way {
        weir_datapath::tap::Way::Sent => Way::Sent,
        weir_datapath::tap::Way::Received => Way::Received,
    }
}
