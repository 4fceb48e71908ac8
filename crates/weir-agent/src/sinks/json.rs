//! The `json` sink: flows as lines of JSON, for whatever reads lines.

mod config;
mod file;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use self::{
    config::{Document, Plan},
    writer::JsonWriter,
};
