//! [`Checks`]: asks backends how they are, each at its own pace.
//!
//! One small task per backend; no more than [`AT_A_TIME`] checks are under way at a time. What a check finds goes to the
//! thread that owns the proxy, which judges.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    runtime::Handle,
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    engine::Engine,
    health::{Outcome, Target},
    owner::Owner,
    rules::{Check, Health},
};

/// Checks under way at a time.
const AT_A_TIME: usize = 256;

/// Bytes of an answer that are looked at for its status line.
const STATUS_BYTES: usize = 256;

/// The checks that run.
pub(super) struct Checks {
    runtime: Handle,
    owner: Owner,
    running: BTreeMap<Target, (Health, AbortHandle)>,
    places: Arc<Semaphore>,
}

impl Checks {
    /// No checks yet. They will run on that runtime and tell that owner.
    pub(super) fn new(runtime: Handle, owner: Owner) -> Self {
        Self { runtime, owner, running: BTreeMap::new(), places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Checks what the engine wants checked from now on. Checks that go on as before are not disturbed.
    pub(super) fn set(&mut self, engine: &Engine) {
        let mut running = BTreeMap::new();
        for (target, rule) in engine.targets() {
            let known = self.running.remove(target).filter(|(health, _)| *health == rule.health);
            let entry = known.unwrap_or_else(|| {
                let (target, health) = (target.clone(), rule.health.clone());
                let (owner, places) = (self.owner.clone(), Arc::clone(&self.places));
                let task = self.runtime.spawn(run(target, health, owner, places));
                (rule.health.clone(), task.abort_handle())
            });
            running.insert(target.clone(), entry);
        }
        let ended = std::mem::replace(&mut self.running, running);
        for (_, task) in ended.into_values() {
            task.abort();
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for (_, task) in self.running.values() {
            task.abort();
        }
    }
}

async fn run(target: Target, health: Health, owner: Owner, places: Arc<Semaphore>) {
    let mut next = Instant::now();
    loop {
        let outcome = {
            let Ok(_place) = places.acquire().await else { return };
            check(&target, &health).await
        };
        let target = target.clone();
        if owner.tell(move |proxy| proxy.observed(&target, outcome)).await.is_err() {
            return;
        }
        // What took longer than the interval is not made up for.
        next = (next + health.interval).max(Instant::now());
        sleep_until(next).await;
    }
}

/// Tries once.
pub(super) async fn check(target: &Target, health: &Health) -> Outcome {
    let port = health.port.unwrap_or(target.backend.port());
    let address = SocketAddr::new(target.backend.ip(), port);
    let attempt = async {
        match &health.check {
            Check::None => Ok(()),
            Check::Tcp => connect(address).await.map(drop),
            Check::Http { path } => ask(address, path).await,
            Check::Udp { payload } => send(address, payload).await,
        }
    };
    let late = |_late| Err(format!("no answer from {address} in {}", text(health.timeout)));
    timeout(health.timeout, attempt).await.unwrap_or_else(late)
}

fn text(time: Duration) -> String {
    super::diff::length(time)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    stream.map_err(|error| format!("cannot connect to {address}: {error}"))
}

async fn ask(address: SocketAddr, path: &str) -> Outcome {
    let mut stream = connect(address).await?;
    let broken = |error: std::io::Error| format!("{address} broke off: {error}");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: weir-proxy\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::with_capacity(STATUS_BYTES);
    let has_line = |answer: &[u8]| answer.contains(&b'\n') || answer.len() >= STATUS_BYTES;
    while !has_line(&answer) {
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            break;
        }
    }
    judge(&answer).map_err(|reason| format!("{address} {reason}"))
}

/// What a status line says (RFC 9112 section 4).
fn judge(answer: &[u8]) -> Outcome {
    let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    match status {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("answers with status {status}")),
        None => Err("does not answer in HTTP/1".to_owned()),
    }
}

async fn send(address: SocketAddr, payload: &[u8]) -> Outcome {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let failed = |error: std::io::Error| format!("cannot ask {address}: {error}");
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    socket.send(payload).await.map_err(failed)?;
    // Whatever it is, somebody is there. A port that nobody listens at shows as an error.
    socket.recv(&mut [0; 16]).await.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_status_below_400_is_well() {
        fn check(answer: &str, expect: Result<(), &str>) {
            assert_eq!(judge(answer.as_bytes()), expect.map_err(str::to_owned), "{answer:?}");
        }
        check("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", Ok(()));
        check("HTTP/1.0 302 Found\n", Ok(()));
        check("HTTP/1.1 503 Service Unavailable\r\n", Err("answers with status 503"));
        check("HTTP/1.1 099 Odd\r\n", Err("answers with status 99"));
        check("SSH-2.0-OpenSSH_9.2\r\n", Err("does not answer in HTTP/1"));
        check("HTTP/1.1 2", Err("does not answer in HTTP/1"));
        check("", Err("does not answer in HTTP/1"));
    }

    fn health(check: Check) -> Health {
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(5));
        Health { check, port: None, interval, timeout, rise: 1, fall: 1 }
    }

    fn target(backend: SocketAddr) -> Target {
        Target { rule: "web".into(), backend }
    }

    #[tokio::test]
    async fn connections_and_pages_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = target(listener.local_addr().unwrap());
        assert_eq!(check(&there, &health(Check::Tcp)).await, Ok(()));
        let server = tokio::spawn(async move {
            for status in ["200 OK", "404 Not Found"] {
                // The connection of the check before may still be in the queue; it says nothing.
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = [0; 512];
                    let length = stream.read(&mut request).await.unwrap();
                    if length > 0 {
                        assert!(request.starts_with(b"GET /ready HTTP/1.1\r\n"));
                        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
                        break;
                    }
                }
            }
        });
        let page = health(Check::Http { path: "/ready".to_owned() });
        assert_eq!(check(&there, &page).await, Ok(()));
        let said = check(&there, &page).await.unwrap_err();
        assert!(said.ends_with("answers with status 404"), "{said}");
        server.await.unwrap();
        until_refused(&there, &health(Check::Tcp)).await;
    }

    /// A process that another test starts may have a socket that was closed, too, for a moment.
    async fn until_refused(target: &Target, health: &Health) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let outcome = check(target, health).await;
            if outcome.as_ref().is_err_and(|said| said.contains("refused")) {
                return;
            }
            assert!(Instant::now() < end, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn datagrams_must_be_answered_in_time() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let there = target(server.local_addr().unwrap());
        let mut probe = health(Check::Udp { payload: vec![1, 2] });
        let answers = async {
            let (length, client) = server.recv_from(&mut [0; 8]).await.unwrap();
            assert_eq!(length, 2);
            server.send_to(&[3], client).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(check(&there, &probe), answers);
        assert_eq!(outcome, Ok(()));
        probe.timeout = Duration::from_millis(50);
        let said = check(&there, &probe).await.unwrap_err();
        assert!(said.contains("no answer from 127.0.0.1") && said.ends_with("in 50ms"), "{said}");
        drop(server);
        until_refused(&there, &probe).await;
    }
}
