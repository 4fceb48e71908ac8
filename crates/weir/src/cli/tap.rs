//! `weir tap …`: its arguments and their help.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use weir_agent::{
    tap::DEFAULT_AUDIT,
    units::{parse_duration, parse_size},
};
use weir_datapath::tap::{MOST_CALL, Payload, Role, Tier};
use weir_l7::Protocol;

use super::FilterWords;

/// `weir tap`
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TapArgs {
    /// Something else than tapping
    #[command(subcommand)]
    pub(crate) command: Option<TapCommand>,
    /// What to tap, and where it goes
    #[command(flatten)]
    pub(crate) options: TapOptions,
}

/// What `weir tap` can do besides.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum TapCommand {
    /// Send known bytes in every way that there is, and say which of them a tap captures here
    #[command(after_help = SELFCHECK_EXAMPLES)]
    Selfcheck,
}

/// What to tap.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct TapOptions {
    /// Only with these other ends and ports, such as `host=10.0.0.0/8 and port=5432`; several words are joined
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Processes, by number; may be given several times
    #[arg(long = "pid", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Whose traffic")]
    pub(crate) pids: Vec<u32>,
    /// Processes, by the name of their command; may be given several times
    #[arg(long = "comm", value_name = "NAME", help_heading = "Whose traffic")]
    pub(crate) commands: Vec<String>,
    /// Containers, by the beginning of their identifier; may be given several times
    #[arg(long = "container", value_name = "ID", help_heading = "Whose traffic")]
    pub(crate) containers: Vec<String>,
    /// Pods of this node; may be given several times
    #[arg(long = "pod", value_name = "NAMESPACE/NAME", help_heading = "Whose traffic")]
    pub(crate) pods: Vec<String>,
    /// Control groups and what is in them; may be given several times
    #[arg(long = "cgroup", value_name = "PATH", value_hint = ValueHint::DirPath, help_heading = "Whose traffic")]
    pub(crate) cgroups: Vec<String>,
    /// Every process of the machine
    #[arg(long, help_heading = "Whose traffic")]
    pub(crate) all: bool,
    /// Unix sockets as well; no packets are made of them
    #[arg(long, help_heading = "Whose traffic")]
    pub(crate) unix: bool,
    /// Only where the tapped end is a client, or a server
    #[arg(long, value_enum, default_value_t = RoleArg::Both, help_heading = "Whose traffic")]
    pub(crate) role: RoleArg,
    /// What to copy of what is said; calls are seen with headers or full [default: none, for JSON headers]
    #[arg(long, value_enum, help_heading = "How much")]
    pub(crate) payload: Option<PayloadArg>,
    /// Copy at most so many bytes of one call of the system
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_limit, help_heading = "How much")]
    pub(crate) limit: u32,
    /// Copy at most so many bytes of one connection, both directions together
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "How much")]
    pub(crate) connection_limit: Option<u64>,
    /// Copy at most so many bytes in a second, as in 10MB/s
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate, help_heading = "How much")]
    pub(crate) budget: Option<u64>,
    /// End after this time; with payload, after 10m if nothing is said
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "How much")]
    pub(crate) ttl: Option<Duration>,
    /// Copy every message of calls that move several, as resolvers make them; each system call of the machine then takes
    /// some 35 ns longer
    #[arg(long, help_heading = "How much")]
    pub(crate) each_message: bool,
    /// Why; it is noted with who, what and when
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Where taps are noted
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, default_value = DEFAULT_AUDIT)]
    pub(crate) audit: PathBuf,
    /// Show passwords, tokens and cookies as they are; needs --reason
    #[arg(long)]
    pub(crate) no_redact: bool,
    /// Which hooks of the kernel; auto takes the best that work
    #[arg(long, value_enum, ignore_case = true, default_value_t = TierArg::Auto)]
    pub(crate) tier: TierArg,
    /// Tell the calls of one protocol alone; auto tells all that are understood
    #[arg(long, value_enum, default_value_t = DecodeArg::Auto)]
    pub(crate) decode: DecodeArg,
    /// How to print; the default is text, with -w what the name of the file says
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub(crate) output: Option<TapFormat>,
    /// Write to this file, which others cannot read; its name may end in .pcapng, .har, .json or .txt
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,
    /// With text and json: headers and the beginnings of bodies too
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

impl TapOptions {
    /// The words of the filter.
    pub(crate) fn filter(&self) -> FilterWords<'_> {
        FilterWords(&self.filter)
    }
}

/// Which ends of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Those that connected
    Client,
    /// Those that accepted
    Server,
    /// Both
    Both,
}

impl From<RoleArg> for Option<Role> {
    fn from(argument: RoleArg) -> Self {
        match argument {
            RoleArg::Client => Some(Role::Client),
            RoleArg::Server => Some(Role::Server),
            RoleArg::Both => None,
        }
    }
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadArg {
    /// Nothing: connections and their bytes are counted
    None,
    /// The first 2 KiB of what one side says before the other one speaks
    Headers,
    /// Everything, within --limit and --budget
    Full,
}

impl From<PayloadArg> for Payload {
    fn from(argument: PayloadArg) -> Self {
        match argument {
            PayloadArg::None => Self::None,
            PayloadArg::Headers => Self::Headers,
            PayloadArg::Full => Self::Full,
        }
    }
}

/// Which hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierArg {
    /// The best that work
    Auto,
    /// Tracepoints of sockets
    #[value(name = "S")]
    Sockets,
    /// Ends of the kernel's functions
    #[value(name = "F")]
    Functions,
    /// The same by probes
    #[value(name = "K")]
    Probes,
    /// System calls
    #[value(name = "T")]
    Syscalls,
}

impl From<TierArg> for Option<Tier> {
    fn from(argument: TierArg) -> Self {
        match argument {
            TierArg::Auto => None,
            TierArg::Sockets => Some(Tier::Sockets),
            TierArg::Functions => Some(Tier::Functions),
            TierArg::Probes => Some(Tier::Probes),
            TierArg::Syscalls => Some(Tier::Syscalls),
        }
    }
}

/// Which calls are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecodeArg {
    /// All
    Auto,
    /// HTTP/1
    Http,
    /// DNS
    Dns,
    /// PostgreSQL
    Postgres,
    /// Redis
    Redis,
}

impl From<DecodeArg> for Option<Protocol> {
    fn from(argument: DecodeArg) -> Self {
        match argument {
            DecodeArg::Auto => None,
            DecodeArg::Http => Some(Protocol::Http),
            DecodeArg::Dns => Some(Protocol::Dns),
            DecodeArg::Postgres => Some(Protocol::Postgresql),
            DecodeArg::Redis => Some(Protocol::Redis),
        }
    }
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TapFormat {
    /// One line per call
    Text,
    /// One JSON object per call
    Json,
    /// What was said as packets, for Wireshark
    Pcapng,
    /// HTTP calls as an archive (HAR 1.2)
    Har,
}

/// Reads how many bytes of a call are copied.
fn parse_limit(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    match u32::try_from(size) {
        Ok(size) if size <= MOST_CALL => Ok(size),
        _ => Err(format!("at most {} MiB of a call are copied", MOST_CALL >> 20)),
    }
}

/// Reads bytes per second.
fn parse_rate(text: &str) -> Result<u64, String> {
    match text.trim_end().strip_suffix("/s") {
        Some(size) => parse_size(size.trim_end()),
        None => Err(format!("a budget is a size per second: {text}/s")),
    }
}

pub(crate) const TAP_EXAMPLES: &str = "\
Examples:
  weir tap --comm curl --payload headers
  weir tap --pid 4711 --payload full -w trace.pcapng
  weir tap --comm psql -o json
  weir tap --pod shop/web-7d9f --payload headers --role server port=8080
  weir tap --all --ttl 1m

Nothing is copied before --payload asks for it, or whoever wants calls as JSON. Secrets become asterisks before anything is
shown or written. Encrypted connections are seen as what they are: bytes without meaning. At the end the ledger
says what became of every byte.";

const SELFCHECK_EXAMPLES: &str = "\
Examples:
  weir tap selfcheck

Exit code 1 if a byte is wrong, or missing without a reason.";
