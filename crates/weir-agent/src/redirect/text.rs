//! Listeners, backends, health checks and connections as people write them.
//!
//! The same words go for the rules file, the command line, the control socket and everything that is printed. What is
//! read here is checked as far as one value alone can be; what several say together is judged in [`super::rules`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::ParseIntError,
    str::FromStr,
};

use thiserror::Error;
use weir_datapath::redirect::{Listener, Ports, Prefix, Transport, Tuple};

use super::rules::{Backend, Check};

/// Heaviest backend.
pub const MOST_WEIGHT: u16 = 256;

/// Longest datagram of a UDP check, in bytes.
const MOST_PROBE_BYTES: usize = 512;

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// No listener at all.
    #[error(
        "`{0}` is no listener: write tcp:ADDRESS:PORT, such as tcp:10.0.0.10:80, udp:[fd00::1]:53 or tcp:10.1.0.0/16:80-90"
    )]
    Listener(String),
    /// Neither `tcp` nor `udp`.
    #[error("unknown transport `{0}`: use tcp or udp, as in tcp:10.0.0.10:80")]
    Transport(String),
    /// No address.
    #[error("`{0}` is no address: write 10.0.0.10, or [fd00::1] with brackets")]
    Address(String),
    /// A length that the family does not have.
    #[error("`/{length}` is no length of a prefix: use 0 to {most}")]
    PrefixLength {
        /// What was written.
        length: String,
        /// The longest of the family.
        most: u8,
    },
    /// A prefix with bits beyond its length.
    #[error("{address}/{length} has bits beyond its length: write {cut}/{length}")]
    HostBits {
        /// What was written.
        address: IpAddr,
        /// Its length.
        length: u8,
        /// The address without those bits.
        cut: IpAddr,
    },
    /// An address that nothing is sent to.
    #[error("{0} is no address of one host: connections cannot be diverted from or to it")]
    NoHost(IpAddr),
    /// An IPv4 address in IPv6 clothes.
    #[error("{0} is an IPv4 address: write it as one")]
    Mapped(IpAddr),
    /// No port.
    #[error("`{0}` is no port: use 1 to 65535, a range such as 80-90, or * for all")]
    Port(String),
    /// A range that ends before it begins.
    #[error("the range {first}-{last} ends before it begins: write {last}-{first}")]
    Backwards {
        /// Its first port.
        first: u16,
        /// Its last.
        last: u16,
    },
    /// No backend at all.
    #[error(
        "`{0}` is no backend: write ADDRESS:PORT, such as 10.0.0.138:8080 or [fd00::2]:8080, ADDRESS alone to keep the port, or service:NAMESPACE/NAME:PORT"
    )]
    Backend(String),
    /// No service.
    #[error(
        "`{0}` is no service: write service:NAMESPACE/NAME:PORT, such as service:shop/web:http or service:shop/web:80"
    )]
    Service(String),
    /// A property that backends do not have.
    #[error("unknown property `{0}` of a backend: use weight=N or drain")]
    Property(String),
    /// A weight that is too much or no number.
    #[error("`{0}` is no weight: use 0 to {MOST_WEIGHT}")]
    Weight(String),
    /// No health check.
    #[error("`{0}` is no health check: use tcp, http:/PATH, udp:HEX or none")]
    Check(String),
    /// A path that does not begin as paths do, or that cannot be sent.
    #[error("`{0}` is no path: it begins with / and has neither spaces nor control characters")]
    Path(String),
    /// Not hexadecimal.
    #[error(
        "`{0}` is no datagram in hexadecimal: use pairs of digits, such as udp:0a0b, up to {MOST_PROBE_BYTES} bytes"
    )]
    Hex(String),
    /// No connection.
    #[error(
        "`{0}` is no connection: write tcp:CLIENT:PORT->LISTEN:PORT, such as tcp:10.0.0.1:40000->10.0.0.10:80"
    )]
    Tuple(String),
    /// Two ends of different families.
    #[error("{0} and {1} are of different address families")]
    Families(IpAddr, IpAddr),
    /// A name that would be hard to type or to print.
    #[error(
        "`{0}` is no name of a rule: use up to 63 letters, digits, `-`, `_` and `.`, the first a letter or a digit"
    )]
    Name(String),
}

/// Reads a listener, such as `tcp:10.0.0.10:80-90`.
pub fn parse_listener(text: &str) -> Result<Listener, TextError> {
    let wrong = || TextError::Listener(text.to_owned());
    let (transport, rest) = text.split_once(':').ok_or_else(wrong)?;
    let transport = parse_transport(transport)?;
    let (address, ports) = rest.rsplit_once(':').ok_or_else(wrong)?;
    if address.is_empty() || address.ends_with(':') {
        return Err(wrong());
    }
    Ok(Listener { transport, prefix: parse_prefix(address)?, ports: parse_ports(ports)? })
}

/// What a backend gets of the new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Its weight.
    pub weight: u16,
    /// Whether it takes no new connections.
    pub is_drained: bool,
}

/// Reads a backend, such as `10.0.0.138:8080,weight=3`.
pub fn parse_backend(text: &str) -> Result<Backend, TextError> {
    let (address, properties) = text.split_once(',').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let address = parse_backend_address(address.trim())?;
    let Share { weight, is_drained } = parse_share(properties)?;
    Ok(Backend { address, weight, is_drained })
}

/// Reads the properties of a backend, such as `weight=3,drain`.
pub(super) fn parse_share(properties: Option<&str>) -> Result<Share, TextError> {
    let mut share = Share { weight: 1, is_drained: false };
    for property in properties.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
        match property.split_once('=') {
            Some(("weight" | "w", number)) => share.weight = parse_weight(number)?,
            None if property == "drain" => share.is_drained = true,
            _ => return Err(TextError::Property(property.to_owned())),
        }
    }
    Ok(share)
}

/// Reads a weight.
pub fn parse_weight(text: &str) -> Result<u16, TextError> {
    let weight = text.parse().ok().filter(|weight| *weight <= MOST_WEIGHT);
    weight.ok_or_else(|| TextError::Weight(text.to_owned()))
}

/// Reads the address of a backend; port 0 is for none, which keeps the port that the client called.
pub fn parse_backend_address(text: &str) -> Result<SocketAddr, TextError> {
    let wrong = || TextError::Backend(text.to_owned());
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = if let Ok(address) = bare.parse::<IpAddr>() {
        SocketAddr::new(address, 0)
    } else {
        let address: SocketAddr = text.parse().map_err(|_not_one| wrong())?;
        if address.port() == 0 {
            return Err(TextError::Port("0".to_owned()));
        }
        address
    };
    one_host(address.ip())?;
    if address.ip().is_unspecified() {
        return Err(TextError::NoHost(address.ip()));
    }
    Ok(address)
}

/// Reads a health check, such as `http:/ready`.
pub fn parse_check(text: &str) -> Result<Check, TextError> {
    match text.split_once(':') {
        None if text == "none" => Ok(Check::None),
        None if text == "tcp" => Ok(Check::Tcp),
        Some(("http", path)) => {
            let is_plain = path.starts_with('/') && path.chars().all(|it| it.is_ascii_graphic());
            if is_plain {
                Ok(Check::Http { path: path.to_owned() })
            } else {
                Err(TextError::Path(path.to_owned()))
            }
        }
        Some(("udp", hex)) => Ok(Check::Udp { payload: parse_hex(hex)? }),
        _ => Err(TextError::Check(text.to_owned())),
    }
}

/// Reads a connection, such as `tcp:10.0.0.1:40000->10.0.0.10:80`.
pub fn parse_tuple(text: &str) -> Result<Tuple, TextError> {
    let wrong = || TextError::Tuple(text.to_owned());
    let (transport, ends) = text.split_once(':').ok_or_else(wrong)?;
    let transport = parse_transport(transport)?;
    let (client, listen) = ends.split_once("->").ok_or_else(wrong)?;
    let end = |text: &str| text.trim().parse::<SocketAddr>().map_err(|_not_one| wrong());
    let (client, listen) = (end(client)?, end(listen)?);
    if client.is_ipv4() != listen.is_ipv4() {
        return Err(TextError::Families(client.ip(), listen.ip()));
    }
    Ok(Tuple { transport, client, listen })
}

/// Checks the name of a rule.
pub fn check_name(text: &str) -> Result<(), TextError> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    let begins_well = text.starts_with(|it: char| it.is_ascii_alphanumeric());
    if begins_well && text.len() <= 63 && text.chars().all(is_plain) {
        Ok(())
    } else {
        Err(TextError::Name(text.to_owned()))
    }
}

fn parse_transport(text: &str) -> Result<Transport, TextError> {
    match text {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(TextError::Transport(text.to_owned())),
    }
}

fn parse_prefix(text: &str) -> Result<Prefix, TextError> {
    let bare = text.strip_prefix('[').map_or(text, |rest| rest.strip_suffix(']').unwrap_or(rest));
    let has_brackets = bare.len() != text.len();
    let (address, length) = match bare.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (bare, None),
    };
    let parsed: IpAddr = address.parse().map_err(|_not_one| TextError::Address(text.to_owned()))?;
    if parsed.is_ipv6() != has_brackets {
        return Err(TextError::Address(text.to_owned()));
    }
    one_host(parsed)?;
    let most = if parsed.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => length
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| TextError::PrefixLength { length: length.to_owned(), most })?,
    };
    if length == most && parsed.is_unspecified() {
        return Err(TextError::NoHost(parsed));
    }
    let cut = masked(parsed, length);
    if cut == parsed {
        Ok(Prefix { address: parsed, length })
    } else {
        Err(TextError::HostBits { address: parsed, length, cut })
    }
}

/// The address without the bits beyond the length.
pub(super) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

fn one_host(address: IpAddr) -> Result<(), TextError> {
    match address {
        IpAddr::V4(it) if it.is_multicast() || it.is_broadcast() => Err(TextError::NoHost(address)),
        IpAddr::V6(it) if it.is_multicast() => Err(TextError::NoHost(address)),
        IpAddr::V6(it) if it.to_ipv4_mapped().is_some() => Err(TextError::Mapped(address)),
        _ => Ok(()),
    }
}

fn parse_ports(text: &str) -> Result<Ports, TextError> {
    let wrong = || TextError::Port(text.to_owned());
    if text == "*" {
        return Ok(ALL_PORTS);
    }
    let port = |text: &str| -> Result<u16, TextError> {
        let port = text.parse().map_err(|_error: ParseIntError| wrong())?;
        if port == 0 { Err(wrong()) } else { Ok(port) }
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last { Err(TextError::Backwards { first, last }) } else { Ok(Ports { first, last }) }
}

/// `*`.
pub const ALL_PORTS: Ports = Ports { first: 0, last: u16::MAX };

fn parse_hex(text: &str) -> Result<Vec<u8>, TextError> {
    let wrong = || TextError::Hex(text.to_owned());
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 2 * MOST_PROBE_BYTES {
        return Err(wrong());
    }
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Ok(digits.ok_or_else(wrong)?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Writes a transport.
pub fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// Writes a listener as it is read.
pub struct ListenerText(pub Listener);

impl fmt::Display for ListenerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { transport: which, prefix, ports } = self.0;
        write!(f, "{}:", transport(which))?;
        let is_exact = prefix.length == if prefix.address.is_ipv4() { 32 } else { 128 };
        match (prefix.address, is_exact) {
            (IpAddr::V4(address), true) => write!(f, "{address}")?,
            (IpAddr::V6(address), true) => write!(f, "[{address}]")?,
            (IpAddr::V4(address), false) => write!(f, "{address}/{}", prefix.length)?,
            (IpAddr::V6(address), false) => write!(f, "[{address}/{}]", prefix.length)?,
        }
        match ports {
            ALL_PORTS => f.write_str(":*"),
            Ports { first, last } if first == last => write!(f, ":{first}"),
            Ports { first, last } => write!(f, ":{first}-{last}"),
        }
    }
}

/// Writes the address of a backend as it is read.
pub struct AddressText(pub SocketAddr);

impl fmt::Display for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.port(), self.0.ip()) {
            (0, IpAddr::V4(address)) => write!(f, "{address}"),
            (0, IpAddr::V6(address)) => write!(f, "[{address}]"),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, weight, is_drained } = *self;
        write!(f, "{}{}", AddressText(address), Share { weight, is_drained })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weight != 1 {
            write!(f, ",weight={}", self.weight)?;
        }
        if self.is_drained { f.write_str(",drain") } else { Ok(()) }
    }
}

impl FromStr for Backend {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        parse_backend(text)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp => f.write_str("tcp"),
            Self::Http { path } => write!(f, "http:{path}"),
            Self::Udp { payload } => {
                f.write_str("udp:")?;
                payload.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Writes a connection as it is read.
pub struct TupleText(pub Tuple);

impl fmt::Display for TupleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { transport: which, client, listen } = &self.0;
        write!(f, "{}:{client}->{listen}", transport(*which))
    }
}
