//! [`PostgresWriter`]: connects when there is something to write, and again after anything went wrong.

use std::{fs, future::Future, io, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{Plan, PostgresError, session::Session};
use crate::outlet::{Consumer, Parcel, ParcelId, Patience, Receipt, WriteError};

/// Longest wait for a group of parcels to be written, or for a connection with everything that has to be made.
const SILENCE: Duration = Duration::from_mins(1);

/// Time between two looks at whether patience is over.
const LOOK: Duration = Duration::from_millis(100);

/// Writes flows into a database.
pub struct PostgresWriter {
    plan: Plan,
    node: String,
    runtime: Runtime,
    session: Option<Session>,
    /// The first of the parcels about which the server complained last.
    suspect: Option<ParcelId>,
}

impl PostgresWriter {
    /// Connects to nothing yet: the first parcel does.
    pub fn new(plan: &Plan) -> io::Result<Self> {
        let node = match &plan.node {
            Some(node) => node.clone(),
            None => fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { plan: plan.clone(), node, runtime, session: None, suspect: None })
    }
}

impl Consumer for PostgresWriter {
    fn write(&mut self, parcels: &[Parcel], patience: &Patience) -> Result<Receipt, WriteError> {
        let Self { plan, node, runtime, session, suspect } = self;
        let written: Result<bool, PostgresError> = runtime.block_on(async {
            if session.as_ref().is_none_or(Session::is_closed) {
                *session = None;
                *session = Some(within(plan, patience, Session::open(plan)).await?);
            }
            let session = session.as_mut().expect("it was just opened");
            within(plan, patience, session.write(parcels, plan, node)).await?;
            // The rows are safe; what is too old may wait.
            let maintained = within(plan, patience, async {
                session.maintain(plan).await;
                Ok(())
            });
            Ok(maintained.await.is_ok())
        });
        let error = match written {
            Ok(is_in_order) => {
                if !is_in_order {
                    *session = None;
                }
                *suspect = None;
                return Ok(Receipt::default());
            }
            Err(error) => error,
        };
        // Whatever it is, the next attempt begins from the start: tables may have been dropped.
        *session = None;
        let first = parcels.first().map(|parcel| parcel.id);
        if error.is_about_rows() && suspect.is_some() && *suspect == first {
            *suspect = None;
            return Err(WriteError::Reject(error.into()));
        }
        *suspect = if error.is_about_rows() { first } else { None };
        Err(WriteError::Retry(error.into()))
    }
}

/// Waits for something, but not for ever.
async fn within<T>(
    plan: &Plan,
    patience: &Patience,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    let mut work = std::pin::pin!(work);
    let mut waited = Duration::ZERO;
    loop {
        if let Ok(done) = timeout(LOOK, &mut work).await {
            return done;
        }
        waited += LOOK;
        if patience.is_over() {
            return Err(PostgresError::Ending);
        }
        if waited >= SILENCE {
            return Err(PostgresError::Silent { place: plan.place(), limit: SILENCE });
        }
    }
}
