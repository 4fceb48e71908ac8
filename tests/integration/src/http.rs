//! A client for one HTTP request at a time, from within a namespace.
//!
//! It speaks HTTP/1.0, so that an answer ends with the connection and its body is as it is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::Namespace;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// Headers as they came, one line each.
    pub headers: String,
    /// What comes after.
    pub body: String,
}

/// An event of a stream of server-sent events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its identifier; empty if it has none.
    pub id: String,
    /// Its name.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// A stream of server-sent events.
pub struct Events(BufReader<TcpStream>);

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// `GET path` with more headers, each without a line end. `None` if nobody listens.
pub fn try_get(namespace: &Namespace, address: SocketAddr, path: &str, headers: &[&str]) -> Option<Answer> {
    let mut socket = namespace.run(|| TcpStream::connect(address)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a valid time");
    exchange(&mut socket, "GET", path, &address.to_string(), headers)
}

/// As [`try_get`], but somebody must listen.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    try_get(namespace, address, path, headers).expect("somebody listens")
}

/// Another method than GET.
pub fn request(namespace: &Namespace, address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut socket = namespace.run(|| TcpStream::connect(address)).expect("somebody listens");
    exchange(&mut socket, method, path, &address.to_string(), &[]).expect("there is an answer")
}

/// `GET path` over a unix socket.
pub fn get_unix(socket: &Path, path: &str) -> Answer {
    let mut socket = UnixStream::connect(socket).expect("somebody listens");
    exchange(&mut socket, "GET", path, "localhost", &[]).expect("there is an answer")
}

/// Asks until the answer is as wanted.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells from outside when an answer becomes another one"
)]
pub fn get_until(
    namespace: &Namespace,
    address: SocketAddr,
    path: &str,
    is_wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        if let Some(answer) = try_get(namespace, address, path, &[]) {
            if is_wanted(&answer) {
                return answer;
            }
            last = Some(answer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{path} did not become as wanted: {last:?}");
}

fn exchange(
    socket: &mut (impl Read + Write),
    method: &str,
    path: &str,
    host: &str,
    headers: &[&str],
) -> Option<Answer> {
    let host = if headers.iter().any(|header| header.starts_with("Host:")) {
        String::new()
    } else {
        format!("Host: {host}\r\n")
    };
    let more: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
    write!(socket, "{method} {path} HTTP/1.0\r\n{host}{more}\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, headers: headers.to_lowercase(), body: body.to_owned() })
}

impl Events {
    /// Follows the stream at `path`.
    pub fn follow(namespace: &Namespace, address: SocketAddr, path: &str, headers: &[&str]) -> Self {
        let mut socket = namespace.run(|| TcpStream::connect(address)).expect("somebody listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is a valid time");
        let more: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
        write!(socket, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{more}\r\n").expect("it is connected");
        let mut events = Self(BufReader::new(socket));
        let status = events.line();
        assert!(status.contains(" 200 "), "{status}");
        while !events.line().is_empty() {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("something comes in time");
        line.trim_end().to_owned()
    }
}

impl Iterator for Events {
    type Item = ServerEvent;

    /// Waits for the next event; comments are passed over.
    fn next(&mut self) -> Option<ServerEvent> {
        let mut event = ServerEvent { id: String::new(), event: String::new(), data: String::new() };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("something comes in time") == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", name)) => name.clone_into(&mut event.event),
                Some(("data", data)) => event.data.push_str(data),
                _ if line.trim_end().is_empty() && !event.event.is_empty() => return Some(event),
                _ => {}
            }
        }
    }
}
