//! TLS to collectors: 1.2 and 1.3 with ring; the files are read at each new connection's client.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use thiserror::Error;

use super::config::TlsDocument;

/// Why there is no TLS. What is in the files is not told.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read the {what} in {}: {reason}", path.display())]
    Pem {
        /// What should be in it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// This machine trusts nobody.
    #[error(
        "this machine has no certificates of authorities: install ca-certificates, or set `tls.authority`"
    )]
    NoRoots,
    /// Our own certificate and key do not fit, or the like.
    #[error("cannot use our certificate or key")]
    Own(#[source] rustls::Error),
    /// The versions of TLS are not to be had.
    #[error("cannot offer TLS 1.2 and 1.3")]
    Versions(#[source] rustls::Error),
}

/// Reads the files. Without TLS (`is_wanted`) nothing is read, and nobody is trusted.
pub(super) fn client_config(files: &TlsDocument, is_wanted: bool) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    if !is_wanted {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let found = match &files.authority {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    // A bundle of a system may have some that nobody understands.
    let (understood, _) = roots.add_parsable_certificates(found);
    if understood == 0 {
        return Err(TlsError::NoRoots);
    }
    let builder = builder.with_root_certificates(roots);
    match (&files.certificate, &files.key) {
        (Some(chain), Some(key)) => {
            let chain = certificates(chain)?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|error| failed("private key", key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Own)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| failed("certificates", path, &error);
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn failed(what: &'static str, path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none".to_owned(),
        _ => "it is no PEM".to_owned(),
    };
    TlsError::Pem { what, path: path.to_owned(), reason }
}
