//! Cost of redirecting a packet: programs run on packets without a wire, over one that does nothing.
//!
//! A packet stays translated between runs, so two rules send it back and forth: every run is a hit.

use std::net::SocketAddr;

use anyhow::Context as _;
use weir_datapath::{
    redirect::{Redirect, Transport, run_packet},
    selfcheck::test_run,
};
use weir_integration::{
    Namespace,
    redirecting::{
        BpfFileSystem, one_to_one,
        reference::{Before, Check, Description, Part},
    },
};

use crate::{machine::Machine, micro::median};

/// Goals in nanoseconds over the empty program.
const HIT_GOAL: f64 = 60.0;
const UNRELATED_GOAL: f64 = 10.0;

/// Options of `cargo xtask bench redirect`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds, in each of which everything is measured once
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Packets in each measurement
    #[arg(long, default_value_t = 1_000_000)]
    repeat: u32,
}

/// A packet and what it costs.
struct Subject {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    goal: Option<f64>,
    nanoseconds: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut machine = Machine::look();
    let file_system = BpfFileSystem::new();
    let namespace = Namespace::new();
    let subjects = namespace.run(|| -> anyhow::Result<Vec<Subject>> {
        let (mut redirect, _) = file_system.open(4096);
        redirect.publish(&rules()?)?;
        let mut subjects = subjects()?;
        open_connections(&redirect, &subjects)?;
        for _ in 0..arguments.rounds {
            for subject in &mut subjects {
                let program = redirect.program(subject.program).context("the object has no such program")?;
                let time = test_run(program, &subject.frame, arguments.repeat)?;
                #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                subject.nanoseconds.push(time.as_nanos() as f64);
            }
        }
        check_hits(&redirect, arguments)?;
        Ok(subjects)
    })?;
    machine.look_again();
    println!("{}", machine.json());
    print(&subjects);
    Ok(())
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().with_context(|| format!("{text} is not an address"))
}

/// Each listener is the backend of the other.
fn rules() -> anyhow::Result<weir_datapath::redirect::Desired> {
    let mut pairs = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for (first, second) in [
            ("10.0.0.10:12345", "10.0.0.138:23456"),
            ("10.0.0.10:80", "10.0.0.138:80"),
            ("[fd00::10]:12345", "[fd00::138]:23456"),
        ] {
            pairs.push((transport, address(first)?, address(second)?));
            pairs.push((transport, address(second)?, address(first)?));
        }
    }
    Ok(one_to_one(&pairs))
}

fn frame(is_tcp: bool, to: &str, flags: u8) -> anyhow::Result<Vec<u8>> {
    let destination = address(to)?;
    let source = if destination.is_ipv4() { "10.0.0.1:40000" } else { "[fd00::1]:40000" };
    let packet = Description {
        before: Before::default(),
        is_tcp,
        source: address(source)?,
        destination,
        flags,
        payload: vec![7; 64],
        check: Check::Full,
        part: Part::Whole,
    };
    Ok(packet.frame())
}

fn subjects() -> anyhow::Result<Vec<Subject>> {
    const ACK: u8 = 16;
    const SYN: u8 = 2;
    let subject =
        |name, program, frame, goal| Subject { name, program, frame, goal, nanoseconds: Vec::new() };
    let hit = "weir_client_l2";
    Ok(vec![
        subject("empty", "weir_empty", frame(true, "10.0.0.10:12345", ACK)?, None),
        subject("empty again (A/A)", "weir_empty", frame(true, "10.0.0.10:12345", ACK)?, None),
        subject("unrelated IPv4", hit, frame(true, "10.0.0.10:443", ACK)?, Some(UNRELATED_GOAL)),
        subject("unrelated IPv6", hit, frame(true, "[fd00::10]:443", ACK)?, Some(UNRELATED_GOAL)),
        subject("IPv4 TCP, other port", hit, frame(true, "10.0.0.10:12345", ACK)?, Some(HIT_GOAL)),
        subject("IPv4 TCP, same port", hit, frame(true, "10.0.0.10:80", ACK)?, Some(HIT_GOAL)),
        subject("IPv4 UDP, other port", hit, frame(false, "10.0.0.10:12345", 0)?, Some(HIT_GOAL)),
        subject("IPv6 TCP, other port", hit, frame(true, "[fd00::10]:12345", ACK)?, Some(HIT_GOAL)),
        subject("the long way: SYN again", hit, frame(true, "10.0.0.10:12345", SYN)?, None),
    ])
}

/// Makes every connection of the packets, both ways.
fn open_connections(redirect: &Redirect, subjects: &[Subject]) -> anyhow::Result<()> {
    const FLAGS_AT: [usize; 2] = [14 + 20 + 13, 14 + 40 + 13];
    for subject in subjects.iter().filter(|subject| subject.goal.is_some()) {
        let program = redirect.program(subject.program).context("the object has no such program")?;
        let mut frame = subject.frame.clone();
        let is_ipv4 = frame[12] == 8;
        if frame[if is_ipv4 { 23 } else { 20 }] == 6 {
            frame[FLAGS_AT[usize::from(!is_ipv4)]] = 2;
        }
        let once = run_packet(program, &frame, 0)?;
        run_packet(program, &once.frame, 0)?;
    }
    Ok(())
}

/// Makes sure that the packets were what they were meant to be.
fn check_hits(redirect: &Redirect, arguments: &Arguments) -> anyhow::Result<()> {
    let counters = redirect.counters()?;
    let packets: u64 = counters.backends.values().map(|backend| backend.forward_packets).sum();
    let expected = arguments.rounds as u64 * u64::from(arguments.repeat) * 5;
    anyhow::ensure!(packets >= expected * 9 / 10, "only {packets} of {expected} packets were translated");
    Ok(())
}

fn print(subjects: &[Subject]) {
    let empty = median(&subjects[0].nanoseconds);
    println!("{:<26} {:>10} {:>10}   goal", "packet", "ns", "over empty");
    for subject in subjects {
        let cost = median(&subject.nanoseconds);
        let goal = subject.goal.map_or_else(String::new, |goal| {
            format!("<= {goal} {}", if cost - empty <= goal { "reached" } else { "missed" })
        });
        println!("{:<26} {cost:>10.1} {:>10.1}   {goal}", subject.name, cost - empty);
    }
}
