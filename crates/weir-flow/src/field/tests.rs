use std::{fs, path::Path};

use super::*;
use crate::{Identity, Unknown, format::samples};

#[test]
fn the_reference_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/fields.md");
    if std::env::var_os("WEIR_UPDATE_DOCS").is_some() {
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        fs::write(&page, reference()).unwrap();
    }
    let stored = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        stored == reference(),
        "docs/reference/fields.md is stale: run WEIR_UPDATE_DOCS=1 cargo test -p weir-flow"
    );
}

#[test]
fn names_are_unique_lower_case_and_dotted() {
    for (index, field) in FIELDS.iter().enumerate() {
        assert!(!FIELDS[..index].contains(field), "{} twice", field.name);
        assert!(!ALIASES.iter().any(|alias| alias.name == field.name), "{} is also a short name", field.name);
        assert!(field.name.contains('.'), "{}", field.name);
        let plain = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '.' || letter == '_'
        };
        assert!(field.name.chars().all(plain), "{}", field.name);
        assert!(field.doc.ends_with('.'), "{}", field.name);
    }
}

#[test]
fn every_short_name_stands_for_fields_of_one_kind() {
    for alias in ALIASES {
        let subject = Subject::by_name(alias.name).expect(alias.name);
        if let Subject::Either { source, destination, .. } = subject {
            assert_eq!(source.kind, destination.kind);
            assert_eq!(source.name.strip_prefix("source."), destination.name.strip_prefix("destination."));
        }
    }
}

#[test]
fn src_and_dst_stand_for_source_and_destination() {
    let name = |short| Subject::by_name(short).map(|subject| subject.name());
    assert_eq!(name("src.port"), Some("source.port"));
    assert_eq!(name("dst.process.pid"), Some("destination.process.pid"));
    assert_eq!(name("src"), Some("source.address"));
    assert_eq!(name("host"), Some("host"));
    assert_eq!(name("src."), None);
    assert_eq!(name("flow"), None);
}

#[test]
fn each_value_is_of_the_kind_that_the_table_says() {
    let mut record = samples::web();
    record.destination.process = Some(samples::process(1, "nginx"));
    for field in FIELDS {
        let value = field.value(&record);
        let fits = match (field.kind, &value) {
            (_, Value::Absent)
            | (Kind::Address, Value::Address(_))
            | (Kind::Port | Kind::Integer | Kind::Bytes, Value::Integer(_))
            | (Kind::Protocol, Value::Protocol(_))
            | (Kind::Duration, Value::Duration(_))
            | (Kind::Timestamp, Value::Timestamp(_))
            | (Kind::Flags, Value::Flags(_))
            | (Kind::Boolean, Value::Boolean(_)) => true,
            (Kind::Text, Value::Text(text)) => field.values.is_empty() || field.values.contains(&&**text),
            _ => false,
        };
        assert!(fits, "{} is {value:?}", field.name);
    }
}

#[test]
fn a_wrong_name_finds_its_neighbour() {
    let check = |wanted, expected| assert_eq!(nearest_name(wanted), expected, "{wanted}");
    check("source.adress", Some("source.address"));
    check("flow.byte", Some("flow.bytes"));
    check("sorce.port", Some("source.port"));
    check("bytes", Some("flow.bytes"));
    check("pid", Some("source.process.pid"));
    check("prot", Some("proto"));
    check("dts", Some("dst"));
    check("zzzzzzzz", None);
    check("", None);
}

#[test]
fn flags_read_back_what_they_write() {
    for bits in 0..512 {
        let flags = TcpFlags(bits);
        assert_eq!(TcpFlags::parse(&flags.to_string()), Ok(flags));
    }
    assert_eq!(TcpFlags::parse("ack|syn"), Ok(TcpFlags(0x12)));
    assert_eq!(TcpFlags::parse("SYN|ACKK"), Err("ACKK"));
    assert_eq!(TcpFlags::parse(""), Err(""));
}

#[test]
fn durations_are_written_in_seconds() {
    let check = |nanos, expected: &str| {
        assert_eq!(Value::Duration(std::time::Duration::from_nanos(nanos)).to_string(), expected);
    };
    check(0, "0");
    check(13_000_000, "0.013");
    check(62_500_000_000, "62.5");
    check(1, "0.000000001");
}

#[test]
fn any_moment_can_be_written() {
    assert_eq!(Value::Timestamp(samples::TICK).to_string(), "2024-11-21T23:33:50.000000000Z");
    assert_eq!(Value::Timestamp(crate::Wall(u64::MAX)).to_string(), "2554-07-21T23:34:33.709551615Z");
}

#[test]
fn who_is_at_an_end_has_names() {
    let mut record = samples::web();
    record.source.identity = samples::pod("shop", "web-1");
    record.destination.identity = Identity { unknown: Some(Unknown::NotYetSynced), ..Identity::default() };
    let check = |name: &str, expected: &str| {
        let value = Field::by_name(name).expect(name).value(&record).to_string();
        assert_eq!(value, expected, "{name}");
    };
    check("source.k8s.namespace.name", "shop");
    check("source.k8s.pod.name", "web-1");
    check("source.k8s.pod.labels", "app=web,tier=front");
    check("source.k8s.owner.kind", "Deployment");
    check("source.k8s.owner.name", "web");
    check("source.k8s.node.name", "node-1");
    check("source.k8s.confidence", "address");
    check("source.container.id", "0123456789ab");
    check("source.container.name", "nginx");
    check("source.k8s.unknown", "");
    check("destination.k8s.pod.name", "");
    check("destination.k8s.unknown", "not-yet-synced");
}

#[test]
fn every_reason_is_in_the_table_and_at_its_number() {
    let field = Field::by_name("source.k8s.unknown").unwrap();
    assert_eq!(field.values, Unknown::ALL.map(Unknown::as_str));
    for (number, reason) in Unknown::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
    }
}
