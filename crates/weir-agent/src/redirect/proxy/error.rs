//! Why nothing was changed.

use thiserror::Error;
use weir_datapath::redirect::RedirectError;

use crate::{config::Problems, kubernetes::endpoints::NoApi};

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The rules are wrong.
    #[error("{0}")]
    Rules(Problems),
    /// There is no such rule.
    #[error("no rule is called `{name}`{}", known(.there))]
    NoRule {
        /// What was asked for.
        name: String,
        /// The rules that there are.
        there: Vec<String>,
    },
    /// The rule has no such backend.
    #[error("rule {rule} has no backend {backend}: it has {}", .there.join(", "))]
    NoBackend {
        /// The rule.
        rule: String,
        /// What was asked for.
        backend: String,
        /// The backends that there are.
        there: Vec<String>,
    },
    /// The file drains it, so a command cannot undo that.
    #[error("the rules file drains {0}: change it there")]
    DrainedByFile(String),
    /// It names services, and there is no way to an API server.
    #[error(transparent)]
    NoApi(NoApi),
    /// The kernel did not take it.
    #[error("the kernel did not take the change, so everything is as before")]
    Datapath(#[source] Box<RedirectError>),
    /// An interface cannot be used.
    #[error("cannot use the interface {name}")]
    Interface {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<RedirectError>,
    },
}

fn known(there: &[String]) -> String {
    match there {
        [] => ": there is none".to_owned(),
        some if some.len() > 12 => String::new(),
        some => format!(": there are {}", some.join(", ")),
    }
}

impl ChangeError {
    /// Whether it is the request that is wrong, not the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Datapath(_) | Self::NoApi(_) => false,
            Self::Interface { source, .. } => matches!(**source, RedirectError::UnknownInterface(_)),
            _ => true,
        }
    }
}

pub(super) fn datapath_error(error: RedirectError) -> ChangeError {
    ChangeError::Datapath(Box::new(error))
}

/// What is wrong with an interface.
pub(super) fn interface_error(name: &str) -> impl FnOnce(RedirectError) -> ChangeError {
    move |source| ChangeError::Interface { name: name.to_owned(), source: Box::new(source) }
}
