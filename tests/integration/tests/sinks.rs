//! Sinks with their real peers: every one passes the same checks.

use std::{collections::BTreeMap, thread};

use serde_json::Value as Json;
use weir_flow::field::{FIELDS, Field, Kind, Value};
use weir_integration::{
    Namespace, Neighbours, Veth,
    agent::Agent,
    delivery::{self, Peer, Stage, numbered, until},
    lines::Lines,
    postgres::Postgres,
    small_disk::SmallDisk,
    traffic::UdpFlow,
};

#[test]
fn json_every_field_arrives() {
    delivery::every_field_arrives(&mut Lines::start());
}

#[test]
fn json_a_hanging_peer_stops_nobody() {
    delivery::a_hanging_peer_stops_nobody(&mut Lines::start());
}

#[test]
fn json_the_end_loses_nothing() {
    delivery::the_end_loses_nothing(&mut Lines::start());
}

#[test]
fn json_a_killed_agent_loses_nothing() {
    delivery::a_killed_agent_loses_nothing(&mut Lines::start());
}

/// A database.
struct Database(Postgres);

impl Database {
    fn start() -> Option<Self> {
        Postgres::start().map(Self)
    }

    fn sink_with(&self, rest: &str) -> String {
        format!(
            "{{type: postgres, host: 127.0.0.1, port: {}, password: {{file: {}}}, retention: 3000d, \
             edge_retention: 3000d, batch: {{records: 500, time: 10ms}}{rest}}}",
            self.0.port(),
            self.password().display()
        )
    }

    fn password(&self) -> std::path::PathBuf {
        let path = self.0.directory().join("password");
        if !path.exists() {
            std::fs::write(&path, "secret\n").expect("there is room");
        }
        path
    }
}

/// A moment as text, cut to microseconds.
fn to_microseconds(text: &str) -> String {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    format!("{seconds}.{:0<6}", &fraction[..fraction.len().min(6)])
}

fn of_column(field: &Field, value: &Json) -> String {
    match field.kind {
        Kind::Timestamp => to_microseconds(value.as_str().unwrap_or_default().trim_end_matches("+00:00")),
        Kind::Integer | Kind::Bytes => value.as_i64().unwrap_or_default().cast_unsigned().to_string(),
        Kind::Duration => format!("{}", value.as_f64().unwrap_or_default()),
        _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

impl Peer for Database {
    fn sink(&self) -> String {
        self.sink_with("")
    }

    fn records(&self) -> Vec<BTreeMap<String, String>> {
        let lines = self.0.query("SET TimeZone = 'UTC'; SELECT row_to_json(f) FROM flow f");
        let record = |line: &str| {
            let Json::Object(columns) = serde_json::from_str(line).expect("it is JSON") else {
                panic!("{line}")
            };
            let fields = FIELDS.iter().filter_map(|field| {
                let value = columns.get(&field.name.replace('.', "_")).expect("each field has a column");
                (!value.is_null()).then(|| (field.name.to_owned(), of_column(field, value)))
            });
            fields.collect()
        };
        lines.lines().map(record).collect()
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn start_again(&mut self) {
        self.0.start_again();
    }

    fn freeze(&mut self) {
        self.0.freeze();
    }

    fn thaw(&mut self) {
        self.0.thaw();
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn rounded(&self, value: &Value<'_>) -> String {
        match value {
            Value::Timestamp(_) => to_microseconds(value.to_string().trim_end_matches('Z')),
            value => value.to_string(),
        }
    }
}

macro_rules! with_database {
    ($($name:ident: $check:path;)*) => {
        $(#[test]
        fn $name() {
            if let Some(mut database) = Database::start() {
                $check(&mut database);
            }
        })*
    };
}

with_database! {
    postgres_every_field_arrives: delivery::every_field_arrives;
    postgres_an_outage_loses_nothing: delivery::an_outage_loses_nothing;
    postgres_a_killed_agent_loses_nothing: delivery::a_killed_agent_loses_nothing;
    postgres_a_killed_peer_loses_nothing: delivery::a_killed_peer_loses_nothing;
    postgres_a_hanging_peer_stops_nobody: delivery::a_hanging_peer_stops_nobody;
    postgres_the_end_loses_nothing: delivery::the_end_loses_nothing;
}

#[test]
fn postgres_refusals_are_told_and_mended() {
    let Some(mut database) = Database::start() else { return };
    let password = database.password();
    let (right, wrong) = ("secret\n", "something else\n");
    delivery::a_refusal_is_told_and_mended(
        &mut database,
        "password authentication failed",
        |peer| {
            std::fs::write(&password, wrong).expect("there is room");
            peer.sink()
        },
        |_| std::fs::write(&password, right).expect("there is room"),
    );
    // Another database that is not there yet. Its rows are looked for where they should be.
    let name = "elsewhere";
    let sink = database.sink_with(&format!(", database: {name}"));
    let stage = Stage::new(&sink, 1 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 50));
    let trouble = delivery::until_trouble(&outlet);
    assert!(trouble.contains("database \"elsewhere\" does not exist"), "{trouble}");
    database.0.query("CREATE DATABASE elsewhere OWNER weir");
    until(&outlet, |pages| pages.total().delivered.records == 50);
    assert_eq!(database.0.try_query(name, "SELECT count(*) FROM flow").as_deref(), Some("50"));
}

#[test]
fn postgres_makes_again_what_somebody_dropped() {
    let Some(database) = Database::start() else { return };
    let stage = Stage::new(&database.sink(), 1 << 20);
    let outlet = stage.start();
    for (tick, statement) in [
        "SELECT 1",
        "DROP TABLE flow CASCADE",
        "DROP TABLE edge CASCADE",
        "ALTER TABLE flow DROP COLUMN flow_tcp_rtt",
        "DROP TABLE weir_batch, weir_schema",
        "DROP TABLE flow_20260101",
        "DROP VIEW weir_nodes",
    ]
    .into_iter()
    .enumerate()
    {
        database.0.query(statement);
        let tick = tick as u64;
        outlet.offer(&numbered(tick, 50));
        until(&outlet, |pages| pages.total().delivered.records == (tick + 1) * 50);
    }
    assert_eq!(outlet.account().total().lost().records, 0);
    let last = database.0.query("SELECT count(*) FROM flow WHERE source_socket_cookie > 6000");
    assert_eq!(last, "50");
}

#[test]
fn postgres_refuses_tables_of_a_newer_version_and_of_others() {
    let Some(database) = Database::start() else { return };
    let stage = Stage::new(&database.sink(), 1 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 50));
    until(&outlet, |pages| pages.total().delivered.records == 50);
    database.0.query(
        "UPDATE weir_schema SET version = 999; SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE application_name = 'weir'",
    );
    outlet.offer(&numbered(1, 50));
    let trouble = delivery::until_trouble_says(&outlet, "version 999");
    assert!(trouble.contains("upgrade the agent"), "{trouble}");
    database.0.query("UPDATE weir_schema SET version = 1");
    until(&outlet, |pages| pages.total().delivered.records == 100);

    database.0.query("CREATE SCHEMA others AUTHORIZATION weir; CREATE TABLE others.flow (a int)");
    let stage = Stage::new(&database.sink_with(", schema: others"), 1 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(2, 50));
    let trouble = delivery::until_trouble(&outlet);
    assert!(trouble.contains("a table flow that is not Weir's"), "{trouble}");
    database.0.query("DROP TABLE others.flow");
    until(&outlet, |pages| pages.total().delivered.records == 50);
}

#[test]
fn postgres_agents_that_start_at_once_share_one_database() {
    let Some(database) = Database::start() else { return };
    let stages: Vec<Stage> = (0..6)
        .map(|node| Stage::new(&database.sink_with(&format!(", node: node-{node}")), 1 << 20))
        .collect();
    let outlets: Vec<_> = stages.iter().map(Stage::start).collect();
    for tick in 0..3 {
        for outlet in &outlets {
            outlet.offer(&numbered(tick, 50));
        }
    }
    for outlet in &outlets {
        until(outlet, |pages| pages.total().delivered.records == 150);
        assert_eq!(outlet.account().total().lost().records, 0);
    }
    let counts = database.0.query("SELECT node, count(*) FROM flow GROUP BY node ORDER BY node");
    let expected: Vec<String> = (0..6).map(|node| format!("node-{node}|150")).collect();
    assert_eq!(counts, expected.join("\n"));
}

#[test]
fn postgres_sums_and_views_agree_with_the_flows() {
    let Some(database) = Database::start() else { return };
    let stage = Stage::new(&database.sink(), 1 << 20);
    let outlet = stage.start();
    for tick in 0..90 {
        outlet.offer(&numbered(tick, 20));
    }
    until(&outlet, |pages| pages.total().delivered.records == 90 * 20);
    let of_edges = database.0.query(
        "SELECT date_trunc('minute', time), sum(bytes), sum(packets), sum(records) FROM edge GROUP BY 1 ORDER BY 1",
    );
    let of_flows = database.0.query(
        "SELECT date_trunc('minute', time), sum(flow_bytes), sum(flow_packets), count(*) FROM flow WHERE NOT again \
         GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(of_edges, of_flows);
    assert_eq!(of_flows.lines().count(), 2);

    // Of the time of the sample, every end of an edge is a node, and names are unique.
    let span = "'2026-01-01', '2026-01-02'";
    let edges: u64 = database.0.query(&format!("SELECT count(*) FROM weir_edges({span})")).parse().unwrap();
    assert!(edges > 5, "{edges}");
    let without = database.0.query(&format!(
        "SELECT count(*) FROM weir_edges({span}) e WHERE source NOT IN (SELECT id FROM weir_nodes({span})) \
         OR target NOT IN (SELECT id FROM weir_nodes({span}))"
    ));
    assert_eq!(without, "0");
    for view in ["weir_nodes", "weir_edges"] {
        let twice = database.0.query(&format!("SELECT count(*) - count(DISTINCT id) FROM {view}({span})"));
        assert_eq!(twice, "0", "{view}");
        // It works without a span too; the sample is of another time.
        assert_eq!(database.0.query(&format!("SELECT count(*) FROM {view}")), "0");
    }
    let arcs = database.0.query(&format!(
        "SELECT count(*) FROM weir_nodes({span}) WHERE abs(arc__ok + arc__failed - 1) > 0.001 OR arc__ok IS NULL"
    ));
    assert_eq!(arcs, "0");
    // Whom nobody connects to has nothing that failed.
    let wrong = database.0.query(&format!(
        "SELECT count(*) FROM weir_nodes({span}) WHERE detail__failed_in = 0 AND arc__failed > 0"
    ));
    assert_eq!(wrong, "0");
}

#[test]
fn postgres_drops_partitions_by_age() {
    let Some(database) = Database::start() else { return };
    // The sample is of long ago.
    let sink = database.sink().replace("retention: 3000d", "retention: 1d");
    let stage = Stage::new(&sink, 1 << 20);
    let outlet = stage.start();
    outlet.offer(&numbered(0, 50));
    until(&outlet, |pages| pages.total().delivered.records == 50);
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let partitions =
        "SELECT relname FROM pg_class WHERE relname ~ '^(flow|edge|otel_span)_[0-9]+$' ORDER BY 1";
    while database.0.query(partitions).contains("_20260101") {
        assert!(std::time::Instant::now() < deadline, "{}", database.0.query(partitions));
    }
    // Today and tomorrow are there, of each table.
    assert_eq!(database.0.query(partitions).lines().count(), 6);
}

#[test]
fn postgres_tls_is_as_sslmode_says() {
    let Some(mut database) = Database::start() else { return };
    let signer = database.0.enable_tls("DNS:elsewhere.test");
    let attempt = |database: &Database, rest: &str| {
        let stage = Stage::new(&database.sink_with(rest), 1 << 20);
        let outlet = stage.start();
        let before = database.0.query("SELECT coalesce(max(source_socket_cookie), 0) FROM flow");
        let tick = before.parse::<u64>().unwrap_or_default() / 1_000 + 1;
        outlet.offer(&numbered(tick, 5));
        delivery::until_settled_or_trouble(&outlet, 5)
    };
    // Without TLS at the server.
    let first = Stage::new(&database.sink_with(", sslmode: prefer"), 1 << 20);
    let outlet = first.start();
    outlet.offer(&numbered(0, 5));
    until(&outlet, |pages| pages.total().delivered.records == 5);
    let trouble = attempt(&database, ", sslmode: require").expect("it must not get in");
    assert!(trouble.contains("TLS"), "{trouble}");

    database.0.kill();
    database.0.start_again();
    let ca = signer.display();
    for (rest, words) in [
        (", sslmode: disable".to_owned(), None),
        (", sslmode: allow".to_owned(), None),
        (", sslmode: prefer".to_owned(), None),
        (", sslmode: require".to_owned(), None),
        (format!(", sslmode: verify-ca, sslrootcert: {ca}"), None),
        (format!(", sslmode: verify-full, sslrootcert: {ca}"), Some("certificate not valid for name")),
    ] {
        let trouble = attempt(&database, &rest);
        match (words, trouble) {
            (None, None) => {}
            (Some(words), Some(trouble)) if trouble.contains(words) => {}
            (_, trouble) => panic!("{rest}: {trouble:?}"),
        }
    }
    // Another signer, and a certificate for where it is.
    let old = database.0.directory().join("old.crt");
    std::fs::copy(&signer, &old).expect("there is room");
    database.0.enable_tls("IP:127.0.0.1");
    database.0.kill();
    database.0.start_again();
    assert_eq!(
        attempt(&database, &format!(", sslmode: verify-full, sslrootcert: {}", signer.display())),
        None
    );
    let trouble = attempt(&database, &format!(", sslmode: verify-ca, sslrootcert: {}", old.display()));
    assert!(trouble.as_ref().is_some_and(|text| text.contains("certificate")), "{trouble:?}");
}

#[test]
fn postgres_a_full_disk_at_the_server_is_told_and_passes() {
    if !weir_integration::require_root() {
        return;
    }
    // A thread of its own, because it gets a mount namespace of its own.
    let test = thread::spawn(|| {
        let directory = tempfile::tempdir().expect("there is room");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        let place = directory.path().join("space");
        std::fs::create_dir(&place).expect("there is room");
        let disk = SmallDisk::mount(&place, 24 << 20);
        let rows = place.join("rows");
        std::fs::create_dir(&rows).expect("there is room");
        std::os::unix::fs::chown(&rows, Some(65_534), Some(65_534)).expect("root may");
        let Some(database) = Database::start() else { return };
        // Rows lie on the small disk, the log of the server does not.
        database.0.query(&format!("CREATE TABLESPACE small LOCATION '{}'", rows.display()));
        assert!(database.0.try_query("postgres", "ALTER DATABASE weir SET TABLESPACE small").is_some());
        let stage = Stage::new(&database.sink(), 64 << 20);
        let outlet = stage.start();
        outlet.offer(&numbered(0, 50));
        until(&outlet, |pages| pages.total().delivered.records == 50);
        disk.fill();
        let mut tick = 0;
        let trouble = loop {
            tick += 1;
            outlet.offer(&numbered(tick, 900));
            if let Some(trouble) = delivery::until_settled_or_trouble(&outlet, 50 + tick * 900) {
                break trouble;
            }
        };
        assert!(trouble.contains("No space left on device"), "{trouble}");
        disk.relieve();
        until(&outlet, |pages| pages.total().delivered.records == 50 + tick * 900);
        assert_eq!(outlet.account().total().lost().records, 0);
        let count = database.0.query("SELECT count(*), count(DISTINCT source_socket_cookie) FROM flow");
        assert_eq!(count, format!("{0}|{0}", 50 + tick * 900));
    });
    test.join().expect("it passes");
}

#[test]
fn a_full_disk_under_the_spool_is_told_and_passes() {
    if !weir_integration::require_root() {
        return;
    }
    let test = thread::spawn(|| {
        let mut lines = Lines::start();
        let stage = Stage::new(&lines.sink(), 64 << 20);
        std::fs::create_dir(stage.directory().join("spool")).expect("there is room");
        let disk = SmallDisk::mount(&stage.directory().join("spool"), 4 << 20);
        let outlet = stage.start();
        outlet.offer(&numbered(0, 50));
        until(&outlet, |pages| pages.total().delivered.records == 50);
        lines.kill();
        // On disk, and being brought in vain.
        let mut tick = 1;
        outlet.offer(&numbered(tick, 100));
        until(&outlet, |pages| pages.total().waiting().records == 0);
        delivery::until_trouble(&outlet);
        assert_eq!(outlet.account().total().spooled.records, 100);
        disk.fill();
        let trouble = loop {
            tick += 1;
            outlet.offer(&numbered(tick, 100));
            until(&outlet, |pages| {
                pages.total().waiting().records == 0
                    || outlet.state().spool.is_some_and(|spool| spool.trouble.is_some())
            });
            if let Some(trouble) = outlet.state().spool.and_then(|spool| spool.trouble) {
                break trouble;
            }
        };
        assert!(trouble.contains("No space left on device"), "{trouble}");
        assert!(outlet.account().total().waiting().records >= 100);
        disk.relieve();
        // What comes next is on disk again, and so is what had no room there.
        tick += 1;
        outlet.offer(&numbered(tick, 100));
        until(&outlet, |pages| pages.total().spooled.records == tick * 100);
        assert_eq!(outlet.state().spool.and_then(|spool| spool.trouble), None);
        lines.start_again();
        until(&outlet, |pages| pages.total().delivered.records == 50 + tick * 100);
        assert_eq!(outlet.account().total().lost().records, 0);
    });
    test.join().expect("it passes");
}

#[test]
fn the_example_for_postgresql_fills_tables_and_views() {
    if !weir_integration::require_root() {
        return;
    }
    let (left, right) = (Namespace::new(), Namespace::new());
    let wire = Veth::connect((&left, "left0"), (&right, "right0"), 7, Neighbours::Static);
    // In the namespace of the agent, where nobody else has the usual port.
    let Some(server) = left.run(|| Postgres::start_at(5432)) else { return };
    let example =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/postgres.yaml");
    let variables = [("PGPASSWORD", "secret")];
    let agent = Agent::spawn_with(&left, Some(&example), &["-i", "left0"], &variables);
    agent.status_until(|status| status["is_ready"] == true);
    let flow = UdpFlow::open(&wire.left, &wire.right, false);
    flow.send(30, 100);
    let packets = format!("SELECT sum(flow_packets) FROM flow WHERE source_port = {}", flow.source().port());
    agent.status_until(|_| server.try_query("weir", &packets).as_deref() == Some("30"));
    let edges = server.query("SELECT target, detail__ports FROM weir_edges");
    assert!(edges.contains("address/10.99.7.2"), "{edges}");
    // What waits at the end gets there too.
    flow.send(5, 100);
    let end = agent.end();
    assert!(end.contains("accounted 100.00 %"), "{end}");
    assert_eq!(server.query(&packets), "35");
}
