//! [`Client`]: sends the requests of one signal to its target, one at a time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::{runtime::Runtime, time};

use super::{
    Signal,
    answer::{Answer, OtlpError},
    config::Protocol,
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
}

enum Connection {
    Grpc(GrpcConnection),
    Http(HttpConnection),
}

impl Client {
    pub(super) fn new(signal: Signal, target: Target, most_bytes: usize) -> Self {
        Self { signal, target, connection: None, most_bytes }
    }

    /// Sends a request and waits for the answer, no longer than the target's timeout and than patience lasts.
    pub(super) fn send(&mut self, runtime: &Runtime, request: Bytes, patience: &Patience) -> Answer {
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(error) => return Answer::NotNow(error, None),
        };
        let Self { signal, target, connection, .. } = self;
        let made = match connection {
            Some(connection) => connection,
            None => match runtime.block_on(async { Connection::new(*signal, target) }) {
                Ok(made) => connection.insert(made),
                Err(error) => return Answer::NotNow(error, None),
            },
        };
        let call = async {
            match made {
                Connection::Grpc(grpc) => grpc.send(request, headers).await,
                Connection::Http(http) => http.send(request, headers).await,
            }
        };
        let answer = runtime.block_on(async {
            tokio::select! {
                answer = time::timeout(target.timeout, call) => answer.unwrap_or_else(|_elapsed| {
                    Answer::NotNow(OtlpError::Silent(target.endpoint.clone(), target.timeout), None)
                }),
                () = end_of(patience) => {
                    Answer::NotNow(OtlpError::Ending(target.endpoint.clone()), None)
                }
            }
        });
        if let Answer::NotNow(OtlpError::Unreachable(..) | OtlpError::Silent(..) | OtlpError::Ending(_), _) =
            &answer
        {
            // A connection that hangs would be used again.
            *connection = None;
        }
        answer
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
