//! `weir proxy rule …` and `weir proxy backend …`.

use clap::{Args, Subcommand, ValueEnum};
use weir_agent::{
    redirect::{
        service::parse_service,
        text::{check_name, parse_backend, parse_backend_address, parse_check, parse_listener, parse_weight},
    },
    units::parse_duration,
};

use super::examples::{ADD_EXAMPLES, BACKEND_EXAMPLES, RM_EXAMPLES, RULE_DRAIN_EXAMPLES};

/// `weir proxy rule`
#[derive(Args, Clone, Debug)]
pub(crate) struct RuleArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: RuleCommand,
}

/// What can be done with a rule.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Add a rule, or replace the one of that name
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddArgs>),
    /// Remove a rule; its connections go on for its drain time
    #[command(after_help = RM_EXAMPLES)]
    Rm(RmArgs),
    /// Let a rule take no new connections; those that it has go on
    #[command(after_help = RULE_DRAIN_EXAMPLES)]
    Drain(NameArgs),
    /// Let a drained rule take new connections again
    #[command(after_help = RULE_DRAIN_EXAMPLES)]
    Undrain(NameArgs),
}

/// `weir proxy rule add`
#[derive(Args, Clone, Debug)]
pub(crate) struct AddArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: String,
    /// What clients call, such as `tcp:10.0.0.10:80-90`; may be given several times
    #[arg(long, value_name = "LISTENER", required = true, value_parser = listener)]
    pub(crate) listen: Vec<String>,
    /// Who answers, such as `10.0.0.138:8080,weight=3`, or `service:NAMESPACE/NAME:PORT` for the endpoints of a service of
    /// Kubernetes; may be given several times
    #[arg(long = "backend", value_name = "ADDRESS[:PORT][,weight=N]", required = true, value_parser = backend)]
    pub(crate) backends: Vec<String>,
    /// How backends are checked: `tcp`, `http:/PATH`, `udp:HEX` or `none`
    #[arg(long, value_name = "CHECK", value_parser = check)]
    pub(crate) health: Option<String>,
    /// Port of the checks, if it is not that of the backend
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) health_port: Option<u16>,
    /// Time from one check of a backend to the next [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) health_interval: Option<String>,
    /// How long a check may take [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) health_timeout: Option<String>,
    /// Checks in a row that must succeed until a backend counts as up [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) rise: Option<u32>,
    /// Checks in a row that must fail until a backend counts as down [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) fall: Option<u32>,
    /// How long a client keeps its backend after its last connection began
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) affinity: Option<String>,
    /// What becomes of a new connection if no backend may take it [default: rst]
    #[arg(long, value_enum)]
    pub(crate) on_empty: Option<OnEmptyArg>,
    /// What becomes of a new connection if the table is full [default: drop]
    #[arg(long, value_enum)]
    pub(crate) on_full: Option<OnFullArg>,
    /// What becomes of the client's port on the way to the backend [default: on-collision]
    #[arg(long, value_enum)]
    pub(crate) port_policy: Option<PortPolicyArg>,
    /// How long connections that say nothing are remembered, such as `established=2h`; keys: syn, established, closing, udp, udp_unreplied
    #[expect(clippy::doc_markdown, reason = "this text is shown in the terminal")]
    #[arg(long = "timeout", value_name = "KEY=TIME", value_parser = timeout)]
    pub(crate) timeouts: Vec<(String, String)>,
    /// Most new connections a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) new_per_second: Option<u32>,
    /// How long TCP connections may go on after their backend was removed [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) drain_timeout: Option<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What becomes of a new connection that no backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnEmptyArg {
    /// Refused; UDP is dropped
    Rst,
    /// Dropped
    Drop,
    /// Goes to the address that the client called
    Pass,
}

/// What becomes of a new connection for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFullArg {
    /// Dropped
    Drop,
    /// Goes to the address that the client called
    Pass,
}

/// What becomes of the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PortPolicyArg {
    /// It stays; what could not be told apart is dropped
    Preserve,
    /// Another one, if two connections could not be told apart
    OnCollision,
    /// Another one
    Always,
}

/// `weir proxy rule rm`
#[derive(Args, Clone, Debug)]
pub(crate) struct RmArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// End its connections at once; this ends those of everything else that was removed, too
    #[arg(long)]
    pub(crate) now: bool,
}

/// A rule by its name.
#[derive(Args, Clone, Debug)]
pub(crate) struct NameArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `weir proxy backend`
#[derive(Args, Clone, Debug)]
pub(crate) struct BackendArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: BackendCommand,
}

/// What can be done with a backend.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Let a backend take no new connections; those that it has go on
    #[command(after_help = BACKEND_EXAMPLES)]
    Drain(OneBackendArgs),
    /// Let a drained backend take new connections again
    #[command(after_help = BACKEND_EXAMPLES)]
    Undrain(OneBackendArgs),
    /// Give a backend another weight, until the file gives it another one
    #[command(after_help = BACKEND_EXAMPLES)]
    Weight(WeightArgs),
}

/// A backend of a rule.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneBackendArgs {
    /// Name of the rule
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The backend, as `weir proxy ls` shows it
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = address)]
    pub(crate) address: String,
}

/// `weir proxy backend weight`
#[derive(Args, Clone, Debug)]
pub(crate) struct WeightArgs {
    /// Which backend
    #[command(flatten)]
    pub(crate) backend: OneBackendArgs,
    /// Its weight, 0 to 256
    #[arg(value_name = "WEIGHT", value_parser = parse_weight)]
    pub(crate) weight: u16,
}

/// Accepts what `parse` accepts and keeps the text, which goes to the control process as it is.
fn accepted<T, E: ToString>(text: &str, parsed: Result<T, E>) -> Result<String, String> {
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn name(text: &str) -> Result<String, String> {
    accepted(text, check_name(text))
}

fn listener(text: &str) -> Result<String, String> {
    accepted(text, parse_listener(text))
}

fn backend(text: &str) -> Result<String, String> {
    match parse_service(text) {
        Some(service) => accepted(text, service),
        None => accepted(text, parse_backend(text)),
    }
}

fn address(text: &str) -> Result<String, String> {
    accepted(text, parse_backend_address(text))
}

fn check(text: &str) -> Result<String, String> {
    accepted(text, parse_check(text))
}

fn length(text: &str) -> Result<String, String> {
    accepted(text, parse_duration(text))
}

fn timeout(text: &str) -> Result<(String, String), String> {
    const KEYS: [&str; 5] = ["syn", "established", "closing", "udp", "udp_unreplied"];
    let (key, time) = text.split_once('=').ok_or("write KEY=TIME, such as established=2h")?;
    if !KEYS.contains(&key) {
        return Err(format!("unknown key `{key}`: use one of {}", KEYS.join(", ")));
    }
    Ok((key.to_owned(), length(time)?))
}
