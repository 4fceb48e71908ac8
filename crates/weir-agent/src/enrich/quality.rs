//! [`QualityEnricher`]: round-trip times and retransmits of TCP connections, as sockets of this machine know them.

use std::sync::{Mutex, PoisonError};

use weir_datapath::quality::{Qualities, QualityError, QualityReading, TcpQuality};
use weir_flow::Record;

use super::{Enrich, Lost, Miss};
use crate::{causes::with_causes, journal};

/// Asks the sockets once per tick, right before its records are completed: a millisecond or two for a thousand open ones.
/// Dropping it detaches from the kernel.
pub struct QualityEnricher {
    asking: Mutex<Asking>,
    qualities: Qualities,
}

struct Asking {
    sockets: TcpQuality,
    /// Whether the last reading failed, which is told once.
    is_failing: bool,
    /// The last reading that worked.
    last: QualityReading,
}

impl QualityEnricher {
    /// Attaches to the kernel.
    pub fn attach() -> Result<Self, QualityError> {
        let sockets = TcpQuality::attach()?;
        let qualities = sockets.qualities();
        Ok(Self {
            asking: Mutex::new(Asking { sockets, is_failing: false, last: QualityReading::default() }),
            qualities,
        })
    }
}

impl Enrich for QualityEnricher {
    /// Retransmits are told once, so each record must come here once. Where sockets cannot be asked, records get what is
    /// known from before.
    fn enrich(&self, records: &mut [Record]) {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).ask();
        self.qualities.add_to(records);
    }

    /// That a socket is not known is no miss: most ends are elsewhere.
    fn misses(&self) -> Vec<Miss> {
        Vec::new()
    }

    fn losses(&self) -> Vec<Lost> {
        let last = self.asking.lock().unwrap_or_else(PoisonError::into_inner).last;
        let of = |reason, count| Lost { what: "tcp_quality", reason, count };
        vec![of("end_not_read", last.lost), of("no_room", last.left_out)]
    }
}

impl Asking {
    fn ask(&mut self) {
        let outcome = self.sockets.read();
        if let Err(error) = &outcome
            && !self.is_failing
        {
            journal::warn(format_args!("round-trip times stay as they were: {}", with_causes(error)));
        }
        self.is_failing = outcome.is_err();
        self.last = outcome.unwrap_or(self.last);
    }
}

impl std::fmt::Debug for QualityEnricher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QualityEnricher").finish_non_exhaustive()
    }
}
