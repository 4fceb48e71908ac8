//! OTLP over gRPC.
//!
//! Requests are bytes already, so the codec hands them through.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, Uri, uri::PathAndQuery};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tonic::{
    Request, Status,
    body::Body,
    client::Grpc,
    codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use super::{Signal, answer::Answer, client::Connector, config::Compression};

/// A connection for one signal.
pub(super) struct GrpcConnection {
    client: Grpc<Client<Connector, Body>>,
    endpoint: Uri,
    method: PathAndQuery,
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
        let client = Grpc::with_origin(builder.build(connector), endpoint.clone())
            .accept_compressed(CompressionEncoding::Gzip);
        let client = match compression {
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::None => client,
        };
        Self { client, endpoint, method: PathAndQuery::from_static(signal.method()), timeout }
    }

    pub(super) async fn send(&mut self, request: Bytes, headers: HeaderMap) -> Answer {
        let mut request =
            Request::from_parts(MetadataMap::from_headers(headers), http::Extensions::default(), request);
        request.set_timeout(self.timeout);
        match self.client.unary(request, self.method.clone(), Through).await {
            Ok(response) => Answer::taken(response.into_inner()),
            Err(status) => Answer::of_status(&self.endpoint, &status),
        }
    }
}

/// Bytes as they are in one direction, answers in the other.
struct Through;

impl Codec for Through {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Through {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(request.len());
        out.put(request);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(128 << 10, 32 << 10)
    }
}

impl Decoder for Through {
    type Item = ExportLogsServiceResponse;
    type Error = Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let decoded = ExportLogsServiceResponse::decode(answer);
        decoded.map(Some).map_err(|error| Status::internal(format!("its answer makes no sense: {error}")))
    }
}
