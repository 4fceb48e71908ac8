//! [`Dns`]: what the DNS messages of a flow said.

use std::{borrow::Cow, sync::Arc, time::Duration};

/// What the DNS messages of a flow said, where they were read. Counters are since its previous record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The last question of the flow.
    pub question: Option<Question>,
    /// What the last response of the flow was.
    pub response_code: Option<ResponseCode>,
    /// The longest time from a query to its response, of the responses since the previous record; where there were none,
    /// of those before.
    pub lookup_duration: Option<Duration>,
    /// Queries.
    pub queries: u32,
    /// Responses to them.
    pub responses: u32,
    /// Responses with another code than "no error".
    pub failures: u32,
    /// Queries that got no response in time.
    pub unanswered: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name, in lower case and without a dot at the end.
    pub name: Arc<str>,
    /// Type of the records that are wanted.
    pub record_type: RecordType,
}

/// Type of a record, by its number (IANA "Resource Record (RR) TYPEs").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

/// Outcome of a query, by its number (IANA "DNS RCODEs"): 0 to 15, upper bits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponseCode(u8);

/// Types that people ask for. Others go by number.
const RECORD_TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

impl RecordType {
    /// The mnemonic, such as `AAAA`; `TYPE1234` for those that have none here (RFC 3597 5).
    pub fn name(self) -> Cow<'static, str> {
        match RECORD_TYPES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => Cow::Borrowed(name),
            None => Cow::Owned(format!("TYPE{}", self.0)),
        }
    }

    /// The type with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let known = RECORD_TYPES.iter().find(|(_, candidate)| *candidate == name);
        known.map(|(number, _)| *number).or_else(|| name.strip_prefix("TYPE")?.parse().ok()).map(Self)
    }
}

impl ResponseCode {
    /// Every code.
    pub const ALL: [Self; 16] = {
        let mut all = [Self(0); 16];
        let mut code = 0;
        while code < 16 {
            all[code as usize] = Self(code);
            code += 1;
        }
        all
    };

    /// Every name, in the order of the codes.
    pub const NAMES: &[&str] = &[
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
        "RCODE12",
        "RCODE13",
        "RCODE14",
        "RCODE15",
    ];

    /// The code with this number.
    pub const fn new(number: u8) -> Self {
        Self(number & 0xf)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name, such as `NXDOMAIN`; `RCODE12` for those that have none.
    pub fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.0)]
    }

    /// Whether the query failed.
    pub const fn is_failure(self) -> bool {
        self.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_every_type_has_a_name() {
        assert_eq!(ResponseCode::ALL.map(ResponseCode::name), ResponseCode::NAMES);
        assert_eq!(ResponseCode::new(0x13), ResponseCode::ALL[3]);
        for number in 0..=u16::MAX {
            let name = RecordType(number).name();
            assert_eq!(RecordType::by_name(&name), Some(RecordType(number)), "{name}");
        }
        assert_eq!(RecordType(65_280).name(), "TYPE65280");
        assert_eq!(RecordType::by_name("TYPE65536"), None);
        assert_eq!(RecordType::by_name("a"), None);
    }
}
