//! The user side of `weir tap`: what the kernel hands over becomes calls and bytes without secrets, and every byte that is
//! not among them is accounted for under a name.
//!
//! [`Session`] is the core: events in, calls and chunks out, no I/O and no clock. Around it are the rules with their time, owner
//! and reason ([`Order`], [`Audit`]), the [outputs](Output), and [`run()`], which turns the crank. Nothing remote can
//! add a rule.

mod account;
mod audit;
mod har;
mod head;
mod json;
mod order;
mod output;
mod packets;
mod reference;
mod run;
mod select;
mod session;
mod socket;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod wanted;
mod writer;

pub use self::{
    account::Counts,
    audit::{Audit, AuditError, DEFAULT_AUDIT},
    har::Har,
    head::Head,
    json::Json,
    order::{Order, OrderError, Owner, Selection},
    output::{At, Ended, Output},
    packets::Packets,
    reference::page as reference_page,
    run::{Ending, OpenError, Outcome, Progress, RunError, Running, open, run},
    select::{SelectError, Selector},
    session::{Locate, Session, SessionSettings},
    summary::Summary,
    text::Text,
    wanted::{Wanted, wanted},
    writer::{Writer, WriterError},
};
