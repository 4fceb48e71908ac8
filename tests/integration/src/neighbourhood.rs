//! Machines at one switch: a client, somebody at the address that is called, and those who answer instead.

use std::net::Ipv4Addr;

use crate::Namespace;

/// Namespaces at one bridge in `10.0.0.0/24` and `fd00::/64`.
pub struct Neighbourhood {
    /// Holds the bridge.
    switch: Namespace,
    count: u8,
}

impl Default for Neighbourhood {
    fn default() -> Self {
        Self::new()
    }
}

impl Neighbourhood {
    /// A switch without anybody.
    pub fn new() -> Self {
        let switch = Namespace::new();
        switch.ip_batch(&[
            "link add bridge0 type bridge forward_delay 0 mcast_snooping 0",
            "link set bridge0 up",
        ]);
        Self { switch, count: 0 }
    }

    /// Somebody new, with an interface `veth0`, the address `10.0.0.HOST`, and `fd00::HOST` in hexadecimal.
    pub fn join(&mut self, host: u8) -> Namespace {
        let namespace = Namespace::new();
        self.plug(&namespace, "veth0", host);
        namespace
    }

    /// Connects an interface of this name, once more perhaps.
    pub fn plug(&mut self, namespace: &Namespace, name: &str, host: u8) {
        self.count += 1;
        let port = format!("port{}", self.count);
        self.switch.ip(&format!("link add {port} type veth peer name {name} netns {}", namespace.path()));
        self.switch.ip_batch(&[format!("link set {port} master bridge0"), format!("link set {port} up")]);
        let address = Ipv4Addr::new(10, 0, 0, host);
        namespace.ip_batch(&[
            format!("address add {address}/24 dev {name}"),
            format!("address add fd00::{host:x}/64 dev {name} nodad"),
            format!("link set {name} up"),
        ]);
        namespace.until_it_sends(name);
        self.switch.until_it_sends(&port);
    }
}
