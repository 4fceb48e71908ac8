//! An authority that signs certificates for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::permission::succeed;

/// An authority with its key, in a directory of its own. Needs `openssl`: ask [`crate::require_tool`] first.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
}

/// A certificate and its private key, PEM.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes one.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let authority = Self { directory };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "1", "-subj", "/CN=authority of a test"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        openssl.arg("-keyout").arg(authority.path("authority.key")).arg("-out").arg(authority.certificate());
        succeed(&mut openssl);
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// Signs a certificate for alternative names such as `IP:127.0.0.1,DNS:localhost`. `name` is the common name, too.
    pub fn sign(&self, name: &str, alternative_names: &str) -> Certified {
        let certified = Certified {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        let request = self.path(&format!("{name}.request"));
        let extensions = self.path(&format!("{name}.extensions"));
        fs::write(&extensions, format!("subjectAltName={alternative_names}\nbasicConstraints=CA:FALSE\n"))
            .expect("there is room");
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]);
        openssl.arg(format!("/CN={name}")).arg("-keyout").arg(&certified.key).arg("-out").arg(&request);
        succeed(&mut openssl);
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-req", "-days", "1", "-CAcreateserial", "-in"]).arg(request);
        openssl.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.path("authority.key"));
        openssl.arg("-extfile").arg(extensions).arg("-out").arg(&certified.certificate);
        succeed(&mut openssl);
        certified
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
