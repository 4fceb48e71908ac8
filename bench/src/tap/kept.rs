//! How many bytes of TCP streams are in a capture file.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context as _, bail};
use pcap_file::{
    DataLink,
    pcap::PcapReader,
    pcapng::{Block, PcapNgReader},
};

/// Bytes of TCP payload in a pcap file. Such a file may be cut at its end.
pub(super) fn in_pcap(path: &Path) -> anyhow::Result<u64> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = PcapReader::new(BufReader::new(file))?;
    let link = header_length(reader.header().datalink)?;
    let mut sum = 0;
    while let Some(Ok(packet)) = reader.next_packet() {
        sum += payload(packet.data.get(link..).unwrap_or_default());
    }
    Ok(sum)
}

/// Bytes of TCP payload in a pcapng file.
pub(super) fn in_pcapng(path: &Path) -> anyhow::Result<u64> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = PcapNgReader::new(BufReader::new(file))?;
    let mut links = Vec::new();
    let mut sum = 0;
    while let Some(block) = reader.next_block() {
        match block.context("the file is damaged")? {
            Block::InterfaceDescription(interface) => links.push(header_length(interface.linktype)?),
            Block::EnhancedPacket(packet) => {
                let link = links.get(packet.interface_id as usize).context("a packet of no interface")?;
                sum += payload(packet.data.get(*link..).unwrap_or_default());
            }
            _ => {}
        }
    }
    Ok(sum)
}

/// Bytes in front of the IP header.
fn header_length(link: DataLink) -> anyhow::Result<usize> {
    match link {
        DataLink::ETHERNET => Ok(14),
        DataLink::RAW | DataLink::IPV4 => Ok(0),
        other => bail!("packets of link type {other:?} were not expected"),
    }
}

/// Bytes behind the headers of IPv4 and TCP. What else there may be has none.
fn payload(packet: &[u8]) -> u64 {
    let behind = |packet: &[u8]| {
        let ip = usize::from(packet.first()? & 15) * 4;
        let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
        (packet[0] >> 4 == 4 && packet[9] == 6).then(|| packet.len().saturating_sub(ip + tcp))
    };
    behind(packet).unwrap_or(0) as u64
}
