//! The past out of a PostgreSQL database: the same answers as from the files of an agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use weir_agent::{
    outlet::{Consumer as _, Parcel, ParcelId, Patience},
    sinks::{
        SinkPlan,
        postgres::{Plan, PostgresWriter},
    },
    store::{
        DatabaseUrl, EdgeQuery, Edges, EmbeddedStore, FlowQuery, Flows, HintQuery, Hints, Limits,
        PostgresStore, Rows, Series, SeriesQuery, Store, StoreConfig, StoreError,
        conformance::{self, Times, all, append},
    },
};
use weir_flow::{
    Record, Role, Tick,
    field::{FIELDS, Field, Kind, Value},
    filter::Filter,
    group::Sums,
};
use weir_integration::{
    delivery::{batch_of, sink_of},
    postgres::Postgres,
};

/// What a sink writes, and a store reads.
struct Written {
    writer: Mutex<PostgresWriter>,
    parcels: AtomicU64,
    store: PostgresStore,
}

impl Written {
    /// In a schema of its own.
    fn new(server: &Postgres, schema: &str) -> Self {
        let mut writer = PostgresWriter::new(&plan(server, schema)).expect("there are threads");
        // The tables are there once something was written.
        write(&mut writer, 0, &[], Tick { wall: conformance::BEGIN, ..Tick::default() });
        let url = DatabaseUrl::parse(&url(server, schema)).expect("it is one");
        let store = PostgresStore::open(&url).expect("the tables are there");
        Self { writer: Mutex::new(writer), parcels: AtomicU64::new(1), store }
    }
}

impl Store for Written {
    fn append(&self, records: &[Record], tick: &Tick) -> Result<(), StoreError> {
        let number = self.parcels.fetch_add(1, Ordering::Relaxed);
        write(&mut self.writer.lock().expect("nobody panics here"), number, records, *tick);
        Ok(())
    }

    fn edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        self.store.edges(query)
    }

    fn series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        self.store.series(query)
    }

    fn flows(&self, query: &FlowQuery) -> Result<Flows, StoreError> {
        self.store.flows(query)
    }

    fn hints(&self, query: &HintQuery) -> Result<Hints, StoreError> {
        self.store.hints(query)
    }
}

fn write(writer: &mut PostgresWriter, number: u64, records: &[Record], tick: Tick) {
    let batch = batch_of(records.to_vec(), tick);
    let parcels = [Parcel { id: ParcelId(u128::from(number)), batch }];
    let receipt = writer.write(&parcels, &Patience::default()).expect("the server takes it");
    assert_eq!(receipt.refused, None);
}

fn plan(server: &Postgres, schema: &str) -> Plan {
    let directory = tempfile::tempdir().expect("there is room");
    let (file, password) = (directory.path().join("weir.yaml"), server.directory().join("password"));
    std::fs::write(&password, "secret\n").expect("there is room");
    let text = format!(
        "sinks: [{{type: postgres, host: 127.0.0.1, port: {}, schema: {schema}, node: here, \
         password: {{file: {}}}, retention: 3000d, edge_retention: 3000d, spool: {{enabled: false}}}}]\n",
        server.port(),
        password.display()
    );
    std::fs::write(&file, text).expect("there is room");
    let SinkPlan::Postgres(plan) = sink_of(&file).plan else { panic!("it is one for PostgreSQL") };
    plan
}

fn url(server: &Postgres, schema: &str) -> String {
    format!("postgres://weir:secret@127.0.0.1:{}/weir?schema={schema}", server.port())
}

#[test]
fn a_database_conforms_as_any_store_does() {
    let Some(server) = Postgres::start() else { return };
    let count = AtomicU32::new(0);
    conformance::check(Times::Microseconds, &|| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Box::new(Written::new(&server, &format!("s{number}")))
    });
}

/// Embedded and written, of the same records.
fn both(server: &Postgres, directory: &TempDir) -> (EmbeddedStore, Written, Vec<Record>) {
    let ticks = Times::Microseconds.ticks(25);
    let embedded = EmbeddedStore::open(directory.path(), StoreConfig::default()).expect("it opens");
    let written = Written::new(server, "public");
    append(&embedded, &ticks);
    append(&written, &ticks);
    (embedded, written, ticks.into_iter().flat_map(|(_, records)| records).collect())
}

/// Groups as text, whatever their order.
fn groups(
    store: &dyn Store,
    filter: &Filter,
    group_by: &[&'static Field],
) -> BTreeMap<(Vec<String>, Role), Sums> {
    let limits = Limits { rows: 50_000, ..Limits::default() };
    let query = FlowQuery { range: all(), filter: filter.clone(), group_by: group_by.to_vec(), limits };
    let Rows::Groups(groups) = store.flows(&query).expect("an answer").rows else {
        panic!("groups were asked for")
    };
    let text = |values: &[Value<'_>]| values.iter().map(ToString::to_string).collect();
    groups.iter().map(|group| ((text(&group.values), group.role), group.sums)).collect()
}

/// Filters of every field, with values that are there and some that are not.
fn filters(records: &[Record]) -> Vec<Filter> {
    let mut texts = Vec::new();
    for field in FIELDS.iter().filter(|field| field.filterable) {
        let values: BTreeSet<String> = records
            .iter()
            .map(|record| field.value(record))
            .filter(|value| !value.is_absent())
            .map(|value| value.to_string())
            .collect();
        let name = field.name;
        if let Some(value) = values.iter().nth(values.len() / 2) {
            let value = match field.kind {
                Kind::Text => format!("\"{value}\""),
                Kind::Duration => format!("{value}s"),
                _ => value.clone(),
            };
            for operator in ["=", "!=", ">="] {
                texts.push(format!("{name}{operator}{value}"));
            }
            texts.push(format!("not ({name}={value} or proto=udp)"));
            texts.push(format!("{name}={value} and not dport=443"));
        }
        if let (Kind::Text | Kind::Flags, Some(value)) = (field.kind, values.first()) {
            let part: String = value.chars().take(2).collect();
            let like = if field.kind == Kind::Flags {
                value.clone()
            } else {
                format!("\"{}\"", part.to_uppercase())
            };
            texts.extend([
                format!("{name}~{like}"),
                format!("{name}!~{like}"),
                format!("{name}~\"{part}*\""),
            ]);
        }
    }
    texts.extend(
        [
            "host=10.0.0.0/24 or host=fd00::/8",
            "src!=10.0.0.0/8",
            "proto in tcp,icmp",
            "proto not in 0-16",
            "port!=53",
            "flow.bytes<0",
            "flow.tcp.flags~SYN",
            "source.socket.cookie>9223372036854775807",
            "not flow.duration>1s",
            "iface~\"x'; DROP TABLE flow; --\"",
            "pod~\"*_*%\" or pod~\"\\\\\"",
        ]
        .map(str::to_owned),
    );
    // Not every operator goes with every field.
    texts.iter().filter_map(|text| Filter::parse(text).ok()).collect()
}

#[test]
fn filters_of_every_field_select_the_same_as_in_files() {
    let Some(server) = Postgres::start() else { return };
    let directory = tempfile::tempdir().expect("there is room");
    let (embedded, written, records) = both(&server, &directory);
    let filters = filters(&records);
    assert!(filters.len() > 200, "{}", filters.len());
    let by = [Field::by_name("network.interface.name").expect("there is such a field")];
    let mut partial = 0;
    for filter in &filters {
        let expected = groups(&embedded, filter, &by);
        partial += usize::from(!expected.is_empty());
        assert_eq!(groups(&written, filter, &by), expected, "{filter}");
    }
    assert!(partial > 100, "{partial}");
    let every = Filter::default();
    for field in FIELDS.iter().filter(|field| field.groupable) {
        assert_eq!(groups(&written, &every, &[field]), groups(&embedded, &every, &[field]), "{}", field.name);
    }
}

fn weir(arguments: &[&str], password: Option<&str>) -> Output {
    let test = std::env::current_exe().expect("a test is a file");
    let weir: PathBuf = test.ancestors().nth(2).expect("it lies in target/debug/deps").join("weir");
    let mut command = Command::new(weir);
    command.arg("flows").args(arguments).env_remove("PGPASSWORD");
    command.envs(password.map(|password| ("PGPASSWORD", password)));
    command.output().expect("it is built before the tests")
}

/// The lines of standard output, in the order of the alphabet, and standard error.
fn shown(place: &str, arguments: &[&str]) -> (Vec<String>, String) {
    let time = ["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z", "--limit", "50000"];
    let output = weir(&[["--store", place].as_slice(), &time, arguments].concat(), None);
    let [out, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it is text"));
    assert!(output.status.success(), "{said}");
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    (lines, said)
}

#[test]
fn the_command_shows_the_same_of_a_database_as_of_files() {
    let Some(server) = Postgres::start() else { return };
    let directory = tempfile::tempdir().expect("there is room");
    let (embedded, written, _) = both(&server, &directory);
    drop((embedded, written));
    let files = directory.path().to_str().expect("the path is text");
    let database = url(&server, "public");
    for arguments in [
        ["-o", "json"].as_slice(),
        &["-o", "csv", "proto=tcp and flow.duration>100ms"],
        &["-o", "json", "--group-by", "source.address,destination.port"],
        &["-o", "csv", "--group-by", "source.k8s.namespace.name", "not host=10.0.0.0/8"],
        &["--group-by", "network.transport"],
        &["-o", "json", "port=1"],
    ] {
        let of_files = shown(files, arguments);
        assert_eq!(shown(&database, arguments), of_files, "{arguments:?}");
    }
    assert!(shown(files, &["-o", "json"]).0.len() > 100);
    // Of one node alone.
    let of = |node: &str| shown(&format!("{database}&node={node}"), &["-o", "json"]).0;
    assert_eq!(of("here"), shown(&database, &["-o", "json"]).0);
    assert_eq!(of("there"), Vec::<String>::new());
    // What a limit leaves out, and what was never kept, are said in the same words.
    for arguments in
        [["--limit", "2", "--group-by", "source.address"].as_slice(), &["--since", "2025-12-31T00:00:00Z"]]
    {
        let said = |place| {
            let until = ["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z"];
            let until = if arguments[0] == "--since" { &until[2..] } else { &until[..] };
            let output = weir(&[["--store", place].as_slice(), until, arguments].concat(), None);
            String::from_utf8(output.stderr).expect("it is text")
        };
        assert_eq!(said(&database), said(files), "{arguments:?}");
        assert!(!said(files).is_empty());
    }
}

#[test]
fn what_is_wrong_is_said_and_no_password_shown() {
    let Some(mut server) = Postgres::start() else { return };
    let port = server.port();
    let complaint = |place: &str, password: Option<&str>, code: i32| {
        let output = weir(&["--store", place], password);
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("secret"), "{said}");
        said
    };
    for (rest, words) in [
        ("db:port/weir", "no URL of a database"),
        ("a,b/weir", "one host"),
        ("db/weir?sslmode=perhaps", "verify-full"),
        ("db/weir?sslmode=verify-full", "sslrootcert"),
        ("db/weir?keepalives=1", "keepalives"),
    ] {
        let said = complaint(&format!("postgres://weir:hunter2@{rest}"), None, 2);
        assert!(said.contains(words), "{said}");
    }
    let place = format!("postgres://weir@127.0.0.1:{port}/weir");
    let said = complaint(&place, Some("hunter2"), 1);
    assert!(said.contains("password authentication failed"), "{said}");
    let said = complaint(&place, Some("secret"), 1);
    assert!(said.contains("has no table of flows"), "{said}");
    let said = complaint(&format!("{place}?sslmode=require"), Some("secret"), 1);
    assert!(said.contains("TLS"), "{said}");
    let said = complaint("postgres://weir@127.0.0.1:1/weir", Some("secret"), 1);
    assert!(said.contains("cannot connect to 127.0.0.1:1"), "{said}");

    drop(Written::new(&server, "public"));
    let signer = server.enable_tls("DNS:elsewhere.test");
    server.kill();
    server.start_again();
    for (mode, code) in [("require", 0), ("verify-ca", 0), ("verify-full", 1)] {
        let place = format!("{place}?sslmode={mode}&sslrootcert={}", signer.display());
        complaint(&place, Some("secret"), code);
    }
    server.query("UPDATE weir_schema SET version = 999");
    let said = complaint(&place, Some("secret"), 1);
    assert!(said.contains("version 999"), "{said}");
    // Nobody makes tables by reading.
    server.query("DROP TABLE flow CASCADE; UPDATE weir_schema SET version = 1");
    let said = complaint(&place, Some("secret"), 1);
    assert!(said.contains("has no table of flows"), "{said}");
    assert_eq!(server.query("SELECT count(*) FROM pg_class WHERE relname = 'flow'"), "0");
}
