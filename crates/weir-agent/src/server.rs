//! The HTTP interface: listeners, who may ask, and what is answered.

mod config;

pub(crate) use self::config::validate;
pub use self::config::{ServerConfig, TlsConfig};
