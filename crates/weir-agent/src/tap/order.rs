//! [`Order`]: what is to be tapped, for how long, by whose wish and why.

use std::{fmt, time::Duration};

use weir_datapath::tap::{Limits, Payload, Processes, Role, Rule, RuleId};

use super::Wanted;

/// How long payload is copied where nobody says.
const DEFAULT_TTL: Duration = Duration::from_mins(10);

/// Longest that payload may be copied.
const MOST_TTL: Duration = Duration::from_hours(24);

/// Who is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the user, or its number.
    pub name: String,
    /// Number of the user.
    pub user: u32,
}

/// Whose traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Everybody's.
    pub all: bool,
    /// Processes.
    pub pids: Vec<u32>,
    /// Names of commands.
    pub commands: Vec<String>,
    /// Containers, by the beginning of their identifier.
    pub containers: Vec<String>,
    /// Pods, as `NAMESPACE/NAME`.
    pub pods: Vec<String>,
    /// Control groups, by path.
    pub cgroups: Vec<String>,
}

/// What is to be tapped. It becomes a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose traffic.
    pub selection: Selection,
    /// With whom, and on which ports.
    pub wanted: Wanted,
    /// What the end is that is tapped.
    pub role: Option<Role>,
    /// What is copied.
    pub payload: Payload,
    /// How much of it.
    pub limits: Limits,
    /// For how long; `None` where nothing of what is said is copied, and nobody set an end.
    pub ttl: Option<Duration>,
    /// Who wants it.
    pub owner: Owner,
    /// Why.
    pub reason: String,
    /// Whether secrets are masked.
    pub is_redacted: bool,
}

/// Why an order is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It names nobody.
    #[error("whose traffic? Name processes (--pid, --comm, --container, --pod, --cgroup), or say --all")]
    Nobody,
    /// It shows secrets without saying why.
    #[error("--no-redact shows passwords and tokens: say why, with --reason")]
    NoReason,
    /// It would go on for too long.
    #[error("a time of {} hours is more than {} hours: copies of payload have an end", .0.as_secs() / 3600, MOST_TTL.as_secs() / 3600)]
    TooLong(Duration),
    /// A name that no command can have.
    #[error("`{0}` is no name of a command: the kernel keeps at most 15 bytes of it")]
    Command(String),
}

impl Selection {
    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Order {
    /// Makes sure that it may be carried out, and gives payload its end.
    pub fn check(mut self) -> Result<Self, OrderError> {
        if self.selection.is_empty() {
            return Err(OrderError::Nobody);
        }
        if !self.is_redacted && self.reason.trim().is_empty() {
            return Err(OrderError::NoReason);
        }
        for command in &self.selection.commands {
            if command.is_empty() || command.contains('\0') || command.len() > 15 {
                return Err(OrderError::Command(command.clone()));
            }
        }
        if self.payload != Payload::None {
            let ttl = self.ttl.unwrap_or(DEFAULT_TTL);
            if ttl > MOST_TTL {
                return Err(OrderError::TooLong(ttl));
            }
            self.ttl = Some(ttl);
        }
        Ok(self)
    }

    /// The rule for the kernel. `cgroups` are those of the containers, pods and control groups that the order names.
    pub fn rule(&self, id: RuleId, cgroups: Vec<u64>) -> Rule {
        let commands = self.selection.commands.iter().map(|command| {
            let mut name = [0; 16];
            let length = command.len().min(15);
            name[..length].copy_from_slice(&command.as_bytes()[..length]);
            name
        });
        Rule {
            id,
            processes: Processes {
                all: self.selection.all,
                pids: self.selection.pids.clone(),
                cgroups,
                commands: commands.collect(),
            },
            networks: self.wanted.networks.clone(),
            ports: self.wanted.ports.clone(),
            way: None,
            role: self.role,
            payload: self.payload,
            limits: self.limits,
        }
    }

    /// What is copied, as it is said on the command line.
    pub const fn payload_name(&self) -> &'static str {
        match self.payload {
            Payload::None => "none",
            Payload::Headers => "headers",
            Payload::Full => "full",
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return f.write_str("all processes");
        }
        let pids = self.pids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let lists = [
            ("pid", &pids),
            ("command", &self.commands),
            ("container", &self.containers),
            ("pod", &self.pods),
            ("cgroup", &self.cgroups),
        ];
        let named = lists.iter().filter(|(_, list)| !list.is_empty());
        let named: Vec<String> = named.map(|(what, list)| format!("{what} {}", list.join(" "))).collect();
        f.write_str(&named.join(", "))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.selection, self.wanted)?;
        match self.role {
            Some(Role::Client) => f.write_str(", as clients")?,
            Some(Role::Server) => f.write_str(", as servers")?,
            None => {}
        }
        write!(f, "; payload {}", self.payload_name())?;
        if !self.is_redacted {
            f.write_str(", secrets are NOT masked")?;
        }
        Ok(())
    }
}
