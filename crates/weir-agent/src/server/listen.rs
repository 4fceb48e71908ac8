//! [`Server`]: listeners and connections, on a small runtime of its own.
//!
//! Addresses are bound before anything is attached, so that a port in use is told at once. A handshake or a request that
//! does not come on holds its place for a few seconds only.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::{
    fs::Mode,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Answers, Refusals, ServerConfig, Tokens,
    guard::{self, Guard, Transport},
    routes, tls,
};
use crate::journal;

/// Time for a TLS handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for connections to end after the server was asked to.
const GRACE: Duration = Duration::from_secs(1);

/// Connections to the Unix socket that may wait to be accepted.
const WAITING: i32 = 128;

/// Most bytes of the headers of a request.
const MOST_HEADER_BYTES: usize = 16 << 10;

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The unix socket cannot be bound.
    #[error("cannot listen on {}", path.display())]
    BindUnix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// There is no runtime.
    #[error("cannot start the threads of the server")]
    Runtime(#[source] io::Error),
}

/// A server that has bound its addresses.
pub struct Server {
    runtime: Runtime,
    tcp: Vec<StdTcpListener>,
    unix: Option<(StdUnixListener, PathBuf)>,
    tls: Option<Arc<rustls::ServerConfig>>,
    names: Arc<[String]>,
    connections: Arc<Semaphore>,
    most_connections: usize,
    ending: watch::Sender<bool>,
}

impl Server {
    /// Binds everything; answers nothing yet.
    pub fn bind(config: &ServerConfig) -> Result<Self, ServeError> {
        let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
        let mut tcp = Vec::new();
        for address in &config.listen {
            let bind = |source| ServeError::Bind { address: *address, source };
            let listener = StdTcpListener::bind(address).map_err(bind)?;
            listener.set_nonblocking(true).map_err(bind)?;
            tcp.push(listener);
        }
        let unix = config.unix_socket.as_deref().map(|path| bind_unix(path, config.unix_mode)).transpose()?;
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("weir-io").enable_all();
        Ok(Self {
            runtime: builder.build().map_err(ServeError::Runtime)?,
            tcp,
            unix,
            tls,
            names: config.names.clone().into(),
            connections: Arc::new(Semaphore::new(config.connections)),
            most_connections: config.connections,
            ending: watch::Sender::new(false),
        })
    }

    /// The runtime, for others that wait for the network.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Becomes true when the server ends.
    pub fn is_ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Answers from now on. `more` is what other parts answer.
    pub fn start(&mut self, answers: Answers, tokens: &Arc<Tokens>, more: Router) -> io::Result<()> {
        let refusals = Arc::clone(&answers.refusals);
        let routes = routes(answers, more);
        let requests = Guard::requests();
        let names = Arc::clone(&self.names);
        self.serve(|transport| {
            let guard = Guard {
                tokens: Arc::clone(tokens),
                names: Arc::clone(&names),
                transport,
                requests: Arc::clone(&requests),
                refusals: Arc::<Refusals>::clone(&refusals),
            };
            routes.clone().layer(middleware::from_fn_with_state(guard, guard::check))
        })
    }

    /// Answers from now on with what `router` makes for each kind of transport.
    pub(crate) fn serve(&mut self, router: impl Fn(Transport) -> Router) -> io::Result<()> {
        let connections = |transport| Connections {
            router: router(transport),
            places: Arc::clone(&self.connections),
            ending: self.ending.subscribe(),
        };
        let _inside = self.runtime.enter();
        for listener in std::mem::take(&mut self.tcp) {
            let address = listener.local_addr()?;
            let listener = TcpListener::from_std(listener)?;
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            journal::info(format_args!("listening on {scheme}://{address}"));
            match &self.tls {
                None => drop(self.runtime.spawn(connections(Transport::Http).serve_tcp(listener))),
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(Arc::clone(tls));
                    let connections = connections(Transport::Https);
                    drop(self.runtime.spawn(connections.serve_tls(listener, acceptor)));
                }
            }
        }
        if let Some((listener, path)) = &self.unix {
            journal::info(format_args!("listening on {}", path.display()));
            let listener = UnixListener::from_std(listener.try_clone()?)?;
            drop(self.runtime.spawn(connections(Transport::Unix).serve_unix(listener)));
        }
        Ok(())
    }

    /// Ends: nobody gets in any more, those who follow are let go, and open requests have a second.
    pub fn stop(self) {
        self.ending.send_replace(true);
        let all = u32::try_from(self.most_connections).unwrap_or(u32::MAX);
        self.runtime.block_on(async { drop(timeout(GRACE, self.connections.acquire_many(all)).await) });
        if let Some((listener, path)) = self.unix {
            // Only our own socket is removed, not one that took its place.
            drop(listener);
            std::fs::remove_file(path).ok();
        }
        self.runtime.shutdown_timeout(GRACE);
    }
}

/// A socket that nobody answers any more is replaced; anything else at that path is left alone.
fn bind_unix(path: &Path, mode: u32) -> Result<(StdUnixListener, PathBuf), ServeError> {
    let failed = |source| ServeError::BindUnix { path: path.to_owned(), source };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = listen_at(path, mode).map_err(failed)?;
    Ok((listener, path.to_owned()))
}

/// Nobody can connect whom `mode` does not let in, at no moment: the file has the rights that the socket had before (Linux,
/// `unix_bind`), without those that the umask takes, which are added then.
fn listen_at(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    net::listen(&socket, WAITING)?;
    Ok(socket.into())
}

/// Accepts connections of one listener and serves them.
#[derive(Clone)]
struct Connections {
    router: Router,
    places: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

impl Connections {
    async fn serve_tcp(self, listener: TcpListener) {
        while let Some((accepted, place)) = self.next(listener.accept()).await {
            if let Ok((stream, _)) = accepted {
                stream.set_nodelay(true).ok();
                tokio::spawn(self.clone().connection(stream, place));
            }
        }
    }

    async fn serve_tls(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Some((accepted, place)) = self.next(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let (this, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                // Who does not finish the handshake in time is let go.
                if let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await {
                    this.connection(stream, place).await;
                }
            });
        }
    }

    async fn serve_unix(self, listener: UnixListener) {
        while let Some((accepted, place)) = self.next(listener.accept()).await {
            if let Ok((stream, _)) = accepted {
                tokio::spawn(self.clone().connection(stream, place));
            }
        }
    }

    /// The next connection, once there is a place for it; `None` at the end.
    async fn next<T>(
        &self,
        accept: impl Future<Output = io::Result<T>>,
    ) -> Option<(io::Result<T>, OwnedSemaphorePermit)> {
        let mut ending = self.ending.clone();
        let accepted = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let accepted = accept.await;
            if accepted.is_err() {
                // Out of descriptors, most likely: asking again at once would only burn time.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some((accepted, place))
        };
        tokio::select! {
            _ = ending.wait_for(|is_ending| *is_ending) => None,
            accepted = accepted => accepted,
        }
    }

    async fn connection<S>(self, stream: S, _place: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut ending = self.ending.clone();
        let service = TowerToHyperService::new(self.router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(MOST_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            // A client that breaks off is no event.
            _ = connection.as_mut() => return,
            _ = ending.wait_for(|is_ending| *is_ending) => connection.as_mut().graceful_shutdown(),
        }
        drop(connection.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_the_rights_it_was_given_whatever_the_umask_is() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660] {
            let path = directory.path().join(format!("{mode:o}.sock"));
            let _listener = listen_at(&path, mode).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            std::os::unix::net::UnixStream::connect(&path).unwrap();
        }
    }
}
