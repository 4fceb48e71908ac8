//! [`Stream`]: a unix or TCP connection that is made again when it breaks.

use std::{
    io::{self, ErrorKind, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::outlet::Patience;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Time between two looks at whether patience is over.
const LOOK: Duration = Duration::from_millis(100);

/// Times that a peer may be looked at before it is said that it does not read.
const LOOKS: u32 = 50;

/// A connection to write to.
pub(super) struct Stream {
    peer: Peer,
    socket: Option<Socket>,
}

enum Peer {
    Unix(PathBuf),
    Tcp(String),
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn unix(path: PathBuf) -> Self {
        Self { peer: Peer::Unix(path), socket: None }
    }

    pub(super) fn tcp(peer: String) -> Self {
        Self { peer: Peer::Tcp(peer), socket: None }
    }

    /// Writes some of the bytes, connecting first where that is needed. [`ErrorKind::WouldBlock`] when the peer does
    /// not read; after any other error the connection is gone.
    pub(super) fn write(&mut self, bytes: &[u8], patience: &Patience) -> io::Result<usize> {
        if self.socket.is_none() {
            let connected = self.peer.connect();
            self.socket = Some(connected.map_err(|error| self.peer.named(&error, "connect to"))?);
        }
        let socket = self.socket.as_mut().expect("it was just connected");
        // A peer that has left takes a first write, of which nobody hears again.
        let written = if socket.is_left() {
            Err(io::Error::new(ErrorKind::ConnectionReset, "the peer closed the connection"))
        } else {
            socket.write(bytes)
        };
        let written = match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                socket.wait_writable(patience)?;
                socket.write(bytes)
            }
            outcome => outcome,
        };
        written.map_err(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                self.socket = None;
            }
            self.peer.named(&error, "write to")
        })
    }
}

impl Peer {
    fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
            Self::Tcp(peer) => {
                let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
                for address in peer.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT) {
                        Ok(socket) => {
                            socket.set_nonblocking(true)?;
                            return Ok(Socket::Tcp(socket));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn named(&self, error: &io::Error, what: &str) -> io::Error {
        let peer = match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(peer) => peer.clone(),
        };
        io::Error::new(error.kind(), format!("cannot {what} {peer}: {error}"))
    }
}

impl Socket {
    /// A peer that is gone is an error here, not a signal: the standard library ignores SIGPIPE.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }

    /// Whether the peer has closed the connection.
    fn is_left(&self) -> bool {
        let socket = match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        };
        let mut looked_at = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
        let now = Timespec::default();
        // Where looking fails, writing says why.
        poll(&mut looked_at, Some(&now)).is_ok_and(|count| count > 0)
    }

    fn wait_writable(&self, patience: &Patience) -> io::Result<()> {
        match self {
            Self::Unix(socket) => wait_writable(socket, patience),
            Self::Tcp(socket) => wait_writable(socket, patience),
        }
    }
}

/// Waits until there is room, a few seconds at most and no longer than patience lasts.
pub(super) fn wait_writable(destination: &impl AsFd, patience: &Patience) -> io::Result<()> {
    let timeout = Timespec::try_from(LOOK).expect("a tenth of a second is a valid time");
    for _ in 0..LOOKS {
        if patience.is_over() {
            break;
        }
        let mut waiting = [PollFd::new(destination, PollFlags::OUT)];
        match poll(&mut waiting, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(ErrorKind::WouldBlock, "nobody reads at the other end"))
}
