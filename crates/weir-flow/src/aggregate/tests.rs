//! What the table promises, as timelines of packets and the records that they must yield, and as properties.

mod accounting;
mod direction;
mod lifetime;
mod owners;
mod timeline;
