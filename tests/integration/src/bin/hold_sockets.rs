//! Opens sockets, says which, and holds them until its input ends: `hold-sockets COUNT`.
//!
//! Prints one line per socket, `PROTOCOL LOCAL REMOTE COOKIE`. The remote end is `-` for sockets without one, the
//! cookie is 0 where nobody asked the kernel for it, which is every other socket.

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = env::args().nth(1).ok_or("usage: hold-sockets COUNT")?.parse()?;
    let mut held = Held::default();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        let server = listener.local_addr()?;
        let sink = UdpSocket::bind(address)?;
        let sink_address = sink.local_addr()?;
        held.take("tcp", server, None, listener.try_clone()?.into());
        held.take("udp", sink_address, None, sink.into());
        while held.lines.len() < count / 2 || (address.starts_with('[') && held.lines.len() < count) {
            let client = TcpStream::connect(server)?;
            let (accepted, peer) = listener.accept()?;
            held.take("tcp", peer, Some(server), client.into());
            held.take("tcp", server, Some(peer), accepted.into());
            let datagrams = UdpSocket::bind(address)?;
            datagrams.connect(sink_address)?;
            held.take("udp", datagrams.local_addr()?, Some(sink_address), datagrams.into());
        }
    }
    let mut output = io::stdout().lock();
    writeln!(output, "{}", held.lines.join("\n"))?;
    writeln!(output, "ready")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[derive(Default)]
struct Held {
    sockets: Vec<OwnedFd>,
    lines: Vec<String>,
}

impl Held {
    fn take(&mut self, protocol: &str, local: SocketAddr, remote: Option<SocketAddr>, socket: OwnedFd) {
        let cookie = if self.lines.len().is_multiple_of(2) { cookie_of(&socket) } else { 0 };
        let remote = remote.map_or_else(|| "-".to_owned(), |remote| remote.to_string());
        self.lines.push(format!("{protocol} {local} {remote} {cookie}"));
        self.sockets.push(socket);
    }
}

fn cookie_of(socket: &OwnedFd) -> u64 {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: cookie and length are valid for writing, and the length is that of the cookie.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    cookie
}
