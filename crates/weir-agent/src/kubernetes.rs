//! Names of pods, services and nodes from a Kubernetes cluster.
//!
//! `watch` lists and watches at the API server, `cluster` makes an index of what it hears (pure: no I/O, no clock), and
//! [`Names`] is what can be looked up. Nothing of the cluster is changed, and nothing but lists and watches is asked
//! for. Without a cluster there are no names, and [`Status`] says so.

mod backends;
pub mod cluster;
pub mod config;
pub mod connect;
pub mod endpoints;
mod feed;
mod intervals;
pub mod names;
pub mod objects;
mod shards;
mod watch;

pub use self::{
    config::KubernetesConfig,
    connect::ConnectError,
    feed::{Kubernetes, ResourceState, ResourceStatus, Status},
    names::Names,
};
