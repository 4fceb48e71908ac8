//! OTLP over HTTP, with Protocol Buffers.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;

use super::{
    answer::Answer,
    client::{Connector, LONGEST_ANSWER, MOST_UNDER_WAY, unreachable},
    config::Compression,
};

/// A connection for one signal.
#[derive(Clone)]
pub(super) struct HttpConnection {
    client: Client<Connector, Full<Bytes>>,
    endpoint: Uri,
    compression: Compression,
}

impl HttpConnection {
    pub(super) fn new(endpoint: Uri, compression: Compression, connector: Connector) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_max_idle_per_host(MOST_UNDER_WAY);
        Self { client: builder.build(connector), endpoint, compression }
    }

    pub(super) async fn send(self, request: Bytes, headers: HeaderMap) -> Answer {
        let mut parts = Request::new(Full::new(request));
        *parts.method_mut() = Method::POST;
        *parts.uri_mut() = self.endpoint.clone();
        *parts.headers_mut() = headers;
        let ours = parts.headers_mut();
        ours.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if self.compression == Compression::Gzip {
            ours.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let response = match self.client.request(parts).await {
            Ok(response) => response,
            Err(error) => return unreachable(&self.endpoint, error),
        };
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, LONGEST_ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) if head.status != StatusCode::OK => Bytes::new(),
            Err(error) => return unreachable(&self.endpoint, std::io::Error::other(error)),
        };
        if head.status.is_success() {
            // Some answer with something else than they should; but taken is taken.
            return Answer::taken(ExportLogsServiceResponse::decode(body).unwrap_or_default());
        }
        Answer::of_http(&self.endpoint, head.status, &head.headers, &body)
    }
}
