//! Somebody who says its name to whoever connects, and clients who connect again and again.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::Namespace;

/// Longest wait for one step of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens at a port of every address of its namespace, and says its name, then whatever it hears. It ends with the
/// process, or when nobody can reach it any more.
#[derive(Clone, Debug)]
pub struct Speaker {
    accepted: Arc<AtomicU64>,
}

impl Speaker {
    /// Begins to listen.
    pub fn listen(namespace: &Namespace, port: u16, name: &'static str) -> Self {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        let listener = listener.expect("nobody else listens in a namespace of our own");
        let accepted = Arc::<AtomicU64>::default();
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || drop(speak(stream, name)));
            }
        });
        Self { accepted }
    }

    /// Connections that it had.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn speak(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(name.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut room = [0; 4096];
    loop {
        match stream.read(&mut room)? {
            0 => return Ok(()),
            length => stream.write_all(&room[..length])?,
        }
    }
}

/// Connects from within a namespace, and reads the name of who answers.
pub fn call(namespace: &Namespace, address: SocketAddr) -> io::Result<(TcpStream, String)> {
    namespace.run(|| dial(address))
}

fn dial(address: SocketAddr) -> io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut name = String::new();
    let mut byte = [0];
    loop {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            return Ok((stream, name));
        }
        name.push(char::from(byte[0]));
    }
}

/// Whether a connection still carries something there and back.
pub fn is_alive(stream: &mut TcpStream) -> bool {
    let mut exchange = || -> io::Result<bool> {
        stream.write_all(b"still there?")?;
        let mut room = [0; 12];
        stream.read_exact(&mut room)?;
        Ok(&room == b"still there?")
    };
    exchange().unwrap_or(false)
}

/// Clients that connect again and again until they are told to end.
pub struct Callers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    heard: Arc<Mutex<Heard>>,
}

/// What callers heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Names, with when the connection of each began.
    pub names: Vec<(Instant, String)>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Callers {
    /// Begins to call, this many at a time.
    pub fn start(namespace: &Namespace, address: SocketAddr, callers: usize) -> Self {
        // A port is free again a second after its connection is over, so that there are enough, however long this takes.
        namespace.sysctl("net/ipv4/tcp_tw_reuse", "1");
        let is_over = Arc::<AtomicBool>::default();
        let heard = Arc::<Mutex<Heard>>::default();
        let threads = (0..callers)
            .map(|_| {
                let (namespace, is_over, heard) =
                    (namespace.clone(), Arc::clone(&is_over), Arc::clone(&heard));
                thread::spawn(move || namespace.run(|| keep_calling(address, &is_over, &heard)))
            })
            .collect();
        Self { is_over, threads, heard }
    }

    /// What they heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().expect("callers do not panic").clone()
    }

    /// Ends, and says what was heard.
    pub fn end(self) -> Heard {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("callers do not panic");
        }
        self.heard.lock().expect("callers do not panic").clone()
    }
}

fn keep_calling(address: SocketAddr, is_over: &AtomicBool, heard: &Mutex<Heard>) {
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let outcome = dial(address);
        let mut heard = heard.lock().expect("callers do not panic");
        match outcome {
            Ok((_, name)) => heard.names.push((begun, name)),
            Err(error) => heard.failures.push(error.to_string()),
        }
    }
}
