//! TLS for listeners: certificates from files, ring as the provider, 1.2 and 1.3.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use thiserror::Error;

use super::TlsConfig;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM. What is in it is not shown.
    #[error("cannot read the {what} in {}: {reason}", path.display())]
    Pem {
        /// What should be in it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not fit, or the like.
    #[error("cannot use the certificate in {} with the key in {}", certificate.display(), key.display())]
    Certificate {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate of the signers of clients is none of an authority.
    #[error("cannot trust the certificates in {}", path.display())]
    Authority {
        /// Their file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The versions of TLS are not to be had.
    #[error("cannot offer TLS 1.2 and 1.3")]
    Versions(#[source] rustls::Error),
    /// The signers of clients cannot be used.
    #[error("cannot use the client authority")]
    Clients(#[source] VerifierBuilderError),
}

/// Reads the files.
pub(super) fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&config.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| pem("private key", &config.key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match &config.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                let refused = |source| TlsError::Authority { path: path.clone(), source };
                roots.add(certificate).map_err(refused)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(TlsError::Clients)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|source| TlsError::Certificate {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        source,
    })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| pem("certificates", path, &error);
    let list: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if list.is_empty() {
        let (what, reason) = ("certificates", "there are none".to_owned());
        return Err(TlsError::Pem { what, path: path.to_owned(), reason });
    }
    Ok(list)
}

fn pem(what: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    let reason = match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "there is none".to_owned(),
        _ => "it is no PEM".to_owned(),
    };
    TlsError::Pem { what, path: path.to_owned(), reason }
}
