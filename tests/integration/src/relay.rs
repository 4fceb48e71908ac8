//! A relay between a client and a server that understands what they say: it feeds a [`Conversation`] per connection.
//!
//! Bytes are understood before they are handed on, so that no answer can come before its request.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use weir_flow::Monotonic;
use weir_l7::{Call, Chunk, Conversation, Settings, Sink, Way};

/// Where the server listens.
#[derive(Clone, Debug)]
pub enum Server {
    /// On a unix socket.
    Unix(PathBuf),
    /// On an address.
    Tcp(SocketAddr),
}

/// One connection that went through the relay, from the server's side.
#[derive(Debug, Default)]
pub struct Talk {
    /// Calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// What the server said and what it was told, as the relay saw it.
    pub raw: [Vec<u8>; 2],
    /// The same without secrets.
    pub shown: [Vec<u8>; 2],
}

impl Sink for Talk {
    fn chunk(&mut self, way: Way, chunk: Chunk<'_>) {
        let shown = &mut self.shown[way as usize];
        assert_eq!(chunk.position(), shown.len() as u64, "pieces come in the order of the stream");
        shown.extend_from_slice(chunk.bytes().expect("there are no gaps here"));
    }

    fn call(&mut self, call: Call) {
        self.calls.push(call);
    }
}

/// A relay on a port of loopback.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<Vec<Talk>>>,
}

/// One connection while it lasts.
struct Live {
    conversation: Conversation,
    talk: Talk,
    begin: Instant,
}

impl Live {
    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.begin.elapsed().as_nanos()).expect("tests are short"))
    }

    fn said(&mut self, way: Way, data: &[u8]) {
        let position = self.talk.raw[way as usize].len() as u64;
        self.talk.raw[way as usize].extend_from_slice(data);
        let chunk = Chunk::Bytes { position, time: self.now(), data };
        self.conversation.push(way, chunk, &mut self.talk);
    }

    fn ended(&mut self, way: Way) {
        self.conversation.end(way, self.now(), &mut self.talk);
    }
}

/// An end of a connection, of either kind.
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(server: &Server) -> Self {
        match server {
            Server::Unix(path) => Self::Unix(UnixStream::connect(path).expect("the server listens")),
            Server::Tcp(address) => Self::Tcp(TcpStream::connect(address).expect("the server listens")),
        }
    }

    fn copy(&self) -> Self {
        match self {
            Self::Unix(socket) => Self::Unix(socket.try_clone().expect("there are descriptors")),
            Self::Tcp(socket) => Self::Tcp(socket.try_clone().expect("there are descriptors")),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        // A reset ends a connection as well.
        match self {
            Self::Unix(socket) => socket.read(buffer).unwrap_or(0),
            Self::Tcp(socket) => socket.read(buffer).unwrap_or(0),
        }
    }

    fn write(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Unix(socket) => socket.write_all(data).is_ok(),
            Self::Tcp(socket) => socket.write_all(data).is_ok(),
        }
    }

    fn shut_down(&self) {
        // Whoever has gone already does not mind.
        match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Write).unwrap_or_default(),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write).unwrap_or_default(),
        }
    }
}

impl Relay {
    /// Relays to a server.
    pub fn start(server: Server, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let acceptor = thread::spawn(move || {
            let mut connections = Vec::new();
            for client in listener.incoming().map_while(Result::ok) {
                if flag.load(Ordering::SeqCst) {
                    break;
                }
                let upstream = Socket::connect(&server);
                connections.push(thread::spawn(move || relay(&Socket::Tcp(client), &upstream, settings)));
            }
            connections
                .into_iter()
                .map(|connection| connection.join().expect("a relay does not panic"))
                .collect()
        });
        Self { address, is_over, acceptor: Some(acceptor) }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every connection has ended, and gives back all of them, in the order in which they came.
    pub fn finish(mut self) -> Vec<Talk> {
        self.stop();
        let acceptor = self.acceptor.take().expect("it is taken once");
        acceptor.join().expect("the relay does not panic")
    }

    fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.acceptor.is_some() {
            self.stop();
        }
    }
}

fn relay(client: &Socket, server: &Socket, settings: Settings) -> Talk {
    let live =
        Live { conversation: Conversation::new(settings), talk: Talk::default(), begin: Instant::now() };
    let live = Mutex::new(live);
    thread::scope(|scope| {
        scope.spawn(|| pump(Way::Received, client.copy(), server.copy(), &live));
        pump(Way::Sent, server.copy(), client.copy(), &live);
    });
    let mut live = live.into_inner().unwrap_or_else(PoisonError::into_inner);
    let now = live.now();
    live.conversation.finish(now, &mut live.talk);
    live.talk
}

fn pump(way: Way, mut from: Socket, mut to: Socket, live: &Mutex<Live>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer);
        if length == 0 {
            break;
        }
        live.lock().expect("nobody panics with it").said(way, &buffer[..length]);
        if !to.write(&buffer[..length]) {
            break;
        }
    }
    live.lock().expect("nobody panics with it").ended(way);
    to.shut_down();
}
