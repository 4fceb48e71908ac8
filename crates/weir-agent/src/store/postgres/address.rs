//! Where a database is, as a URL.

use std::{env, path::PathBuf};

use thiserror::Error;
use tokio_postgres::config::Host;

use crate::{
    config::Secret,
    sinks::postgres::{Plan, SslMode},
};

/// Variable with the password, where the URL has none.
const PASSWORD: &str = "PGPASSWORD";

/// Schemes of a URL of a database.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A database, and how to get in. No part of it that may be secret is shown.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    pub(super) plan: Plan,
    pub(super) password: Option<Secret>,
    /// The node whose rows are read; without one, those of all.
    pub(super) node: Option<String>,
}

/// Why a URL is none of a database. It is not shown: there may be a password in it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// It makes no sense.
    #[error(
        "this is no URL of a database: write postgres://USER@HOST:PORT/DATABASE?sslmode=…, and in a password %40 for @ and %3F for ?"
    )]
    Malformed,
    /// There are several hosts.
    #[error("the URL of a database names one host")]
    Hosts,
    /// A parameter is not known.
    #[error("a URL of a database takes the parameters sslmode, sslrootcert, schema and node, not `{0}`")]
    Parameter(String),
    /// A parameter has a value that it cannot have.
    #[error("{name} cannot be that in the URL of a database: {remedy}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it can be.
        remedy: &'static str,
    },
}

impl DatabaseUrl {
    /// Whether a text is meant to be one.
    pub fn is_one(text: &str) -> bool {
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    }

    /// Reads it. Where it says nothing, what the sink takes by default holds; a password may come from `PGPASSWORD`.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        // Where user and password end is not to be guessed: part of a password would be taken for a host, and shown.
        if place.matches('@').count() > 1 || parameters.contains('@') {
            return Err(UrlError::Malformed);
        }
        let config: tokio_postgres::Config = place.parse().map_err(|_shown_to_nobody| UrlError::Malformed)?;
        let mut plan = Plan::usual();
        match config.get_hosts() {
            [] => {}
            [Host::Tcp(host)] => plan.host.clone_from(host),
            [Host::Unix(directory)] => {
                directory.to_str().ok_or(UrlError::Malformed)?.clone_into(&mut plan.host);
            }
            _ => return Err(UrlError::Hosts),
        }
        match config.get_ports() {
            [] => {}
            [port] => plan.port = *port,
            _ => return Err(UrlError::Hosts),
        }
        if let Some(name) = config.get_dbname() {
            name.clone_into(&mut plan.database);
        }
        if let Some(name) = config.get_user() {
            name.clone_into(&mut plan.user);
        }
        let mut node = None;
        for (name, value) in parameters.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "node" => node = Some(value.to_owned()),
                _ => set(&mut plan, name, value)?,
            }
        }
        if matches!(plan.sslmode, SslMode::VerifyCa | SslMode::VerifyFull) && plan.sslrootcert.is_none() {
            let remedy = "this one needs sslrootcert, such as /etc/ssl/certs/ca-certificates.crt";
            return Err(UrlError::Value { name: "sslmode", remedy });
        }
        let password = match config.get_password() {
            Some(bytes) => {
                Some(std::str::from_utf8(bytes).map_err(|_no_text| UrlError::Malformed)?.to_owned())
            }
            None => env::var(PASSWORD).ok(),
        };
        Ok(Self { plan, password: password.map(Secret::of), node })
    }
}

fn set(plan: &mut Plan, name: &str, value: &str) -> Result<(), UrlError> {
    match name {
        "sslmode" => {
            let modes = [
                ("disable", SslMode::Disable),
                ("allow", SslMode::Allow),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ];
            let remedy = "disable, allow, prefer, require, verify-ca or verify-full";
            let known = modes.into_iter().find(|(known, _)| *known == value);
            plan.sslmode = known.ok_or(UrlError::Value { name: "sslmode", remedy })?.1;
        }
        "sslrootcert" => plan.sslrootcert = Some(PathBuf::from(value)),
        "schema" => {
            if !Plan::is_schema(value) {
                let remedy = "a-z, 0-9 and `_`, not a digit first";
                return Err(UrlError::Value { name: "schema", remedy });
            }
            value.clone_into(&mut plan.schema);
        }
        other => return Err(UrlError::Parameter(other.chars().take(40).collect())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let url = DatabaseUrl::parse(
            "postgres://me:hun%2Fter2@db.example:5433/flows?sslmode=verify-full&sslrootcert=/ca.pem&schema=net&node=a",
        )
        .unwrap();
        let Plan { host, port, database, user, schema, .. } = &url.plan;
        assert_eq!((host.as_str(), *port, database.as_str()), ("db.example", 5433, "flows"));
        assert_eq!((user.as_str(), schema.as_str(), url.plan.sslmode), ("me", "net", SslMode::VerifyFull));
        assert_eq!(url.node.as_deref(), Some("a"));
        assert_eq!(url.password.as_ref().map(Secret::reveal), Some("hun/ter2"));
        assert!(!format!("{url:?}").contains("ter2"));
    }

    #[test]
    fn what_is_not_said_is_as_the_sink_has_it() {
        let DatabaseUrl { plan, .. } = DatabaseUrl::parse("postgresql://db").unwrap();
        let usual = Plan::usual();
        assert_eq!((plan.port, &plan.user, &plan.database), (usual.port, &usual.user, &usual.database));
        let DatabaseUrl { plan, .. } = DatabaseUrl::parse("postgres:///flows").unwrap();
        assert_eq!((plan.host, plan.database.as_str()), (usual.host, "flows"));
    }

    #[test]
    fn a_url_that_makes_no_sense_is_refused_without_being_shown() {
        for text in [
            "postgres://me:hunter2@db:port/flows",
            "postgres://me:hunt@hunter2@db/flows",
            "postgres://me:hunter2?@db/flows",
            "postgres://db/flows?sslmode=require&password=hunter2@",
            "postgres://me:hunter2@a,b/flows",
            "postgres://me:hunter2@db/flows?sslmode=sometimes",
            "postgres://me:hunter2@db/flows?sslmode=verify-ca",
            "postgres://me:hunter2@db/flows?schema=a;b",
            "postgres://me:hunter2@db/flows?options=-c",
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
