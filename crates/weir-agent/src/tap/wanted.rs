//! [`Wanted`]: the part of the filter language that the tap's kernel programs know: other ends and ports.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use weir_flow::filter::{Filter, Fit, Shape};

/// With whom, and on which ports. Empty lists mean anybody and any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Networks of the other end.
    pub networks: Vec<(IpAddr, u8)>,
    /// Ports of either end.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// Why a filter cannot be told to the kernel.
const NOT_KNOWN: &str = "a tap is filtered by `host` and `port` alone, joined by `and`, as in `host=10.0.0.0/8 and port in 80,8080`";

/// What the kernel is to look at. `Err` says what it cannot.
pub fn wanted(filter: &Filter) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    if let Some(shape) = filter.shape() {
        add(&shape, &mut wanted)?;
    }
    Ok(wanted)
}

fn add(shape: &Shape<'_>, wanted: &mut Wanted) -> Result<(), String> {
    match shape {
        Shape::All(parts) => parts.iter().try_for_each(|part| add(part, wanted)),
        // Either end: of addresses, ours is always one of this machine.
        Shape::Any(parts) => match parts.as_slice() {
            [Shape::Fits(one, fits), Shape::Fits(other, same)] if fits == same => {
                match (one.name, other.name) {
                    ("source.address", "destination.address") if wanted.networks.is_empty() => {
                        for fit in fits {
                            let Fit::Prefix(address, length) = fit else { return Err(NOT_KNOWN.to_owned()) };
                            wanted.networks.push((*address, *length));
                        }
                        Ok(())
                    }
                    ("source.port", "destination.port") if wanted.ports.is_empty() => {
                        for fit in fits {
                            let Fit::Between(first, last) = fit else { return Err(NOT_KNOWN.to_owned()) };
                            let port = |port: u64| u16::try_from(port).unwrap_or(u16::MAX);
                            wanted.ports.push(port(*first)..=port(*last));
                        }
                        Ok(())
                    }
                    _ => Err(NOT_KNOWN.to_owned()),
                }
            }
            _ => Err(NOT_KNOWN.to_owned()),
        },
        Shape::Not(_) | Shape::Fits(..) => Err(NOT_KNOWN.to_owned()),
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, length)) in self.networks.iter().enumerate() {
            write!(f, "{}{address}/{length}", if index == 0 { " with " } else { ", " })?;
        }
        for (index, ports) in self.ports.iter().enumerate() {
            f.write_str(if index == 0 { " on port " } else { ", " })?;
            if ports.start() == ports.end() {
                write!(f, "{}", ports.start())?;
            } else {
                write!(f, "{}-{}", ports.start(), ports.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wanted, String> {
        wanted(&text.parse().expect("it is a filter"))
    }

    #[test]
    fn other_ends_and_ports_are_told_to_the_kernel() {
        let cases = [
            ("", ""),
            ("port=80", " on port 80"),
            ("host=10.0.0.0/8 and port in 80,8080", " with 10.0.0.0/8 on port 80, 8080"),
            ("port in 1000-2000", " on port 1000-2000"),
            ("host=::1", " with ::1/128"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).map(|wanted| wanted.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_know_is_refused() {
        for text in
            ["src=10.0.0.1", "not port=80", "proto=tcp", "port=80 or host=10.0.0.1", "port=1 and port=2"]
        {
            assert_eq!(read(text), Err(NOT_KNOWN.to_owned()), "{text}");
        }
    }
}
