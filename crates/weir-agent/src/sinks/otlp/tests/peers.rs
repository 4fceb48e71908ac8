//! Collectors that answer what a real one cannot be made to answer.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;

/// An answer.
pub(super) struct Reply {
    code: u16,
    /// Headers of HTTP; the message of gRPC.
    text: &'static str,
    body: Vec<u8>,
    details: Option<Vec<u8>>,
}

/// Answers by HTTP/1.1, each reply once.
pub(super) struct HttpPeer {
    pub(super) endpoint: String,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Answers by HTTP/2, each reply once.
pub(super) struct GrpcPeer {
    pub(super) endpoint: String,
    requests: Arc<Mutex<Vec<Answered>>>,
}

/// The code that was answered, and the message that had come.
pub(super) type Answered = (u16, Vec<u8>);

impl Reply {
    /// An answer by HTTP, with lines of further headers.
    pub(super) fn http(code: u16, headers: &'static str, body: &[u8]) -> Self {
        Self { code, text: headers, body: body.to_vec(), details: None }
    }

    /// An answer by gRPC.
    pub(super) fn grpc(code: u16, message: &'static str, body: &[u8]) -> Self {
        Self { code, text: message, body: body.to_vec(), details: None }
    }

    /// An answer by gRPC that asks to wait.
    pub(super) fn grpc_retry_info(code: u16, message: &'static str, delay: Duration) -> Self {
        let details = super::answer::with_retry_info(delay);
        Self { details: Some(details), ..Self::grpc(code, message, &[]) }
    }
}

/// The body of an answer that says that some entries were refused.
pub(super) fn partial_success(refused: i64, text: &str) -> Vec<u8> {
    let partial_success =
        Some(ExportLogsPartialSuccess { rejected_log_records: refused, error_message: text.to_owned() });
    ExportLogsServiceResponse { partial_success }.encode_to_vec()
}

impl HttpPeer {
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let heard = Arc::clone(&requests);
        thread::spawn(move || {
            let mut replies = VecDeque::from(replies);
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some(reply) = replies.pop_front() {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap() == 0 {
                        return;
                    }
                    if line == "\r\n" {
                        break;
                    }
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                heard.lock().unwrap().push(body);
                let Reply { code, text, body, .. } = reply;
                write!(stream, "HTTP/1.1 {code} \r\n{text}content-length: {}\r\n\r\n", body.len()).unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        Self { endpoint, requests }
    }

    /// The bodies that came.
    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().unwrap().clone()
    }
}

impl GrpcPeer {
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Answered>>>::default();
        let heard = Arc::clone(&requests);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, VecDeque::from(replies), heard));
        });
        Self { endpoint, requests }
    }

    /// The messages that came, in the order in which they were answered.
    pub(super) fn requests(&self) -> Vec<Answered> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, mut replies: VecDeque<Reply>, heard: Arc<Mutex<Vec<Answered>>>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let Some(reply) = replies.pop_front() else { return };
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                message.extend_from_slice(&data);
            }
            heard.lock().unwrap().push((reply.code, message.split_off(5)));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(reply.code));
            trailers.insert("grpc-message", HeaderValue::from_static(reply.text));
            if let Some(details) = reply.details {
                let encoded = tonic::metadata::BinaryMetadataValue::from_bytes(&details);
                let encoded = HeaderValue::from_bytes(encoded.as_encoded_bytes()).unwrap();
                trailers.insert("grpc-status-details-bin", encoded);
            }
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            if reply.code == 0 {
                let mut message = vec![0];
                message.extend_from_slice(&u32::try_from(reply.body.len()).unwrap().to_be_bytes());
                message.extend_from_slice(&reply.body);
                stream.send_data(Bytes::from(message), false).unwrap();
            }
            stream.send_trailers(trailers).unwrap();
        });
    }
}
