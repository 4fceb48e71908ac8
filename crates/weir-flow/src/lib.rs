//! What a flow is: observations from the datapath, records that people see, fields, filters, aggregation, ledger.
//!
//! Pure domain code: no I/O, no clock (time comes in as an argument), no async runtime, no serde. The datapath and
//! `weir replay` produce [`Observation`]s; everything after that is the same for both.

#![forbid(unsafe_code)]

pub mod aggregate;
pub mod community_id;
pub mod dns;
pub mod field;
pub mod filter;
pub mod format;
pub mod group;
pub mod identity;
pub mod initiator;
pub mod ledger;
pub mod observation;
pub mod outcome;
pub mod point;
pub mod quality;
pub mod rebuild;
pub mod record;
pub mod time;

pub use aggregate::{Balance, Drained, Emit, Flow, FlowTable, TableConfig};
pub use community_id::community_id;
pub use dns::{Dns, Question, RecordType, ResponseCode};
pub use identity::{Container, Identity, Unknown, Workload, WorkloadConfidence, WorkloadKind};
pub use initiator::Listener;
pub use ledger::{Count, Ledger, LedgerBook};
pub use observation::{Observation, SocketOwner, Traffic};
pub use outcome::{Outcome, TcpFailure};
pub use point::{Direction, Point, PointId, Role};
pub use quality::Quality;
pub use rebuild::record_of;
pub use record::{
    Counters, Detail, End, EndReason, Endpoint, Initiator, Process, ProcessConfidence, ProcessLookup, Record,
};
pub use time::{Monotonic, Tick, Wall};
pub use weir_packet::Tuple;
