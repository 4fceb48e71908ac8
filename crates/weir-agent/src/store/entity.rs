//! [`Entity`]: who an edge of the service map begins or ends at.

use std::{fmt, sync::Arc};

use weir_flow::{Detail, Endpoint, Record, Role, field::Value};

/// An end of an edge: the workload where it is known; else the process, if it is on this node; else the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// What a pod belongs to in the end, a service, or a node.
    Workload {
        /// `Deployment`, `DaemonSet`, …, `Pod`, `Service`, `Node`.
        kind: Arc<str>,
        /// Its namespace; nodes have none.
        namespace: Option<Arc<str>>,
        /// Its name.
        name: Arc<str>,
    },
    /// The executable of a process on this node.
    Process(Arc<str>),
    /// An address, as text.
    Address(Arc<str>),
    /// Many ends of which no more is known, because there was no room for more.
    Others,
}

impl Entity {
    /// Who is at an end of a record.
    pub fn of(end: &Endpoint, detail: Detail) -> Self {
        if let Some(workload) = &end.identity.workload {
            return Self::Workload {
                kind: Arc::clone(&workload.owner_kind),
                namespace: workload.namespace.clone(),
                name: Arc::clone(&workload.owner_name),
            };
        }
        match (&end.process, detail) {
            (_, Detail::Folded) => Self::Others,
            (Some(process), Detail::Flow) => Self::Process(Arc::clone(&process.executable)),
            (None, Detail::Flow) => Self::Address(end.address.to_string().into()),
        }
    }

    /// `workload`, `process`, `address` or `others`.
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::Workload { .. } => "workload",
            Self::Process(_) => "process",
            Self::Address(_) => "address",
            Self::Others => "others",
        }
    }

    /// Its name alone; empty for others.
    pub fn name(&self) -> &str {
        match self {
            Self::Workload { name, .. } | Self::Process(name) | Self::Address(name) => name,
            Self::Others => "",
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { kind, namespace: Some(namespace), name } => {
                write!(f, "{kind} {namespace}/{name}")
            }
            Self::Workload { kind, namespace: None, name } => write!(f, "{kind} {name}"),
            Self::Process(name) | Self::Address(name) => f.write_str(name),
            Self::Others => f.write_str("(others)"),
        }
    }
}

/// What the traffic of an edge has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    /// Who opened the flows.
    pub source: Entity,
    /// Whom they were opened to.
    pub destination: Entity,
    /// Protocol above IP (IANA).
    pub transport: u8,
    /// Port at the destination; none where the protocol has none.
    pub port: Option<u16>,
    /// What the interfaces are for that the packets were counted at.
    pub role: Role,
}

impl EdgeKey {
    /// The edge that a record belongs to.
    pub fn of(record: &Record) -> Self {
        Self {
            source: Entity::of(&record.source, record.detail),
            destination: Entity::of(&record.destination, record.detail),
            transport: record.tuple.protocol(),
            port: (record.tuple.has_ports() && record.detail == Detail::Flow)
                .then_some(record.destination.port),
            role: record.point.role,
        }
    }

    /// The value of a field that is the same for all the traffic of the edge. `None` where it need not be.
    pub fn value(&self, field: &str) -> Option<Value<'_>> {
        let (end, attribute) = match field {
            "network.transport" => return Some(Value::Protocol(self.transport)),
            "destination.port" => {
                return Some(self.port.map_or(Value::Absent, |port| Value::Integer(port.into())));
            }
            "flow.observation" => return Some(Value::Text(self.role.as_str().into())),
            _ => match field.strip_prefix("source.") {
                Some(attribute) => (&self.source, attribute),
                None => (&self.destination, field.strip_prefix("destination.")?),
            },
        };
        let Entity::Workload { kind, namespace, name } = end else {
            return OF_WORKLOADS.contains(&attribute).then_some(Value::Absent);
        };
        let text = match attribute {
            "k8s.owner.kind" => Some(kind),
            "k8s.owner.name" => Some(name),
            "k8s.namespace.name" => namespace.as_ref(),
            _ => return None,
        };
        Some(text.map_or(Value::Absent, |text| Value::Text((&**text).into())))
    }

    /// Whether [`EdgeKey::value`] knows the field of every edge.
    pub fn knows(field: &str) -> bool {
        let attribute = field.strip_prefix("source.").or_else(|| field.strip_prefix("destination."));
        matches!(field, "network.transport" | "destination.port" | "flow.observation")
            || attribute.is_some_and(|attribute| OF_WORKLOADS.contains(&attribute))
    }
}

const OF_WORKLOADS: [&str; 3] = ["k8s.owner.kind", "k8s.owner.name", "k8s.namespace.name"];
