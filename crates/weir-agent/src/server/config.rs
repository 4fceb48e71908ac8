//! Where the server listens and who may ask; a listener beyond loopback needs a token or certificates.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::config::{At, Problems, SecretSource, ServerDocument};

/// The HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Unix socket to listen on as well.
    pub unix_socket: Option<PathBuf>,
    /// Who may connect to it: the permission bits of the file.
    pub unix_mode: u32,
    /// Where the token is that clients must send.
    pub token: Option<SecretSource>,
    /// TLS for the addresses.
    pub tls: Option<TlsConfig>,
    /// Names by which clients may call, in lower case.
    pub names: Vec<String>,
    /// Most connections at a time.
    pub connections: usize,
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Certificates of those who sign clients, PEM. With it, others do not get in.
    pub client_authority: Option<PathBuf>,
}

impl ServerConfig {
    /// Whether clients prove who they are by something that browsers do not send by themselves.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Judges the HTTP interface.
pub(crate) fn validate(document: ServerDocument, at: &At, problems: &mut Problems) -> ServerConfig {
    let token = document.token.and_then(|token| token.validate(&at.key("token"), problems));
    let tls = document.tls.map(|tls| TlsConfig {
        certificate: tls.certificate,
        key: tls.key,
        client_authority: tls.client_authority,
    });
    let knows_clients = tls.as_ref().is_some_and(|tls| tls.client_authority.is_some());
    let mut listen = Vec::new();
    for (index, text) in document.listen.iter().enumerate() {
        let at = at.key("listen").index(index);
        let parsed = text.parse::<SocketAddr>();
        let address =
            parsed.map_err(|_no_address| format!("`{text}` is no address with a port, as in 127.0.0.1:4780"));
        let Some(address) = problems.take(&at, address) else { continue };
        if !is_loopback(address.ip()) && token.is_none() && !knows_clients {
            let text = "is open to other machines: set server.token, or server.tls with client_authority";
            problems.add(&at, format!("{address} {text}"));
        }
        listen.push(address);
    }
    let names = document.names.iter().map(|name| name.to_lowercase()).collect();
    ServerConfig {
        listen,
        unix_socket: document.unix_socket,
        unix_mode: 0o660,
        token,
        tls,
        names,
        connections: document.connections,
    }
}

/// Whether only this machine can reach the address; `::ffff:127.0.0.1` counts.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
