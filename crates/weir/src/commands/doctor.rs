//! `weir doctor`: what this machine allows, and what to do about what is missing.
//!
//! Exit code 1 if counting is impossible here; anything else that is missing only costs a part of Weir.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Result, anyhow};
use weir_datapath::{
    features::{self, Feature, State},
    flow::{self, FlowOptions},
    interface::{Interface, Interfaces},
    netns::Netns,
    role, witness,
};
use weir_flow::{Direction, field::Value, format};

use crate::{
    cli::{DoctorArgs, ReportFormat},
    terminal::{self, Colour},
};

/// Without these, nothing works.
const ESSENTIAL: [&str; 2] = ["kernel", "counting"];

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let report = features::probe();
    let mut text = String::new();
    match args.output {
        ReportFormat::Json => report.features.iter().for_each(|feature| json(feature, &mut text)),
        ReportFormat::Text => {
            describe(&report.features, args.verbose, &mut text);
            if args.verbose {
                describe_interfaces(&mut text);
                describe_programs(&mut text);
            }
        }
    }
    io::stdout().write_all(text.as_bytes())?;
    let is_missing =
        |name: &&str| matches!(report.get(name), Some(Feature { state: State::Missing { .. }, .. }));
    Ok(if ESSENTIAL.iter().any(is_missing) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn describe(features: &[Feature], is_verbose: bool, out: &mut String) {
    let width = features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    for feature in features {
        let (mark, colour) = match &feature.state {
            State::Available(_) => ("ok  ", Colour::Green),
            State::Degraded { .. } => ("less", Colour::Yellow),
            State::Missing { .. } => ("no  ", Colour::Red),
            State::Unknown(_) => ("?   ", Colour::Yellow),
        };
        let mark = terminal::coloured(mark, colour);
        let (detail, remedy) = detail_and_remedy(&feature.state);
        writeln!(out, "{mark}  {:<width$}  {detail}", feature.name).expect("a string takes any text");
        let indent = " ".repeat(width + 8);
        if !remedy.is_empty() {
            writeln!(out, "{indent}-> {remedy}").expect("a string takes any text");
        }
        if is_verbose {
            writeln!(out, "{indent}for: {}", feature.purpose).expect("a string takes any text");
        }
    }
}

fn detail_and_remedy(state: &State) -> (&str, &str) {
    match state {
        State::Available(detail) | State::Unknown(detail) => (detail, ""),
        State::Degraded { reason, remedy } | State::Missing { reason, remedy } => (reason, remedy),
    }
}

fn json(feature: &Feature, out: &mut String) {
    let state = match feature.state {
        State::Available(_) => "available",
        State::Degraded { .. } => "degraded",
        State::Missing { .. } => "missing",
        State::Unknown(_) => "unknown",
    };
    let (detail, remedy) = detail_and_remedy(&feature.state);
    let text = |text: &str| if text.is_empty() { Value::Absent } else { Value::Text(text.to_owned().into()) };
    let named = [
        ("feature", text(feature.name)),
        ("purpose", text(feature.purpose)),
        ("state", text(state)),
        ("detail", text(detail)),
        ("remedy", text(remedy)),
    ];
    format::json_object(named.into_iter(), out);
}

/// Which interfaces there are, which `weir watch` counts if nothing is said, and what their own counters are worth.
fn describe_interfaces(out: &mut String) {
    match list() {
        Ok(lines) => {
            out.push_str(
                "\ninterfaces, what weir watch counts by default, and what their own counters prove\n",
            );
            out.push_str(&lines);
        }
        Err(error) => writeln!(out, "\ninterfaces: {error:#}").expect("a string takes any text"),
    }
}

fn list() -> Result<String> {
    let mut interfaces = Interfaces::open(&Netns::current()?)?;
    let listed = interfaces.list()?;
    let mut lines = String::new();
    for interface in &listed {
        let offloads = interfaces.offloads(&interface.name);
        let class = |direction| witness::class(interface, offloads, direction);
        writeln!(
            lines,
            "  {:<16} {:<10} {:<9} {:<8} received: {}, sent: {}",
            interface.name,
            interface.kind,
            interface.role,
            counted(interface),
            class(Direction::Ingress),
            class(Direction::Egress),
        )
        .expect("a string takes any text");
    }
    Ok(lines)
}

fn counted(interface: &Interface) -> &'static str {
    match role::default_directions(interface.role) {
        None => "no",
        Some(flow::Directions::Both) => "both",
        Some(flow::Directions::Ingress) => "received",
        Some(flow::Directions::Egress) => "sent",
    }
}

/// What the kernel makes of the counting programs.
fn describe_programs(out: &mut String) {
    match flow::load(&FlowOptions::default()) {
        Ok((attacher, _)) => {
            out.push_str("\ncounting programs\n");
            for cost in attacher.costs() {
                let verified = cost
                    .verified_instructions
                    .map_or_else(|| "unknown (kernel before 5.16)".to_owned(), |number| number.to_string());
                writeln!(
                    out,
                    "  {:<18} instructions verified: {verified}, machine code: {} bytes",
                    cost.name, cost.machine_code_bytes
                )
                .expect("a string takes any text");
            }
        }
        Err(error) => {
            writeln!(out, "\ncounting programs: {:#}", anyhow!(error)).expect("a string takes any text");
        }
    }
}
