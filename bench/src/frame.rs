//! Packets for test runs.

use clap::ValueEnum;
use weir_packet::protocol;

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// IPv4, TCP
    V4Tcp,
    /// IPv4, UDP
    V4Udp,
    /// IPv6, TCP
    V6Tcp,
    /// IPv6, UDP
    V6Udp,
}

/// Bytes behind the TCP options or the UDP header.
const PAYLOAD: usize = 100;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// With time stamps, as nearly all TCP packets have.
const TCP: usize = 32;
const UDP: usize = 8;

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::V4Tcp, Self::V4Udp, Self::V6Tcp, Self::V6Udp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4Tcp => "IPv4 TCP",
            Self::V4Udp => "IPv4 UDP",
            Self::V6Tcp => "IPv6 TCP",
            Self::V6Udp => "IPv6 UDP",
        }
    }

    const fn is_ipv6(self) -> bool {
        matches!(self, Self::V6Tcp | Self::V6Udp)
    }

    const fn is_tcp(self) -> bool {
        matches!(self, Self::V4Tcp | Self::V6Tcp)
    }

    /// Where the last word of the source address lies, how many bytes it has, and what it is for flow 0.
    pub(crate) const fn source_word(self) -> (u32, u32, u64) {
        if self.is_ipv6() { (14 + 8 + 8, 8, 0) } else { (14 + 12, 4, 0x0a63_0000) }
    }

    /// The packet.
    pub(crate) fn frame(self) -> Vec<u8> {
        let transport = self.transport();
        let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        frame.extend(if self.is_ipv6() { [0x86, 0xdd] } else { [0x08, 0x00] });
        let number = if self.is_tcp() { protocol::TCP } else { protocol::UDP };
        if self.is_ipv6() {
            let [high, low] = bytes(transport.len());
            frame.extend([0x60, 0, 0, 0, high, low, number, 64]);
            frame.extend([0xfd, 0x99, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend([0xfd, 0x99, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        } else {
            let [high, low] = bytes(IPV4 + transport.len());
            frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, number, 0, 0]);
            frame.extend([10, 99, 0, 0, 10, 98, 0, 1]);
        }
        debug_assert_eq!(frame.len(), ETHERNET + if self.is_ipv6() { IPV6 } else { IPV4 });
        frame.extend(transport);
        frame
    }

    fn transport(self) -> Vec<u8> {
        let mut bytes_of = vec![0x9c, 0x40, 0x01, 0xbb];
        if self.is_tcp() {
            // Sequence and acknowledgement numbers, eight words, ACK and PSH, window, checksum, urgent pointer.
            bytes_of.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 0x20, 0, 0, 0, 0, 0]);
            bytes_of.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
            debug_assert_eq!(bytes_of.len(), TCP);
        } else {
            let [high, low] = bytes(UDP + PAYLOAD);
            bytes_of.extend([high, low, 0, 0]);
            debug_assert_eq!(bytes_of.len(), UDP);
        }
        bytes_of.resize(bytes_of.len() + PAYLOAD, 0x5a);
        bytes_of
    }
}

fn bytes(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("our packets are short").to_be_bytes()
}
