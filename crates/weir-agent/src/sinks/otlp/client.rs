//! [`Client`]: sends the requests of one signal to its target.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time;

use super::{
    Signal,
    answer::{Answer, OtlpError},
    config::{Compression, Protocol},
    grpc::GrpcConnection,
    http_protobuf::HttpConnection,
    target::Target,
    tls,
};
use crate::outlet::Patience;

/// Time between two looks at whether patience is over.
const LOOK: Duration = Duration::from_millis(50);

/// Who we are.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Longest answer that is read.
pub(super) const LONGEST_ANSWER: usize = 1 << 20;

/// Most requests that are under way at a time.
pub(super) const MOST_UNDER_WAY: usize = 4;

/// Makes connections, with TLS or without.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// One signal's way to its collector.
pub(super) struct Client {
    signal: Signal,
    target: Target,
    /// Made when it is needed, and again after it failed.
    connection: Option<Connection>,
    /// Bytes of a request at which nothing more is added.
    pub(super) most_bytes: usize,
    /// Requests that are under way at a time.
    pub(super) most_under_way: usize,
}

#[derive(Clone)]
enum Connection {
    Grpc(GrpcConnection),
    Http(HttpConnection),
}

impl Client {
    pub(super) fn new(signal: Signal, target: Target, most_bytes: usize, most_under_way: usize) -> Self {
        Self { signal, target, connection: None, most_bytes, most_under_way }
    }

    /// A request as it is sent.
    pub(super) fn packed(&self, request: Bytes) -> Bytes {
        match self.target.compression {
            Compression::Gzip => compressed(&request),
            Compression::None => request,
        }
    }

    /// Sends a request as [`Client::packed`] made it. The answer comes no later than the target's timeout, and than patience
    /// lasts.
    pub(super) fn send<'p>(
        &mut self,
        request: Bytes,
        patience: &'p Patience,
    ) -> Result<impl Future<Output = Answer> + use<'p>, OtlpError> {
        let headers = self.headers()?;
        let Self { signal, target, connection, .. } = self;
        let connection = match connection {
            Some(connection) => connection.clone(),
            None => connection.insert(Connection::new(*signal, target)?).clone(),
        };
        let (endpoint, timeout) = (target.endpoint.clone(), target.timeout);
        let call = async move {
            match connection {
                Connection::Grpc(grpc) => grpc.send(request, headers).await,
                Connection::Http(http) => http.send(request, headers).await,
            }
        };
        Ok(async move {
            tokio::select! {
                answer = time::timeout(timeout, call) => answer.unwrap_or_else(|_elapsed| {
                    Answer::NotNow(OtlpError::Silent(endpoint.clone(), timeout), None)
                }),
                () = end_of(patience) => Answer::NotNow(OtlpError::Ending(endpoint.clone()), None),
            }
        })
    }

    /// Leaves the connection: one that hangs would be used again.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    fn headers(&self) -> Result<HeaderMap, OtlpError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for source in &self.target.headers {
            source.put_into(&mut headers)?;
        }
        Ok(headers)
    }
}

impl Connection {
    fn new(signal: Signal, target: &Target) -> Result<Self, OtlpError> {
        let Target { endpoint, compression, timeout, .. } = target;
        let is_secure = endpoint.scheme() == Some(&http::uri::Scheme::HTTPS);
        let tls = tls::client_config(&target.tls, is_secure)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        tcp.set_connect_timeout(Some(*timeout));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        Ok(match target.protocol {
            Protocol::Grpc => {
                let connector = builder.enable_http2().wrap_connector(tcp);
                Self::Grpc(GrpcConnection::new(signal, endpoint.clone(), *compression, *timeout, connector))
            }
            Protocol::Http => {
                let connector = builder.enable_http1().wrap_connector(tcp);
                Self::Http(HttpConnection::new(endpoint.clone(), *compression, connector))
            }
        })
    }
}

/// Names repeat in every entry, so that even the quickest way makes it a tenth.
fn compressed(request: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(request.len() / 4), Level::fast());
    encoder.write_all(request).expect("a vector takes anything");
    encoder.finish().expect("a vector takes anything").into()
}

/// Ends when patience is over.
async fn end_of(patience: &Patience) {
    while !patience.is_over() {
        time::sleep(LOOK).await;
    }
}

/// That there is no talking to somebody.
pub(super) fn unreachable(endpoint: &Uri, error: impl std::error::Error + Send + Sync + 'static) -> Answer {
    Answer::NotNow(OtlpError::Unreachable(endpoint.clone(), error.into()), None)
}
