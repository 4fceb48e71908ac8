//! A Weir of a test that captures packets, and everything it captured so far.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use weir_datapath::packets::{
    self, Device, Directions, Packet, PacketAttacher, PacketLedger, PacketOptions, PacketReader,
};
use weir_flow::{Count, Direction, Role, SocketOwner};
use weir_packet::{Link, Parsed};

use crate::{Namespace, VethEnd, tcx::until_ours_are_off};

/// The capturing programs, attached; detaches when dropped.
pub struct Capturing {
    namespace: Namespace,
    /// The half that attaches.
    pub attacher: PacketAttacher,
    /// The half that reads.
    pub reader: PacketReader,
    /// Everything that was handed over.
    pub captured: Vec<Captured>,
    /// Interfaces that were attached.
    interfaces: Vec<String>,
}

/// A packet that was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Name of the interface.
    pub interface: String,
    /// Direction.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
    /// The socket of its sender.
    pub owner: SocketOwner,
    /// What its headers say.
    pub parsed: Parsed,
    /// Frames on the wire.
    pub segments: u32,
    /// Bytes of all of them.
    pub wire_bytes: u64,
    /// Its length.
    pub length: u32,
    /// Its first bytes.
    pub frame: Vec<u8>,
}

impl From<&Packet<'_>> for Captured {
    fn from(packet: &Packet<'_>) -> Self {
        Self {
            interface: packet.point.interface.to_string(),
            direction: packet.point.direction,
            wall_ns: packet.wall.0,
            owner: packet.owner,
            parsed: packet.parsed,
            segments: packet.segments,
            wire_bytes: packet.wire_bytes,
            length: packet.length,
            frame: packet.frame.to_vec(),
        }
    }
}

impl Capturing {
    /// Loads the programs; attaches nothing yet.
    pub fn load(namespace: &Namespace, options: &PacketOptions) -> Self {
        let (attacher, reader) = namespace.run(|| packets::load(options)).expect("the programs load");
        let (captured, interfaces) = (Vec::new(), Vec::new());
        Self { namespace: namespace.clone(), attacher, reader, captured, interfaces }
    }

    /// Loads the programs and attaches them to one end of a wire, in both directions.
    pub fn on(end: &VethEnd, options: &PacketOptions) -> Self {
        let mut capturing = Self::load(&end.namespace, options);
        capturing.attach(&end.name, end.index, Link::Ethernet);
        capturing
    }

    /// Attaches to one more interface, in both directions.
    pub fn attach(&mut self, name: &str, index: u32, link: Link) {
        let device = Device { index, name: name.into(), link, role: Role::Other };
        let Self { namespace, attacher, .. } = self;
        namespace
            .run(|| attacher.attach(&device, Directions::Both))
            .unwrap_or_else(|error| panic!("{name}: {error}: {:?}", std::error::Error::source(&error)));
        self.interfaces.push(name.to_owned());
    }

    /// Reads until as many packets were handed over since the start. Panics if they do not come within 10 s.
    pub fn read(&mut self, packets: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.captured.len() < packets {
            assert!(Instant::now() < deadline, "{} packets of {packets}", self.captured.len());
            self.read_once(Duration::from_millis(100));
        }
    }

    /// Reads until nothing has come for 300 ms: what the kernel does by itself, such as acknowledging, comes late.
    pub fn read_until_quiet(&mut self) {
        let start = Instant::now();
        let mut last = start;
        while last.elapsed() < Duration::from_millis(300) {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not come to rest");
            if self.read_once(Duration::from_millis(50)) > 0 {
                last = Instant::now();
            }
        }
    }

    /// Detaches, reads everything that is left and checks that all ledgers are balanced and true. Returns those that saw
    /// anything, by direction.
    pub fn finish(&mut self) -> Finished {
        let Self { namespace, attacher, interfaces, .. } = self;
        namespace.run(|| attacher.detach_all());
        for interface in interfaces {
            until_ours_are_off(namespace, interface);
        }
        self.reader.settle().expect("the programs end");
        while self.read_once(Duration::ZERO) > 0 {}
        let mut finished = Finished::default();
        let mut written = Count::default();
        for (point, ledger) in self.reader.ledgers().expect("the ledger can be read") {
            assert!(ledger.is_balanced(), "{} {}: {ledger:?}", point.interface, point.direction);
            assert_ne!(point.ifindex, 0, "packets of an interface that nobody listed: {ledger:?}");
            match point.direction {
                Direction::Ingress => finished.ingress += ledger,
                Direction::Egress => finished.egress += ledger,
            }
            written += ledger.written;
        }
        let packets = u64::try_from(self.captured.len()).expect("it is a count");
        let bytes = self.captured.iter().map(|packet| u64::from(packet.length)).sum();
        assert_eq!(written, Count { packets, bytes }, "what was written is what was handed over");
        finished
    }

    /// Frames of one direction, in the order in which they came.
    pub fn frames(&self, direction: Direction) -> Vec<&[u8]> {
        let of_direction = self.captured.iter().filter(|packet| packet.direction == direction);
        of_direction.map(|packet| packet.frame.as_slice()).collect()
    }

    fn read_once(&mut self, timeout: Duration) -> usize {
        let Self { reader, captured, .. } = self;
        reader
            .read(timeout, |packet| {
                captured.push(packet.into());
                ControlFlow::Continue(())
            })
            .expect("packets can be read")
    }
}

/// Sums of all ledgers at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finished {
    /// What was received.
    pub ingress: PacketLedger,
    /// What was sent.
    pub egress: PacketLedger,
}
