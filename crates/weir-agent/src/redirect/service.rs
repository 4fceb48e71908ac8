//! Services of Kubernetes in the place of backends: how they are written.
//!
//! `service:NAMESPACE/NAME:PORT`, where the port is that of the service or its name. Where it leads is in
//! [`super::resolve`].

use std::fmt;

use super::text::{Share, TextError, parse_share};
use crate::kubernetes::endpoints::{PortRef, ServicePort};

/// What a service begins with, unlike an address.
const PREFIX: &str = "service:";

/// A service whose endpoints are backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceBackends {
    /// Which port of which service.
    pub port: ServicePort,
    /// What each of its endpoints gets.
    pub share: Share,
}

/// Reads a service with its properties; `None` if the text is something else.
pub fn parse_service(text: &str) -> Option<Result<ServiceBackends, TextError>> {
    let rest = text.strip_prefix(PREFIX)?;
    let (name, properties) = rest.split_once(',').map_or((rest, None), |(name, rest)| (name, Some(rest)));
    let read =
        || Ok(ServiceBackends { port: parse_port(name.trim(), text)?, share: parse_share(properties)? });
    Some(read())
}

/// Reads `NAMESPACE/NAME:PORT`.
fn parse_port(name: &str, text: &str) -> Result<ServicePort, TextError> {
    let wrong = || TextError::Service(text.to_owned());
    let (namespace, rest) = name.split_once('/').ok_or_else(wrong)?;
    let (service, port) = rest.split_once(':').ok_or_else(wrong)?;
    if ![namespace, service].into_iter().all(is_label) {
        return Err(wrong());
    }
    let port = match port.parse::<u16>() {
        Ok(0) => return Err(wrong()),
        Ok(number) => PortRef::Number(number),
        Err(_) if is_label(port) => PortRef::Name(port.into()),
        Err(_) => return Err(wrong()),
    };
    Ok(ServicePort { namespace: namespace.into(), service: service.into(), port })
}

/// What Kubernetes calls a label of DNS (RFC 1123): names of namespaces, services and ports are.
fn is_label(text: &str) -> bool {
    let is_inside = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.starts_with(is_inside)
        && text.ends_with(is_inside)
        && text.chars().all(|it| is_inside(it) || it == '-')
}

/// Writes a port of a service as it is read.
pub struct ServiceText<'a>(pub &'a ServicePort);

impl fmt::Display for ServiceText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServicePort { namespace, service, port } = self.0;
        write!(f, "{PREFIX}{namespace}/{service}:")?;
        match port {
            PortRef::Number(number) => write!(f, "{number}"),
            PortRef::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ServiceBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", ServiceText(&self.port), self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_written() {
        for text in [
            "service:shop/web:80",
            "service:shop/web:http,weight=3",
            "service:kube-system/kube-dns:dns-tcp,drain",
            "service:a/b:1,weight=0,drain",
        ] {
            assert_eq!(parse_service(text).unwrap().unwrap().to_string(), text);
        }
        assert_eq!(parse_service("10.0.0.1:80"), None);
    }

    #[test]
    fn what_is_no_service_is_refused_with_an_example() {
        for text in [
            "service:web:80",
            "service:shop/web",
            "service:shop/web:0",
            "service:Shop/web:80",
            "service:/web:80",
        ] {
            let said = parse_service(text).unwrap().unwrap_err().to_string();
            assert!(said.contains("service:shop/web:http"), "{text}: {said}");
        }
        let said = parse_service("service:shop/web:80,colour=red").unwrap().unwrap_err().to_string();
        assert!(said.contains("unknown property `colour=red`"), "{said}");
    }
}
