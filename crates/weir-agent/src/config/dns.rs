//! The section `dns` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_datapath::flow::FlowOptions;

use super::{At, Problems};

/// What DNS messages say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct DnsDocument {
    /// Whether DNS messages are read: for names of addresses, and for times, codes and failures of lookups.
    pub enabled: bool,
    /// Ports of DNS servers, eight at most. Only messages that are not encrypted can be read.
    #[schemars(extend("maxItems" = FlowOptions::MOST_DNS_PORTS))]
    pub ports: Vec<u16>,
}

/// Which messages are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Ports of DNS servers; without any, no message is read.
    pub ports: Vec<u16>,
}

impl Default for DnsDocument {
    fn default() -> Self {
        Self { enabled: true, ports: vec![53] }
    }
}

impl DnsDocument {
    /// What is wanted.
    pub(super) fn validate(self, at: &At, problems: &mut Problems) -> DnsConfig {
        for (index, port) in self.ports.iter().enumerate() {
            let place = at.key("ports").index(index);
            if *port == 0 {
                problems.add(&place, "must be a port: 1 to 65535");
            } else if self.ports[..index].contains(port) {
                problems.add(&place, format!("says {port} a second time"));
            }
        }
        if self.enabled && self.ports.is_empty() {
            problems.add(&at.key("ports"), "needs a port; to read no messages, set `enabled: false`");
        }
        DnsConfig { ports: if self.enabled { self.ports } else { Vec::new() } }
    }
}
