//! What can go wrong.

use std::io;

use aya::{BtfError, EbpfError, maps::MapError, programs::ProgramError};

use super::{rule::RuleError, settings::Tier};
use crate::{object::LoadError, sockets::kernel_types::KernelTypesError};

/// Why the tap does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The rules contradict themselves.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel does not tell where its fields are.
    #[error(transparent)]
    KernelTypes(#[from] KernelTypesError),
    /// The kernel's type information does not suit the loader.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// The kernel refused the object.
    #[error("cannot load the kernel object tap")]
    Object(#[from] EbpfError),
    /// The tables of registers are those of one machine.
    #[error("the tap knows the system calls of x86-64 alone, not those of {0}")]
    Machine(&'static str),
    /// The kernel has no such tracepoint.
    #[error("this kernel has no tracepoint {0}")]
    NoTracepoint(&'static str),
    /// The kernel has no such function, or does not tell of it.
    #[error("this kernel has no function {0}")]
    NoFunction(&'static str),
    /// The kernel's type information is beyond what can be cut out.
    #[error("the kernel has too many types")]
    Types,
    /// The kernel refused a program.
    #[error("cannot attach {hook}")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The kernel let the programs be attached, and nothing came of it.
    #[error("{bytes} bytes were sent to ourselves on loopback to try the hooks, and {problem}")]
    Silent {
        /// How many were sent.
        bytes: usize,
        /// What was wrong.
        problem: &'static str,
    },
    /// The hooks could not be tried.
    #[error("cannot send to ourselves on loopback to try the hooks: is lo up?")]
    Trial(#[source] io::Error),
    /// No tier works.
    #[error("no way to tap works here: {}", list(.0))]
    NoTier(Vec<(Tier, String)>),
    /// A map cannot be used.
    #[error("cannot use the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A ring cannot be read.
    #[error("cannot read what the kernel tells")]
    Ring(#[source] io::Error),
    /// The walk over open files failed.
    #[error("cannot walk over open files")]
    Walk(#[source] io::Error),
    /// A record contradicts itself: the object and the binary are not of one build.
    #[error("the kernel programs wrote a record of {0} bytes that cannot be")]
    Record(usize),
}

impl TapError {
    /// The error with all its causes, in one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let cause = error.to_string();
            // Some errors repeat their cause.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        // The verifier's log has many lines, of which the first says what the kernel was asked.
        text.lines().next().unwrap_or_default().to_owned()
    }
}

fn list(tried: &[(Tier, String)]) -> String {
    let parts: Vec<_> = tried.iter().map(|(tier, why)| format!("{tier}: {why}")).collect();
    parts.join("; ")
}
