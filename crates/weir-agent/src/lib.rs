//! The daemon: configuration, pipeline, enrichment, store, sinks and API.
//!
//! [`live`] is what `weir watch` and the agent share: threads between the kernel and whoever wants records. It knows
//! no async runtime; only the server, the sinks and the Kubernetes watchers do.

#![forbid(unsafe_code)]

pub mod causes;
pub mod live;
pub mod signals;
