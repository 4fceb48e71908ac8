//! OTLP over gRPC.
//!
//! A call with one message each way is a POST with five bytes before the message and the outcome behind the answer (gRPC
//! over HTTP/2, "Requests" and "Responses"). Requests are bytes already, compressed if they are to be, so nothing else is
//! needed of a library than to read the outcome.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, TE},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tonic::{Code, Status};

use super::{
    Signal,
    answer::Answer,
    client::{Connector, LONGEST_ANSWER, unreachable},
    config::Compression,
};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A connection for one signal.
#[derive(Clone)]
pub(super) struct GrpcConnection {
    client: Client<Connector, Full<Bytes>>,
    endpoint: Uri,
    url: Uri,
    compression: Compression,
    timeout: Duration,
}

impl GrpcConnection {
    pub(super) fn new(
        signal: Signal,
        endpoint: Uri,
        compression: Compression,
        timeout: Duration,
        connector: Connector,
    ) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.http2_only(true).timer(TokioTimer::new());
        let mut parts = endpoint.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(signal.method()));
        let url = Uri::from_parts(parts).expect("it had a scheme and a host before");
        Self { client: builder.build(connector), endpoint, url, compression, timeout }
    }

    pub(super) async fn send(self, message: Bytes, headers: HeaderMap) -> Answer {
        let mut request = Request::new(Full::new(self.framed(&message)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        let ours = request.headers_mut();
        ours.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        ours.insert(TE, HeaderValue::from_static("trailers"));
        let timeout = HeaderValue::try_from(format!("{}m", self.timeout.as_millis()));
        ours.insert("grpc-timeout", timeout.expect("digits and a letter"));
        if self.compression == Compression::Gzip {
            ours.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return unreachable(&self.endpoint, error),
        };
        let (head, body) = response.into_parts();
        if let Some(status) =
            Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok)
        {
            return Answer::of_status(&self.endpoint, &status);
        }
        if head.status != StatusCode::OK {
            return Answer::of_http(&self.endpoint, head.status, &head.headers, &[]);
        }
        let collected = match Limited::new(body, LONGEST_ANSWER).collect().await {
            Ok(collected) => collected,
            Err(error) => return unreachable(&self.endpoint, std::io::Error::other(error)),
        };
        let outcome = collected.trailers().or(Some(&head.headers)).and_then(Status::from_header_map);
        match outcome {
            Some(status) if status.code() != Code::Ok => Answer::of_status(&self.endpoint, &status),
            Some(_) => Answer::taken(answer_in(&collected.to_bytes())),
            None => {
                let cut = std::io::Error::other("its answer ended before it said what became of the request");
                unreachable(&self.endpoint, cut)
            }
        }
    }

    fn framed(&self, message: &[u8]) -> Bytes {
        let mut framed = BytesMut::with_capacity(PREFIX + message.len());
        framed.put_u8(u8::from(self.compression == Compression::Gzip));
        framed.put_u32(u32::try_from(message.len()).expect("a request has a few megabytes"));
        framed.put_slice(message);
        framed.freeze()
    }
}

/// The message in an answer. Some answer with something else than they should; but taken is taken.
fn answer_in(body: &[u8]) -> ExportLogsServiceResponse {
    let message = body.get(PREFIX..).unwrap_or_default();
    ExportLogsServiceResponse::decode(message).unwrap_or_default()
}
