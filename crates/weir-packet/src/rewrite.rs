//! Address and port translation: where in a packet what has to be written, and by how much which checksums change.
//!
//! Nothing here touches a packet. [`Layout`] says where things are, [`Plan`] and [`IcmpPlan`] say what becomes of them;
//! the kernel program (and in tests a few lines) carry that out. Checksums are never computed anew but changed by what
//! changed (RFC 1624), because what they cover may be longer than what is seen, not there yet (left to the network
//! card), or wrong already, which the receiver shall find out.

mod checksum;
mod icmp;
mod layout;
mod plan;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "sums are folded, lengths are small")]
#[expect(unreachable_pub, reason = "tests of the kernel program use it too")]
mod reference;
#[cfg(test)]
mod tests;

pub use checksum::Sum;
pub use icmp::IcmpPlan;
pub use layout::{Found, Fragment, Layout, inner_layout, layout};
pub use plan::{Plan, Side, Target, swapped};
