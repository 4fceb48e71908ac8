//! Checks on this very machine that counting is exact: crafted packets first, then real traffic.
//!
//! Every part loads an instance of its own, so nothing that a running Weir counts is disturbed. Crafted packets run
//! through the loaded program by `BPF_PROG_TEST_RUN` and are compared with what the same parser says on this side.
//! The traffic flows over the loopback interface of a network namespace made for it.

use std::{collections::HashMap, io, time::Duration};

use weir_flow::{Count, Direction, Ledger, Role, Tuple};
use weir_packet::{Link, Parsed, parse_bytes};

pub use crate::bpf::run::test_run;
use crate::{
    flow::{self, Device, Directions, DrainError, FlowOptions, FlowReader},
    netns::{Netns, NetnsError},
    object::LoadError,
};

mod frames;
mod traffic;

/// Runs of the packet whose cost is measured.
const COST_RUNS: u32 = 100_000;

/// Index of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// Why the self-check itself cannot run. That counts are wrong is not an error but a [`Check`] that fails.
#[derive(Debug, thiserror::Error)]
pub enum SelfcheckError {
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What they counted cannot be read.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// A program cannot be run on a crafted packet.
    #[error("cannot run the counting program on a crafted packet")]
    Run(#[source] io::Error),
    /// The namespace for the traffic cannot be made.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// The loopback interface of that namespace cannot be used.
    #[error("cannot send traffic in a network namespace of our own")]
    Traffic(#[source] io::Error),
    /// The programs cannot be attached there.
    #[error(transparent)]
    Attach(#[from] flow::AttachError),
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was sent.
    pub name: &'static str,
    /// What should have been counted and what was, in words; `Err` where they differ.
    pub outcome: Result<String, String>,
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One entry for each kind of packet and of traffic.
    pub checks: Vec<Check>,
    /// Mean time of one plain UDP packet through the program, the kernel's own cost of a test run included.
    pub cost: Duration,
}

impl Report {
    /// Whether every count was right.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.outcome.is_ok())
    }
}

/// Runs all checks. Takes about a second and needs the privileges of counting; the traffic needs `CAP_SYS_ADMIN` for
/// its namespace.
pub fn run() -> Result<Report, SelfcheckError> {
    let (mut checks, cost) = crafted_packets()?;
    let namespace = Netns::unnamed()?;
    checks.extend(namespace.run(real_traffic)??);
    Ok(Report { checks, cost })
}

/// What one or two drains read, all points together.
#[derive(Default)]
struct Read {
    flows: HashMap<(Direction, Tuple), Count>,
    ledgers: HashMap<Direction, Ledger>,
}

impl Read {
    fn from(reader: &mut FlowReader) -> Result<Self, DrainError> {
        let mut read = Self::default();
        // Both generations: what was sent may lie in either.
        for _ in 0..2 {
            let mut observed = Vec::new();
            let drained = reader.drain(|observation| observed.push(*observation))?;
            let points: HashMap<_, _> = drained
                .ledgers
                .iter()
                .chain(&drained.unlisted)
                .map(|(point, ledger)| {
                    *read.ledgers.entry(point.direction).or_default() += *ledger;
                    (point.id, point.direction)
                })
                .collect();
            for observation in observed {
                if let Some(direction) = points.get(&observation.point) {
                    *read.flows.entry((*direction, observation.tuple)).or_default() +=
                        observation.traffic.count();
                }
            }
        }
        Ok(read)
    }

    fn ledger(&self, direction: Direction) -> Ledger {
        self.ledgers.get(&direction).copied().unwrap_or_default()
    }
}

/// Runs each crafted packet a few times and compares flow and ledger with the parser on this side.
fn crafted_packets() -> Result<(Vec<Check>, Duration), SelfcheckError> {
    let (attacher, mut reader) = flow::load(&FlowOptions::default())?;
    let mut checks = Vec::new();
    let mut cost = Duration::ZERO;
    for (number, (name, frame)) in (1u32..).zip(frames::all()) {
        for direction in Direction::ALL {
            let program = attacher.program(direction, Link::Ethernet).expect("TC programs are loaded");
            test_run(program, &frame, number).map_err(SelfcheckError::Run)?;
        }
        let read = Read::from(&mut reader)?;
        checks.push(Check { name, outcome: compare_frame(&frame, u64::from(number), &read) });
    }
    if let Some(program) = attacher.program(Direction::Ingress, Link::Ethernet) {
        cost = test_run(program, &frames::plain(), COST_RUNS).map_err(SelfcheckError::Run)?;
    }
    Ok((checks, cost))
}

fn compare_frame(frame: &[u8], runs: u64, read: &Read) -> Result<String, String> {
    let length = frame.len() as u64;
    let expected = Count { packets: runs, bytes: runs * length };
    let frame_length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let parsed = parse_bytes(frame, frame_length, Link::Ethernet, None, None);
    for direction in Direction::ALL {
        let ledger = read.ledger(direction);
        let (place, counted) = match &parsed {
            Parsed::Ip(headers) => {
                let flow = read.flows.get(&(direction, headers.tuple)).copied().unwrap_or_default();
                ("as its flow", flow)
            }
            Parsed::NonIp { .. } => ("as non-IP", ledger.non_ip),
            Parsed::Malformed => ("as malformed", ledger.parse_error),
        };
        if (ledger.seen, counted) != (expected, expected) || !ledger.is_balanced() {
            return Err(format!(
                "{direction}: sent {} packets, {} bytes; seen {} and {}; {} and {} {place}",
                expected.packets,
                expected.bytes,
                ledger.seen.packets,
                ledger.seen.bytes,
                counted.packets,
                counted.bytes
            ));
        }
    }
    Ok(format!("{runs} × {length} B each way"))
}

/// Sends over the loopback interface of the namespace of this thread and compares.
fn real_traffic() -> Result<Vec<Check>, SelfcheckError> {
    traffic::bring_up_loopback().map_err(SelfcheckError::Traffic)?;
    let (mut attacher, mut reader) = flow::load(&FlowOptions::default())?;
    let device = Device { index: LOOPBACK, name: "lo".into(), link: Link::Ethernet, role: Role::Loopback };
    attacher.attach(&device, Directions::Both, false)?;
    let mut checks = Vec::new();
    for (name, is_ipv6) in [("UDP over IPv4", false), ("UDP over IPv6", true)] {
        let sent = traffic::udp(is_ipv6).map_err(SelfcheckError::Traffic)?;
        let read = Read::from(&mut reader)?;
        checks.push(Check { name, outcome: compare_traffic(&sent, &read) });
    }
    let bytes = traffic::tcp().map_err(SelfcheckError::Traffic)?;
    let read = Read::from(&mut reader)?;
    checks.push(Check { name: "TCP with super-packets", outcome: compare_tcp(bytes, &read) });
    Ok(checks)
}

fn compare_traffic(sent: &traffic::Sent, read: &Read) -> Result<String, String> {
    for direction in Direction::ALL {
        let flow = read.flows.get(&(direction, sent.tuple)).copied().unwrap_or_default();
        if flow != sent.count || !read.ledger(direction).is_balanced() {
            return Err(format!(
                "{direction}: sent {} packets, {} bytes; counted {} and {}",
                sent.count.packets, sent.count.bytes, flow.packets, flow.bytes
            ));
        }
    }
    Ok(format!("{} packets, {} bytes both ways", sent.count.packets, sent.count.bytes))
}

/// How many packets TCP makes is its own affair; all of them must be accounted for, and the payload must be in them.
fn compare_tcp(payload: u64, read: &Read) -> Result<String, String> {
    let [ingress, egress] = Direction::ALL.map(|direction| read.ledger(direction));
    let problem = if !ingress.is_balanced() || !egress.is_balanced() {
        "seen and accounted differ"
    } else if egress.flows.bytes <= payload {
        "the payload is missing"
    } else if egress.skbs == 0 || egress.seen.packets < egress.skbs {
        "frames are fewer than packets"
    } else {
        return Ok(format!("{} frames in {} packets, all accounted for", egress.seen.packets, egress.skbs));
    };
    Err(format!("{problem}: {egress:?}"))
}
