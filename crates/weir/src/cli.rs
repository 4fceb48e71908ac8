//! The command line: every command, flag and default, and their help.
//!
//! Values are turned here into types that cannot be wrong, except for what needs the machine to judge (interfaces,
//! namespaces). What is wrong with them is a usage error, exit code 2.

pub(crate) mod proxy;
pub(crate) mod tap;
mod values;

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{OsStringValueParser, Styles, TypedValueParser as _},
};
use clap_complete::Shell;
use thiserror::Error;
use weir_agent::store::{DEFAULT_DIRECTORY, DatabaseUrl};
use weir_agent::{config::Sources, live::Pattern};
use weir_api::history::Moment;
use weir_datapath::flow::Directions;
use weir_flow::field::Field;

use self::proxy::ProxyArgs;
use self::tap::TapArgs;
use self::values::{FieldName, parse_interval, parse_moment, parse_netns, parse_pattern};
pub(crate) use self::values::{FilterWords, NetnsName};
use weir_agent::units::{parse_duration, parse_size};

/// Something that the user has to put right on the command line.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    about = "Measures the network traffic of a Linux node, exactly, with eBPF",
    long_about = "Measures the network traffic of a Linux node, exactly, with eBPF.\n\n\
        Without a command, weir shows live flows: `weir` is `weir watch`.",
    after_help = MAIN_EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    styles = Styles::plain()
)]
pub(crate) struct Cli {
    /// What to do; `watch` if nothing is named.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Arguments of `watch`, which may go without its name.
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

/// Everything that Weir can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show live flows
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Show single packets, or write them to a file
    #[command(after_help = PACKETS_EXAMPLES)]
    Packets(PacketsArgs),
    /// Read a capture file (pcap, pcapng) and show its flows; needs no privilege
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Show flows of the past, as an agent remembers them
    #[command(after_help = FLOWS_EXAMPLES)]
    Flows(FlowsArgs),
    /// Run the daemon: count all the time, hand flows on, answer over HTTP
    #[command(after_help = AGENT_EXAMPLES)]
    Agent(AgentArgs),
    /// Divert connections to other addresses, in the kernel
    #[command(after_help = proxy::PROXY_EXAMPLES)]
    Proxy(Box<ProxyArgs>),
    /// Show what chosen processes say and hear: calls, or everything as a file
    #[command(after_help = tap::TAP_EXAMPLES)]
    Tap(Box<TapArgs>),
    /// Say what is wrong with a configuration, all of it, with the path of each key
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say what this kernel and these privileges allow, and what to do about what is missing
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Check on this machine that counting is exact
    #[command(after_help = SELFCHECK_EXAMPLES)]
    Selfcheck,
    /// Remove what a killed Weir left attached, and nothing else
    #[command(after_help = CLEANUP_EXAMPLES)]
    Cleanup(CleanupArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

/// How flows are selected, grouped and printed; the same for live and recorded traffic.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowArgs {
    /// Show only flows that match, such as `proto=tcp and port=443`; several words are joined
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Sum up flows that have these fields in common
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',', value_parser = FieldName, hide_possible_values = true)]
    pub(crate) group_by: Vec<&'static Field>,
    /// Show the N largest and sum up the others
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// How to print; the default is a table
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub(crate) output: Option<FlowFormat>,
}

impl ShowArgs {
    /// The words of the filter.
    pub(crate) fn filter(&self) -> FilterWords<'_> {
        FilterWords(&self.filter)
    }
}

/// How flows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowFormat {
    /// A table, one line per flow, the largest first
    Table,
    /// A block of lines per interval, one line per flow and direction
    Log,
    /// One JSON object per line
    Json,
    /// Comma-separated values with a header line
    Csv,
}

/// `weir watch`
#[derive(Args, Clone, Debug)]
pub(crate) struct WatchArgs {
    /// Watch these interfaces: a name, or a pattern such as `veth*`; may be given several times
    #[arg(short, long = "interface", value_name = "NAME|GLOB", value_parser = parse_pattern)]
    pub(crate) interfaces: Vec<Pattern>,
    /// Which flows to show, and how
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// How often to show
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// End after this many intervals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) blocks: Option<u64>,
    /// Count only what is received or sent by the interface
    #[arg(long, value_enum, default_value_t = DirectionArg::Both)]
    pub(crate) direction: DirectionArg,
    /// Where to count: in traffic control, or on a packet socket as tcpdump does
    #[arg(long, value_enum, default_value_t = HookArg::Tc)]
    pub(crate) hook: HookArg,
    /// With `--hook socket`: also count frames for other stations
    #[arg(long)]
    pub(crate) promiscuous: bool,
    /// Watch inside another network namespace, named or of a process
    #[arg(long, value_name = "NAME|PID", value_parser = parse_netns)]
    pub(crate) netns: Option<NetnsName>,
    /// Memory for flows, in the kernel and here; what does not fit is folded into coarser rows
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub(crate) memory: u64,
}

/// Which packets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DirectionArg {
    /// Received by the interface
    Ingress,
    /// Sent by the interface
    Egress,
    /// Both
    Both,
}

impl From<DirectionArg> for Directions {
    fn from(argument: DirectionArg) -> Self {
        match argument {
            DirectionArg::Ingress => Self::Ingress,
            DirectionArg::Egress => Self::Egress,
            DirectionArg::Both => Self::Both,
        }
    }
}

/// Where packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HookArg {
    /// Traffic control, both directions of every interface
    Tc,
    /// A packet socket per interface
    Socket,
}

/// `weir packets`
#[derive(Args, Clone, Debug)]
pub(crate) struct PacketsArgs {
    /// Watch these interfaces: a name, or a pattern such as `veth*`; may be given several times
    #[arg(short, long = "interface", value_name = "NAME|GLOB", value_parser = parse_pattern)]
    pub(crate) interfaces: Vec<Pattern>,
    /// Show only packets that match, such as `proto=udp and port=53`; several words are joined
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = PacketFormat::Text)]
    pub(crate) output: PacketFormat,
    /// Write the packets to a pcapng file instead, with comments that name process and direction
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,
    /// Keep this many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) snaplen: u32,
    /// End after this many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
}

impl PacketsArgs {
    /// The words of the filter.
    pub(crate) fn filter(&self) -> FilterWords<'_> {
        FilterWords(&self.filter)
    }
}

/// How packets are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PacketFormat {
    /// One line per packet
    Text,
    /// One JSON object per packet
    Json,
}

/// `weir replay`
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplayArgs {
    /// Capture file, pcap or pcapng; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Which flows to show, and how
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// Memory for flows; what does not fit is folded into coarser rows
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    pub(crate) memory: u64,
}

/// Where the settings of the agent come from.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    /// Configuration, YAML; without one, everything is as by default
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Set one key, such as `server.names=[weir]`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    options: Vec<String>,
}

/// `weir agent`
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentArgs {
    /// Where settings come from
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Count these interfaces, as `--set interfaces=[…]`; may be given several times
    #[arg(short, long = "interface", value_name = "NAME|GLOB", value_parser = parse_pattern)]
    pub(crate) interfaces: Vec<Pattern>,
    /// Count inside another network namespace, as `--set netns=…`
    #[arg(long, value_name = "NAME|PID", value_parser = parse_netns)]
    pub(crate) netns: Option<NetnsName>,
}

/// `weir check`
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Where settings come from
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

impl ConfigArgs {
    /// The file and the options.
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), options: self.options.clone() }
    }
}

/// `weir flows`
#[derive(Args, Clone, Debug)]
pub(crate) struct FlowsArgs {
    /// Show only flows that match, such as `proto=tcp and port=443`; several words are joined
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Begin so long ago, or at this time (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_moment)]
    pub(crate) since: Moment,
    /// End so long ago, or before this time
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = parse_moment)]
    pub(crate) until: Moment,
    /// Sum up flows that have these fields in common
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',', value_parser = FieldName, hide_possible_values = true)]
    pub(crate) group_by: Vec<&'static Field>,
    /// Show the N largest and sum up the others
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) limit: u32,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = HistoryFormat::Table)]
    pub(crate) output: HistoryFormat,
    /// Read the files of the agent of this machine; it need not run. Or a PostgreSQL database that agents write to,
    /// such as postgres://weir@db/weir; its password may be in the variable PGPASSWORD
    #[expect(clippy::doc_markdown, reason = "this text is shown in the terminal")]
    #[arg(long, value_name = "DIR|URL", value_hint = ValueHint::DirPath, default_value = DEFAULT_DIRECTORY,
        value_parser = OsStringValueParser::new().map(StorePlace::of))]
    pub(crate) store: StorePlace,
    /// Ask a running agent instead, such as http://127.0.0.1:4780
    #[expect(clippy::doc_markdown, reason = "this text is shown in the terminal")]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with = "store")]
    pub(crate) agent: Option<String>,
    /// With `--agent`: read the agent's token from this file; without it, from the variable WEIR_TOKEN
    #[expect(clippy::doc_markdown, reason = "this text is shown in the terminal")]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "agent")]
    pub(crate) token_file: Option<PathBuf>,
    /// With `--agent https://…`: trust agents that these certificates sign, instead of those that browsers trust
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "agent")]
    pub(crate) ca_file: Option<PathBuf>,
    /// With `--agent https://…`: the certificate by which the agent knows you
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires_all = ["agent", "key_file"])]
    pub(crate) cert_file: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires_all = ["agent", "cert_file"])]
    pub(crate) key_file: Option<PathBuf>,
}

/// Where history is.
#[derive(Clone)]
pub(crate) enum StorePlace {
    /// In the files of an agent.
    Directory(PathBuf),
    /// In a database. There may be a password in this.
    Database(String),
}

impl StorePlace {
    fn of(text: OsString) -> Self {
        match text.into_string() {
            Ok(url) if DatabaseUrl::is_one(&url) => Self::Database(url),
            Ok(path) => Self::Directory(path.into()),
            Err(path) => Self::Directory(path.into()),
        }
    }
}

impl fmt::Debug for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.fmt(f),
            Self::Database(_) => f.write_str("postgres://…"),
        }
    }
}

impl FlowsArgs {
    /// The words of the filter.
    pub(crate) fn filter(&self) -> FilterWords<'_> {
        FilterWords(&self.filter)
    }
}

/// How flows of the past are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HistoryFormat {
    /// A table, one line per flow, the largest first
    Table,
    /// One JSON object per line
    Json,
    /// Comma-separated values with a header line
    Csv,
}

/// `weir doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Also show what each is for, the interfaces, and what the kernel makes of the counting programs
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// `weir cleanup`
#[derive(Args, Clone, Debug)]
pub(crate) struct CleanupArgs {
    /// Only list what would be removed
    #[arg(long, conflicts_with = "force")]
    pub(crate) dry_run: bool,
    /// Also remove what another version of Weir left; never what one that runs holds
    #[arg(long)]
    pub(crate) force: bool,
}

/// `weir completions`
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `weir man`
#[derive(Args, Clone, Debug)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
}

impl Cli {
    /// Reads the command line of this process.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::try_parse()
    }
}

const MAIN_EXAMPLES: &str = "\
Examples:
  weir                                   live flows of this machine
  weir -i eth0 'proto=tcp and port=443'  those of one interface and port
  weir replay capture.pcapng -o json     flows of a capture, no privilege needed
  weir flows --since 1h port=443         flows of the last hour, as the agent remembers them
  weir doctor                            what is possible here, and what is missing

Exit codes: 0 done, 1 failed, 2 used wrongly.";

const WATCH_EXAMPLES: &str = "\
Examples:
  weir watch
  weir watch -i eth0 -i 'veth*'
  weir watch proto=udp and dst.port=53 -o json --duration 10s
  weir watch --group-by dst,dport --top 10
  weir watch -i eth0 -o log --interval 5s --blocks 3
  weir watch --netns shop 'src=10.0.0.0/8 and not port=22'
  weir watch --hook socket --promiscuous -i eth1

Default interfaces: the edges of containers, the ways out, tunnels, and what loopback sends. Each has
its own total, because a packet may pass several of them. Interfaces that you name are counted as
they see things themselves. They are followed: one that goes away and comes back is counted again.
On a terminal the table is refreshed in place, otherwise one is printed per interval. It has as many
rows as fit, or 1,000; --top says how many.";

const PACKETS_EXAMPLES: &str = "\
Examples:
  weir packets -i eth0 port=53
  weir packets -i eth0 -w dns.pcapng --count 100 'proto=udp and port=53'
  weir packets -o json --duration 5s 'host=10.0.0.1'";

const REPLAY_EXAMPLES: &str = "\
Examples:
  weir replay capture.pcapng
  weir replay capture.pcap 'proto=tcp and port=443' -o json
  weir replay capture.pcapng --group-by dst,dport --top 10
  tcpdump -i eth0 -w - | weir replay -

A conversation is one flow, however long it pauses, unless it was closed and opened anew.
Lengths are those on the wire, also of packets that the capture cut.";

const AGENT_EXAMPLES: &str = "\
Examples:
  weir agent
  weir agent -c /etc/weir/weir.yaml
  weir agent -i eth0 --set sinks[0].type=json --set sinks[0].file=/var/log/weir/flows
  curl -s localhost:4780/api/v1/status
  curl -sN localhost:4780/api/v1/live

Without a file, the agent counts all interfaces by their roles and answers on 127.0.0.1:4780.
Settings come from the file, then from WEIR_… variables, then from options; the later ones win.
SIGHUP reads them again. SIGINT and SIGTERM end the agent: it detaches everything, hands on what
waits, and prints the ledger.";

const CHECK_EXAMPLES: &str = "\
Examples:
  weir check -c weir.yaml
  weir check -c weir.yaml --set interval=5s

Needs no privilege. Exit code 2 if anything is wrong.";

const FLOWS_EXAMPLES: &str = "\
Examples:
  weir flows
  weir flows --since 1h --group-by source.k8s.owner.name,destination.k8s.owner.name
  weir flows --since 2h --until 1h 'proc=curl' -o json
  weir flows --since 2026-01-31T12:00:00Z --until 2026-01-31T12:05:00Z 'dst=10.0.0.0/8' -o csv
  weir flows --agent http://127.0.0.1:4780 --group-by dport --limit 10

A flow is one line however often it was recorded; its counters are those of the time asked for, and
rates are averages over it. What an answer leaves out, and why, is said on standard error.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  weir doctor
  weir doctor -v
  weir doctor -o json";

const SELFCHECK_EXAMPLES: &str = "\
Examples:
  weir selfcheck

Loads an instance of its own, runs crafted packets through it, then known traffic through a
namespace made for it, and compares the counts. Exit code 1 if anything differs.";

const CLEANUP_EXAMPLES: &str = "\
Examples:
  weir cleanup --dry-run
  weir cleanup";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  weir completions bash > /etc/bash_completion.d/weir
  weir completions zsh > \"${fpath[1]}/_weir\"
  weir completions fish > ~/.config/fish/completions/weir.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  weir man | man -l -
  weir man --out /usr/local/share/man/man1";
