//! What is read from rtnetlink messages, and the requests for them.
//!
//! Only the attributes that we need are looked at, so that a new or odd one in the rest of a message cannot make an
//! interface disappear. Numbers are in the machine's byte order, as everywhere in rtnetlink.

use std::{net::IpAddr, sync::Arc};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, NlasIterator};
use weir_flow::Role;
use weir_packet::Link;

use super::{DirectionStats, Interface, Kind, LinkStats};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_VOID: u16 = 0xffff;
const IFF_UP: u32 = 1;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;

const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
/// Answer with the route that matched, not with the way of this one destination (since 4.13, b61798130f1b).
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// A message says less than its kind promises.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

/// A question to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    /// What is asked, for error messages.
    pub(super) what: &'static str,
    /// The kind of message that answers.
    pub(super) answer: u16,
    bytes: Vec<u8>,
}

impl Request {
    /// All interfaces.
    pub(super) fn all_links() -> Self {
        Self::new("the list of interfaces", RTM_GETLINK, RTM_NEWLINK, NLM_F_DUMP, &[0; LINK_HEADER])
    }

    /// One interface.
    pub(super) fn link(index: u32) -> Self {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        Self::new("an interface", RTM_GETLINK, RTM_NEWLINK, 0, &header)
    }

    /// All addresses of both families.
    pub(super) fn all_addresses() -> Self {
        Self::new("the list of addresses", RTM_GETADDR, RTM_NEWADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER])
    }

    /// The route that a packet to `destination` would take.
    pub(super) fn route_to(destination: IpAddr) -> Self {
        let (family, address) = match destination {
            IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        let mut body = vec![0; ROUTE_HEADER];
        body[0] = family;
        body[1] = if family == AF_INET { 32 } else { 128 };
        body[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
        let attribute_length = if family == AF_INET { 8_u16 } else { 20 };
        body.extend_from_slice(&attribute_length.to_ne_bytes());
        body.extend_from_slice(&RTA_DST.to_ne_bytes());
        body.extend_from_slice(&address);
        Self::new("a route", RTM_GETROUTE, RTM_NEWROUTE, 0, &body)
    }

    fn new(what: &'static str, ask: u16, answer: u16, flags: u16, body: &[u8]) -> Self {
        let length = u32::try_from(HEADER + body.len()).expect("a request has some ten bytes");
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&ask.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self { what, answer, bytes }
    }

    /// The bytes to send, with a number by which the answer is known.
    pub(super) fn numbered(&mut self, sequence: u32) -> &[u8] {
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// Reads an interface from a message about a new or changed one. Its role is not known yet. `None` for messages of other
/// families: the bridge sends those of its ports under the same numbers, also when a port merely leaves it.
pub(super) fn link(payload: &[u8]) -> Result<Option<Interface>, Malformed> {
    let header = payload.get(..LINK_HEADER).ok_or_else(|| cut_short("an interface", payload))?;
    if header[0] != AF_UNSPEC {
        return Ok(None);
    }
    let hardware = u16::from_ne_bytes([header[2], header[3]]);
    let mut kind = None;
    let mut interface = Interface {
        index: u32_at(header, 4),
        name: Arc::from(""),
        kind: Kind::Physical,
        role: Role::Other,
        link: if matches!(hardware, ARPHRD_ETHER | ARPHRD_LOOPBACK) { Link::Ethernet } else { Link::Ip },
        up: u32_at(header, 8) & IFF_UP != 0,
        master: None,
        link_index: None,
        link_netnsid: None,
        mtu: 0,
        qdisc: None,
        bus: None,
        xdp: false,
        stats: LinkStats::default(),
    };
    for attribute in NlasIterator::new(&payload[LINK_HEADER..]) {
        let attribute = attribute.map_err(|error| Malformed(error.to_string()))?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_MTU => interface.mtu = number(&attribute)?,
            IFLA_LINK => interface.link_index = Some(number(&attribute)?).filter(|index| *index != 0),
            IFLA_QDISC => interface.qdisc = Some(text(value)),
            IFLA_MASTER => interface.master = Some(number(&attribute)?).filter(|index| *index != 0),
            IFLA_LINKINFO => kind = nested(value, IFLA_INFO_KIND)?.map(|name| text(&name)),
            IFLA_STATS64 => interface.stats = stats(value),
            IFLA_LINK_NETNSID => interface.link_netnsid = Some(number(&attribute)?.cast_signed()),
            IFLA_XDP => interface.xdp = nested(value, IFLA_XDP_ATTACHED)?.is_some_and(|mode| mode != [0]),
            IFLA_PARENT_DEV_BUS_NAME => interface.bus = Some(text(value)),
            _ => {}
        }
    }
    interface.kind = kind_of(kind, hardware);
    if interface.index == 0 || interface.name.is_empty() {
        return Err(Malformed(format!("interface {} with name {:?}", interface.index, interface.name)));
    }
    Ok(Some(interface))
}

/// Index of the interface that a message about a removed one names. `None` as in [`link`].
pub(super) fn removed_link(payload: &[u8]) -> Result<Option<u32>, Malformed> {
    let header = payload.get(..LINK_HEADER).ok_or_else(|| cut_short("an interface", payload))?;
    Ok((header[0] == AF_UNSPEC).then(|| u32_at(header, 4)))
}

/// Index of the interface whose address lets it reach others: valid everywhere, in a network larger than itself.
pub(super) fn on_link_address(payload: &[u8]) -> Result<Option<u32>, Malformed> {
    let header = payload.get(..ADDRESS_HEADER).ok_or_else(|| cut_short("an address", payload))?;
    let [family, prefix_length, _flags, scope] = [header[0], header[1], header[2], header[3]];
    let whole_address = if family == AF_INET { 32 } else { 128 };
    Ok((scope == RT_SCOPE_UNIVERSE && prefix_length < whole_address).then(|| u32_at(header, 4)))
}

/// Indexes of the interfaces that a route leads out of. Empty if it leads nowhere.
pub(super) fn route_interfaces(payload: &[u8]) -> Result<Vec<u32>, Malformed> {
    let header = payload.get(..ROUTE_HEADER).ok_or_else(|| cut_short("a route", payload))?;
    let mut interfaces = Vec::new();
    if header[7] != RTN_UNICAST {
        return Ok(interfaces);
    }
    for attribute in NlasIterator::new(&payload[ROUTE_HEADER..]) {
        let attribute = attribute.map_err(|error| Malformed(error.to_string()))?;
        match attribute.kind() {
            RTA_OIF => interfaces.push(number(&attribute)?),
            RTA_MULTIPATH => interfaces.extend(next_hops(attribute.value())?),
            _ => {}
        }
    }
    Ok(interfaces)
}

/// Whether a message about a route is about a default route.
pub(super) fn is_default_route(payload: &[u8]) -> bool {
    payload.get(1) == Some(&0)
}

/// `struct rtnexthop`: length 16 bits, flags and hops 8 bits each, interface 32 bits; then attributes.
fn next_hops(mut hops: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut interfaces = Vec::new();
    while let Some(header) = hops.get(..8) {
        interfaces.push(u32_at(header, 4));
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]])).next_multiple_of(4);
        if length < header.len() {
            return Err(Malformed(format!("a next hop of {length} bytes")));
        }
        hops = hops.get(length..).unwrap_or_default();
    }
    Ok(interfaces)
}

fn kind_of(name: Option<Arc<str>>, hardware: u16) -> Kind {
    let Some(name) = name else {
        return match hardware {
            ARPHRD_LOOPBACK => Kind::Loopback,
            ARPHRD_VOID => Kind::Other(Arc::from("void")),
            _ => Kind::Physical,
        };
    };
    match &*name {
        "veth" => Kind::Veth,
        "netkit" => Kind::Netkit,
        "bridge" => Kind::Bridge,
        "bond" => Kind::Bond,
        "team" => Kind::Team,
        "vlan" => Kind::Vlan,
        "macvlan" | "macvtap" => Kind::Macvlan,
        "ipvlan" | "ipvtap" => Kind::Ipvlan,
        "vxlan" => Kind::Vxlan,
        "geneve" => Kind::Geneve,
        "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" | "ip6erspan" => Kind::Gre,
        "ipip" | "ip6tnl" => Kind::Ipip,
        "sit" => Kind::Sit,
        "wireguard" => Kind::Wireguard,
        "tun" if hardware == ARPHRD_ETHER => Kind::Tap,
        "tun" => Kind::Tun,
        "dummy" => Kind::Dummy,
        "ifb" => Kind::Ifb,
        _ => Kind::Other(name),
    }
}

/// `struct rtnl_link_stats64`; a kernel may know fewer or more fields than these.
fn stats(value: &[u8]) -> LinkStats {
    let field = |number: usize| {
        let bytes = value.get(number * 8..number * 8 + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    let direction = |first: usize| DirectionStats {
        packets: field(first),
        bytes: field(first + 2),
        errors: field(first + 4),
        dropped: field(first + 6),
    };
    LinkStats { rx: direction(0), tx: direction(1) }
}

/// The value of one attribute inside another.
fn nested(value: &[u8], wanted: u16) -> Result<Option<Vec<u8>>, Malformed> {
    for attribute in NlasIterator::new(value) {
        let attribute = attribute.map_err(|error| Malformed(error.to_string()))?;
        if attribute.kind() == wanted {
            return Ok(Some(attribute.value().to_vec()));
        }
    }
    Ok(None)
}

fn number(attribute: &NlaBuffer<&[u8]>) -> Result<u32, Malformed> {
    let Ok(bytes) = attribute.value().try_into() else {
        return Err(Malformed(format!(
            "attribute {} with {} bytes",
            attribute.kind(),
            attribute.value().len()
        )));
    };
    Ok(u32::from_ne_bytes(bytes))
}

/// Text up to the first zero byte. Interface names may hold any byte but `/` and white space.
fn text(value: &[u8]) -> Arc<str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    Arc::from(String::from_utf8_lossy(&value[..end]))
}

fn u32_at(header: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(header[offset..offset + 4].try_into().expect("the header was measured"))
}

fn cut_short(what: &str, payload: &[u8]) -> Malformed {
    Malformed(format!("{what} in {} bytes", payload.len()))
}
