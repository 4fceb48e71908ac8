//! Which database, how to get in, and how long rows stay.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{At, LengthText, Problems, SecretDocument, SecretSource},
    sinks::{BatchDocument, Shared, SpoolDocument},
};

/// A PostgreSQL database, version 13 or later. Tables are made and kept up to date by Weir.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Document {
    /// Name in logs, metrics and the ledger; by default the type.
    pub name: Option<String>,
    /// Only flows that match this filter.
    pub filter: String,
    /// Most flows that wait for this sink in memory; beyond that, those that are on disk are read back from there.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: usize,
    /// Where flows wait on disk, across restarts. On unless said otherwise.
    pub spool: SpoolDocument,
    /// How much is written in one transaction.
    pub batch: BatchDocument,
    /// Host to connect to, or the directory of its unix socket.
    pub host: String,
    /// Its port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role to log in as. It must be allowed to make tables in the schema.
    pub user: String,
    /// Its password: file or variable. It is read again at each connection.
    pub password: Option<SecretDocument>,
    /// Whether the connection is encrypted, and what is checked of the server, as in libpq. A unix socket never is.
    pub sslmode: SslMode,
    /// File with the certificates, PEM, of those who sign servers. Needed by `verify-ca` and `verify-full`.
    pub sslrootcert: Option<PathBuf>,
    /// Schema that holds the tables. It is made if it is not there.
    pub schema: String,
    /// What the column `node` says; by default the name of this machine.
    pub node: Option<String>,
    /// How long single flows are kept. Whole partitions are dropped.
    pub retention: LengthText,
    /// How long sums of a minute are kept.
    pub edge_retention: LengthText,
    /// Time that one partition of single flows spans. Hours for more than some thousand flows a second.
    pub partition: Part,
}

/// How much the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum SslMode {
    #[expect(missing_docs, reason = "a comment would make it a schema of its own; the key explains it")]
    Disable,
    #[expect(missing_docs, reason = "see above")]
    Allow,
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Prefer,
    #[expect(missing_docs, reason = "see above")]
    Require,
    #[expect(missing_docs, reason = "see above")]
    VerifyCa,
    #[expect(missing_docs, reason = "see above")]
    VerifyFull,
}

/// Time that a partition spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Part {
    #[expect(missing_docs, reason = "see above")]
    Hour,
    #[default]
    #[expect(missing_docs, reason = "see above")]
    Day,
}

/// Which database, how to get in, and how long rows stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Host, or directory of a unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Where its password comes from, if it has one.
    pub password: Option<SecretSource>,
    /// How much the connection is protected.
    pub sslmode: SslMode,
    /// Who signs servers.
    pub sslrootcert: Option<PathBuf>,
    /// Schema of the tables.
    pub schema: String,
    /// What the column `node` says; by default the name of this machine.
    pub node: Option<String>,
    /// How long flows stay.
    pub retention: Duration,
    /// How long sums stay.
    pub edge_retention: Duration,
    /// Time that a partition of flows spans.
    pub partition: Part,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            name: None,
            filter: String::new(),
            queue: 30_000,
            spool: SpoolDocument::default(),
            batch: BatchDocument::default(),
            host: "localhost".to_owned(),
            port: 5432,
            database: "weir".to_owned(),
            user: "weir".to_owned(),
            password: None,
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            schema: "public".to_owned(),
            node: None,
            retention: "7d".into(),
            edge_retention: "90d".into(),
            partition: Part::Day,
        }
    }
}

impl Document {
    /// Judges everything but the parts that all sinks share.
    pub(in crate::sinks) fn validate(&self, at: &At, problems: &mut Problems) -> Plan {
        for (key, text) in [("host", &self.host), ("database", &self.database), ("user", &self.user)] {
            if text.is_empty() || text.contains('\0') {
                problems.add(&at.key(key), "must not be empty");
            }
        }
        if !Plan::is_schema(&self.schema) {
            problems.add(&at.key("schema"), "must be made of a-z, 0-9 and `_`, and not begin with a digit");
        }
        if self.node.as_deref().is_some_and(|node| node.is_empty() || node.contains('\0')) {
            problems.add(&at.key("node"), "must not be empty");
        }
        let verifies = matches!(self.sslmode, SslMode::VerifyCa | SslMode::VerifyFull);
        if verifies && self.sslrootcert.is_none() {
            let text = "needs `sslrootcert`, such as /etc/ssl/certs/ca-certificates.crt";
            problems.add(&at.key("sslmode"), text);
        }
        let password =
            self.password.clone().and_then(|secret| secret.validate(&at.key("password"), problems));
        let (shortest, longest) = (Duration::from_hours(1), Duration::from_hours(10 * 365 * 24));
        let mut age = |text: &LengthText, key: &str| text.within(shortest, longest, &at.key(key), problems);
        Plan {
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password,
            sslmode: self.sslmode,
            sslrootcert: self.sslrootcert.clone(),
            schema: self.schema.clone(),
            node: self.node.clone(),
            retention: age(&self.retention, "retention"),
            edge_retention: age(&self.edge_retention, "edge_retention"),
            partition: self.partition,
        }
    }

    /// The part that all sinks share.
    pub(in crate::sinks) fn shared(&self, at: &At, problems: &mut Problems) -> Shared<'_> {
        Shared {
            kind: "postgres",
            name: self.name.as_deref(),
            filter: &self.filter,
            queue: self.queue,
            batching: self.batch.validate(&at.key("batch"), problems),
            spool: Some(&self.spool),
            is_remote: true,
        }
    }
}

impl Plan {
    /// What holds where nothing is said.
    pub(crate) fn usual() -> Self {
        Document::default().validate(&At::default(), &mut Problems::default())
    }

    /// Whether a name can be that of the schema. It becomes part of statements.
    pub(crate) fn is_schema(name: &str) -> bool {
        name.len() <= 40
            && name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
            && name
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    }

    /// `HOST:PORT`, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
