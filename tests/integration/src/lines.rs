//! [`Lines`]: the other end of a JSON sink, which can go away and come back.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value as Json;

use crate::{delivery::Peer, reserved_port::ReservedPort, tcp::wait_until};

/// Somebody who reads lines from a TCP connection.
pub struct Lines {
    /// Nobody else gets it while this one is away.
    port: ReservedPort,
    state: Arc<LinesState>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct LinesState {
    lines: Mutex<Vec<String>>,
    connections: Mutex<Vec<(TcpStream, thread::JoinHandle<()>)>>,
    is_over: AtomicBool,
    is_frozen: Mutex<bool>,
    thawed: Condvar,
}

impl Lines {
    /// Listens at a port of its own.
    pub fn start() -> Self {
        let mut lines = Self { port: ReservedPort::new(), state: Arc::default(), acceptor: None };
        lines.accept();
        lines
    }

    fn accept(&mut self) {
        let listener = TcpListener::bind(self.port.address()).expect("the port is kept for us");
        let state = Arc::clone(&self.state);
        state.is_over.store(false, Ordering::SeqCst);
        self.acceptor = Some(thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if state.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let copy = connection.try_clone().expect("there are descriptors");
                let reading = Arc::clone(&state);
                let reader = thread::spawn(move || reading.read(connection));
                state.connections.lock().expect("nobody panics here").push((copy, reader));
            }
        }));
    }
}

impl LinesState {
    fn read(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection);
        loop {
            let frozen = self.is_frozen.lock().expect("nobody panics here");
            drop(self.thawed.wait_while(frozen, |is_frozen| *is_frozen).expect("nobody panics here"));
            let mut line = String::new();
            match reader.read_line(&mut line) {
                // A line that was cut comes again.
                Ok(count) if count > 0 && line.ends_with('\n') => {
                    self.lines.lock().expect("nobody panics here").push(line);
                }
                _ => return,
            }
        }
    }
}

impl Peer for Lines {
    fn sink(&self) -> String {
        format!("{{type: json, tcp: '{}'}}", self.port.address())
    }

    fn records(&self) -> Vec<BTreeMap<String, String>> {
        let lines = self.state.lines.lock().expect("nobody panics here");
        let text = |value: &Json| match value {
            Json::String(text) => text.clone(),
            // Never with an exponent.
            Json::Number(number) if number.is_f64() => format!("{}", number.as_f64().unwrap_or_default()),
            other => other.to_string(),
        };
        let record = |line: &String| {
            let Json::Object(fields) = serde_json::from_str(line).expect("it is JSON") else {
                panic!("{line}")
            };
            fields.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        };
        lines.iter().map(record).collect()
    }

    fn kill(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        TcpStream::connect(self.port.address()).expect("it listens");
        self.acceptor.take().expect("it runs").join().expect("it does not panic");
        for (connection, reader) in self.state.connections.lock().expect("nobody panics here").drain(..) {
            // What was sent is read before the connection ends: a stream tells nobody what arrived.
            connection.shutdown(Shutdown::Read).ok();
            reader.join().expect("it does not panic");
            // From now on whoever writes is told that nobody reads. Closing is not enough: processes that other tests
            // start have all descriptors, too, until they are another program.
            connection.shutdown(Shutdown::Both).ok();
        }
        wait_until("nobody listens", || TcpStream::connect(self.port.address()).is_err());
    }

    fn start_again(&mut self) {
        self.accept();
    }

    fn freeze(&mut self) {
        *self.state.is_frozen.lock().expect("nobody panics here") = true;
    }

    fn thaw(&mut self) {
        *self.state.is_frozen.lock().expect("nobody panics here") = false;
        self.state.thawed.notify_all();
    }

    fn is_idempotent(&self) -> bool {
        false
    }
}
