//! Single packets between the kernel and what is shown: as records that filters understand, as lines, in files, and
//! what became of them all.

pub(crate) mod lines;
mod processes;
mod sink;
mod tally;

pub(crate) use self::{processes::Processes, sink::Sink, tally::Tally};
