//! Connections as `sslmode` says.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, config::SslMode as WireMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    config::{Plan, SslMode},
    error::PostgresError,
    tls,
};
use crate::config::Secret;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects in the ways that the mode allows, in its order. `settings` are more options of the server, `-c NAME=VALUE`.
pub(crate) async fn connect(
    plan: &Plan,
    password: Option<&Secret>,
    settings: &str,
) -> Result<(Client, JoinHandle<()>), PostgresError> {
    let is_socket = plan.host.starts_with('/');
    let ways: &[WireMode] = match plan.sslmode {
        SslMode::Disable => &[WireMode::Disable],
        _ if is_socket => &[WireMode::Disable],
        SslMode::Allow => &[WireMode::Disable, WireMode::Require],
        SslMode::Prefer => &[WireMode::Prefer, WireMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[WireMode::Require],
    };
    let mut first = None;
    for way in ways {
        match connect_by(plan, password, settings, *way).await {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                // Only what another way of encryption may mend is worth another attempt.
                let is_mendable = error.state().is_some_and(|state| state.code() == "28000")
                    || matches!(&error, PostgresError::Connect { source, .. } if source.code().is_none());
                first.get_or_insert(error);
                if !is_mendable {
                    break;
                }
            }
        }
    }
    Err(first.expect("there is at least one way"))
}

async fn connect_by(
    plan: &Plan,
    password: Option<&Secret>,
    settings: &str,
    way: WireMode,
) -> Result<(Client, JoinHandle<()>), PostgresError> {
    let mut config = Config::new();
    config
        .host(&plan.host)
        .port(plan.port)
        .dbname(&plan.database)
        .user(&plan.user)
        .ssl_mode(way)
        .connect_timeout(CONNECT)
        .tcp_user_timeout(Duration::from_secs(30))
        .application_name("weir")
        .options(format!("-c search_path={} -c TimeZone=UTC {settings}", plan.schema));
    if let Some(password) = password {
        config.password(password.reveal());
    }
    let failed = |source| PostgresError::Connect { place: plan.place(), source };
    if way == WireMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        // Why a connection ended, the next statement says.
        return Ok((client, tokio::spawn(async move { drop(connection.await) })));
    }
    let tls = MakeRustlsConnect::new(tls::client_config(plan)?);
    let (client, connection) = config.connect(tls).await.map_err(failed)?;
    Ok((client, tokio::spawn(async move { drop(connection.await) })))
}
