//! A rtnetlink socket: asks, collects answers, asks again where the kernel says that a list was torn.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_DUMP_INTR, NLM_F_MULTIPART, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

use super::{
    Interface, LinkStats, Offloads,
    message::{self, Malformed, Request},
    offload,
};
use crate::{
    netns::{Netns, NetnsError},
    role::{self, Surroundings},
};

/// The kernel cuts lists into pieces of at most 32 KiB.
pub(super) const BUFFER: usize = 64 * 1024;
/// A list is torn when an interface comes or goes meanwhile; so often in a row it does not happen by chance.
const ATTEMPTS: u32 = 50;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Addresses for documentation, which nobody routes apart: what leads there leads everywhere (RFC 5737, RFC 3849).
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

/// Why the kernel could not be asked about interfaces.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No socket.
    #[error("cannot open a rtnetlink socket")]
    Socket {
        /// What the kernel said.
        source: io::Error,
    },
    /// Asking failed.
    #[error("cannot ask the kernel for {what}")]
    Send {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {what} from the kernel")]
    Receive {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("the kernel refuses {what}{}", refusal_remedy(source))]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A message that we cannot read.
    #[error(
        "cannot read the kernel's message about {what}: please report this with the output of weir doctor"
    )]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The list changed during every attempt to read it.
    #[error(
        "{what} changed during each of {ATTEMPTS} attempts to read it: try again when the system is calmer"
    )]
    Torn {
        /// What was asked for.
        what: &'static str,
    },
}

/// How an answer came to its end.
enum Outcome {
    Complete,
    /// It must be asked for again.
    Torn,
}

#[derive(Debug)]
pub(super) struct Rtnetlink {
    netns: Netns,
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Rtnetlink {
    pub(super) fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        let buffer = Vec::with_capacity(BUFFER);
        Ok(Self { netns: netns.clone(), socket: open(netns)?, buffer, sequence: 0 })
    }

    /// All interfaces with their roles, in the order of their index.
    pub(super) fn interfaces(&mut self) -> Result<Vec<Interface>, NetlinkError> {
        let mut interfaces: Vec<Interface> =
            self.ask(Request::all_links(), message::link)?.into_iter().flatten().collect();
        interfaces.sort_unstable_by_key(|interface| interface.index);
        self.assign_roles(interfaces.iter_mut())?;
        Ok(interfaces)
    }

    /// Finds out what is needed for the roles, and sets them.
    pub(super) fn assign_roles<'a>(
        &mut self,
        interfaces: impl Iterator<Item = &'a mut Interface>,
    ) -> Result<(), NetlinkError> {
        let mut interfaces: Vec<&mut Interface> = interfaces.collect();
        let surroundings = if interfaces.iter().any(|interface| role::depends_on_surroundings(interface)) {
            self.surroundings()?
        } else {
            Surroundings::default()
        };
        role::assign(&mut interfaces, &surroundings);
        Ok(())
    }

    pub(super) fn stats(&mut self, index: u32) -> Result<Option<LinkStats>, NetlinkError> {
        match self.ask(Request::link(index), message::link) {
            Ok(answers) => Ok(answers.into_iter().flatten().next().map(|interface| interface.stats)),
            Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn offloads(&self, name: &str) -> Option<Offloads> {
        offload::read(&self.socket, name).ok()
    }

    fn surroundings(&mut self) -> Result<Surroundings, NetlinkError> {
        let mut default_route = Vec::new();
        for destination in ANYWHERE {
            match self.ask(Request::route_to(destination), message::route_interfaces) {
                Ok(answers) => default_route.extend(answers.into_iter().flatten()),
                // There is no way: unreachable in one of its forms, or no such family.
                Err(NetlinkError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let on_link =
            self.ask(Request::all_addresses(), message::on_link_address)?.into_iter().flatten().collect();
        Ok(Surroundings { default_route, on_link })
    }

    /// Asks until an answer is whole.
    fn ask<T>(
        &mut self,
        mut request: Request,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let sent = self.socket.send(request.numbered(self.sequence), 0);
            sent.map_err(|source| NetlinkError::Send { what: request.what, source })?;
            let mut answers = Vec::new();
            if let Outcome::Complete = self.collect(&request, &parse, &mut answers)? {
                return Ok(answers);
            }
        }
        Err(NetlinkError::Torn { what: request.what })
    }

    fn collect<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
        answers: &mut Vec<T>,
    ) -> Result<Outcome, NetlinkError> {
        let what = request.what;
        let mut outcome = Outcome::Complete;
        loop {
            let received = receive(&self.socket, &mut self.buffer, 0);
            if received.map_err(|source| NetlinkError::Receive { what, source })? == Received::Truncated {
                // On this socket the rest of the answer would still come.
                self.socket = open(&self.netns)?;
                return Ok(Outcome::Torn);
            }
            for message in messages(&self.buffer) {
                let message = message.map_err(|source| NetlinkError::Malformed { what, source })?;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                if message.flags() & NLM_F_DUMP_INTR != 0 {
                    outcome = Outcome::Torn;
                }
                let payload = message.payload();
                match message.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => match status(payload) {
                        0 => return Ok(outcome),
                        code if code == -libc::EINTR || code == -libc::EAGAIN => return Ok(Outcome::Torn),
                        code => {
                            let source = io::Error::from_raw_os_error(-code);
                            return Err(NetlinkError::Refused { what, source });
                        }
                    },
                    kind if kind == request.answer => {
                        answers
                            .push(parse(payload).map_err(|source| NetlinkError::Malformed { what, source })?);
                        if message.flags() & NLM_F_MULTIPART == 0 {
                            return Ok(outcome);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What came of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Whole,
    /// The buffer was too small and has grown; the message is lost.
    Truncated,
}

/// A socket that talks to the kernel about one namespace.
pub(super) fn open(netns: &Netns) -> Result<Socket, NetlinkError> {
    let opened = netns.run(|| {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    });
    opened?.map_err(|source| NetlinkError::Socket { source })
}

/// Reads one datagram into `buffer`.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>, flags: libc::c_int) -> io::Result<Received> {
    loop {
        buffer.clear();
        // The result is the real length, which may exceed what the buffer had room for.
        match socket.recv(buffer, flags | libc::MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(length) if length > buffer.len() => {
                buffer.clear();
                buffer.reserve(length);
                return Ok(Received::Truncated);
            }
            Ok(_) => return Ok(Received::Whole),
        }
    }
}

/// The messages of a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(rest);
        rest = match &message {
            Ok(message) => rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(message.map_err(|error| Malformed(error.to_string())))
    })
}

/// The number at the start of an error or of the end of a list: 0 or a negative error number.
fn status(payload: &[u8]) -> i32 {
    payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

fn refusal_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ": needs CAP_NET_ADMIN, or a security module forbids it",
        _ => "",
    }
}
