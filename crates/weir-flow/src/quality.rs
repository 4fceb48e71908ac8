//! [`Quality`]: what the kernel's sockets know of the way between the ends of a TCP connection.

use std::time::Duration;

/// What the sockets at the ends of a flow know, where somebody asked them. Everything is absent otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Smoothed round-trip time, microseconds in resolution: of the source's socket, else of the destination's.
    pub rtt: Option<Duration>,
    /// Smallest round-trip time lately, of the same socket.
    pub minimum_rtt: Option<Duration>,
    /// Segments that the source's socket sent again since the previous record of this flow.
    pub retransmits: Option<u32>,
    /// Segments that the destination's socket sent again since the previous record of this flow.
    pub reverse_retransmits: Option<u32>,
}
