//! Real clients and servers talk through a relay, and the calls are what they did.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

use weir_integration::{
    peers::Peer,
    postgres::Postgres,
    relay::{Relay, Server, Talk},
    require_tool,
};
use weir_l7::{Call, Protocol, Settings, call::Detail};

/// A word that must be in no output.
const CANARY: &str = "canary-in-a-mine";

fn run(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    child.stdin.take().expect("it is a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{command:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything was seen, positions are right, and no secret is left.
fn check(talks: &[Talk], protocol: Protocol) {
    for talk in talks {
        for (raw, shown) in talk.raw.iter().zip(&talk.shown) {
            assert_eq!(raw.len(), shown.len());
            assert!(raw.iter().zip(shown).all(|(raw, shown)| raw == shown || *shown == b'*'));
            assert!(!String::from_utf8_lossy(shown).contains(CANARY), "{}", String::from_utf8_lossy(shown));
        }
        assert!(!format!("{:?}", talk.calls).contains(CANARY), "{:?}", talk.calls);
        assert!(
            talk.calls.iter().all(|call| call.protocol() == protocol && call.is_complete()),
            "{:?}",
            talk.calls
        );
    }
    // It was there.
    let all: Vec<u8> = talks.iter().flat_map(|talk| talk.raw.concat()).collect();
    assert!(protocol == Protocol::Postgresql || String::from_utf8_lossy(&all).contains(CANARY));
}

fn all_calls(talks: &[Talk]) -> Vec<&Call> {
    talks.iter().flat_map(|talk| &talk.calls).collect()
}

#[test]
fn what_curl_asked_of_nginx_are_the_calls() {
    let lines = "location /up/ { dav_methods PUT DELETE; client_max_body_size 100m; }\n\
         location /text { default_type text/plain; return 200 \"some text\\n\"; }\n\
         location /away { return 302 \"http://me:canary-in-a-mine@elsewhere/?token=canary-in-a-mine\"; }\n\
         location /zipped { gzip on; gzip_min_length 1; gzip_types *; }";
    let Some(nginx) = Peer::nginx(lines) else { return };
    if !require_tool("curl") {
        return;
    }
    let file = |name: &str, bytes: usize| {
        let path = nginx.directory().join(name);
        std::fs::write(&path, "0123456789abcdef".repeat(bytes.div_ceil(16))).expect("there is room");
        path.display().to_string()
    };
    let big = file("big", 3_000_000);
    file("zipped", 100_000);
    std::fs::create_dir(nginx.directory().join("up")).expect("there is room");
    let relay = Relay::start(Server::Unix(nginx.socket()), Settings::default());
    let base = format!("http://{}", relay.address());
    // Method, path, options; each invocation is one connection.
    let header = format!("Authorization: Bearer {CANARY}");
    let cookie = format!("id={CANARY}");
    let query = format!("/text?a=b&api_key={CANARY}");
    let form = format!("user=me&password={CANARY}");
    let invocations: Vec<Vec<(&str, &str, Vec<&str>)>> = vec![
        vec![
            ("GET", "/text", vec![]),
            ("GET", "/big", vec!["-H", &header]),
            ("GET", "/missing", vec!["-b", &cookie]),
            ("HEAD", "/big", vec!["-I"]),
            ("GET", "/zipped", vec!["--compressed"]),
            ("GET", "/away", vec![]),
            ("GET", &query, vec![]),
        ],
        vec![
            // With Expect: 100-continue, and by chunks.
            ("PUT", "/up/a", vec!["-T", &big, "-H", "Expect: 100-continue"]),
            ("PUT", "/up/b", vec!["-T", &big, "-H", "Transfer-Encoding: chunked"]),
            ("DELETE", "/up/a", vec!["-X", "DELETE"]),
            ("POST", "/text", vec!["-d", &form]),
        ],
        vec![("GET", "/text", vec!["--http1.0"])],
    ];
    let mut printed = String::new();
    let mut expected = Vec::new();
    for invocation in &invocations {
        let mut curl = Command::new("curl");
        for (index, (method, path, options)) in invocation.iter().enumerate() {
            if index > 0 {
                curl.arg("--next");
            }
            curl.args([
                "-s",
                "-S",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{size_upload} %{size_download}\n",
            ]);
            curl.args(options).arg(format!("{base}{path}"));
            expected.push(format!("{method} {}", path.replace(CANARY, "****************")));
        }
        printed.push_str(&run(&mut curl, ""));
    }
    let talks = relay.finish();
    check(&talks, Protocol::Http);
    assert_eq!(talks.len(), invocations.len());
    let calls = all_calls(&talks);
    let shown: Vec<String> =
        calls.iter().map(|call| format!("{} {}", call.operation(), call.target())).collect();
    assert_eq!(shown, expected);
    for (call, line) in calls.iter().zip(printed.lines()) {
        let Detail::Http(http) = &call.detail else { panic!("{call:?}") };
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let status = u64::from(http.status.expect("there is an answer"));
        assert_eq!(status, numbers[0], "{call:?}");
        // curl counts the framing of chunks as well.
        let sent = if http.target == "/up/b" { 3_000_000 } else { numbers[1] };
        assert_eq!(call.request.body_bytes, sent, "{call:?}");
        if http.target != "/zipped" {
            assert_eq!(call.response.body_bytes, numbers[2], "{call:?}");
        }
        assert!(call.latency().expect("both were seen") <= call.duration());
    }
    for (way, talk) in [(1, 0), (0, 0)] {
        let bytes: u64 =
            talks[talk].calls.iter().map(|call| [call.response.bytes, call.request.bytes][way]).sum();
        assert_eq!(bytes, talks[talk].raw[way].len() as u64, "every byte is of some message");
    }
}

fn psql(address: SocketAddr, options: &[&str], input: &str) -> String {
    let mut psql = Command::new("psql");
    psql.env("PGPASSWORD", "secret").args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    psql.args(["-U", "weir", "-d", "weir", "-XAtq"]).args(options);
    run(&mut psql, input)
}

/// Operation, rows, affected rows, code.
fn statements(calls: &[&Call]) -> Vec<String> {
    let line = |call: &&Call| {
        let Detail::Postgresql(detail) = &call.detail else { panic!("{call:?}") };
        let affected = detail.affected_rows.map_or("-".to_owned(), |rows| rows.to_string());
        let status = call.status().expect("there is an answer");
        format!("{} [{}] {} {affected} {status}", detail.operation, detail.statement, detail.rows)
    };
    calls.iter().map(line).collect()
}

#[test]
fn what_psql_asked_of_postgresql_are_the_calls() {
    let Some(postgres) = Postgres::start() else { return };
    let server: SocketAddr = ([127, 0, 0, 1], postgres.port()).into();
    let relay = Relay::start(Server::Tcp(server), Settings::default());
    let script = format!(
        "CREATE TABLE t (n int, word text);\n\
         INSERT INTO t SELECT n, 'word' FROM generate_series(1, 1000) n;\n\
         SELECT n FROM t ORDER BY n;\n\
         SELEC 1;\n\
         SELECT 1/0;\n\
         UPDATE t SET word = 'other' WHERE n <= 10;\n\
         COPY t FROM STDIN;\n1\tone\n2\ttwo\n\\.\n\
         COPY (SELECT n FROM t LIMIT 5) TO STDOUT;\n\
         ALTER ROLE weir PASSWORD '{CANARY}';\n\
         ALTER ROLE weir PASSWORD 'secret';\n\
         DELETE FROM t;\n"
    );
    let printed = psql(relay.address(), &[], &script);
    let several = psql(relay.address(), &["-c", "SELECT 1; SELECT 2"], "");
    assert_eq!((printed.lines().count(), several.lines().count()), (1005, 2), "{printed}");
    let talks = relay.finish();
    check(&talks, Protocol::Postgresql);
    let expected = [
        "CONNECT [] 0 - OK",
        "CREATE TABLE [CREATE TABLE t (n int, word text);] 0 - OK",
        "INSERT [INSERT INTO t SELECT n, 'word' FROM generate_series(1, 1000) n;] 0 1000 OK",
        "SELECT [SELECT n FROM t ORDER BY n;] 1000 1000 OK",
        "SELEC [SELEC 1;] 0 - 42601",
        "SELECT [SELECT 1/0;] 0 - 22012",
        "UPDATE [UPDATE t SET word = 'other' WHERE n <= 10;] 0 10 OK",
        "COPY [COPY t FROM STDIN;] 0 2 OK",
        "COPY [COPY (SELECT n FROM t LIMIT 5) TO STDOUT;] 0 5 OK",
        "ALTER ROLE [ALTER ROLE weir PASSWORD '****************';] 0 - OK",
        "ALTER ROLE [ALTER ROLE weir PASSWORD '******';] 0 - OK",
        "DELETE [DELETE FROM t;] 0 1002 OK",
        "CONNECT [] 0 - OK",
        "SELECT [SELECT 1; SELECT 2] 2 2 OK",
    ];
    assert_eq!(statements(&all_calls(&talks)), expected);
    let Detail::Postgresql(detail) = &talks[0].calls[3].detail else { panic!("{:?}", talks[0].calls) };
    assert_eq!((detail.user.as_deref(), detail.database.as_deref()), (Some("weir"), Some("weir")));
}

#[test]
fn what_pgbench_prepared_and_executed_are_the_calls() {
    let Some(postgres) = Postgres::start() else { return };
    let server: SocketAddr = ([127, 0, 0, 1], postgres.port()).into();
    let pgbench = "/usr/lib/postgresql/15/bin/pgbench";
    for (mode, is_pipelined) in [("extended", false), ("prepared", false), ("prepared", true)] {
        let relay = Relay::start(Server::Tcp(server), Settings::default());
        let file = postgres.directory().join("script");
        let body = "SELECT 1;\nSELECT n FROM generate_series(1, 3) n;\n";
        let body =
            if is_pipelined { format!("\\startpipeline\n{body}\\endpipeline\n") } else { body.to_owned() };
        std::fs::write(&file, body).expect("there is room");
        let mut command = Command::new(pgbench);
        command.env("PGPASSWORD", "secret").args([
            "-h",
            "127.0.0.1",
            "-p",
            &relay.address().port().to_string(),
        ]);
        command.args(["-U", "weir", "-n", "-t", "20", "-M", mode, "-f"]).arg(&file).arg("weir");
        assert!(run(&mut command, "").contains("20/20"), "{mode}");
        let talks = relay.finish();
        check(&talks, Protocol::Postgresql);
        let shown = statements(&all_calls(&talks));
        let count = |line: &str| shown.iter().filter(|shown| shown.as_str() == line).count();
        assert_eq!(count("SELECT [SELECT 1;] 1 1 OK"), 20, "{mode} {shown:?}");
        assert_eq!(count("SELECT [SELECT n FROM generate_series(1, 3) n;] 3 3 OK"), 20, "{mode} {shown:?}");
    }
}

#[test]
fn what_redis_cli_asked_of_redis_are_the_calls() {
    let Some(redis) = Peer::redis(CANARY) else { return };
    if !require_tool("redis-cli") {
        return;
    }
    let relay = Relay::start(Server::Unix(redis.socket()), Settings::default());
    let cli = |options: &[&str], input: &str| {
        let mut cli = Command::new("redis-cli");
        cli.args([
            "-h",
            "127.0.0.1",
            "-p",
            &relay.address().port().to_string(),
            "-a",
            CANARY,
            "--no-auth-warning",
        ]);
        run(cli.args(options), input)
    };
    let commands = format!(
        "SET key value\nGET key\nLPUSH list 1 2 3\nLRANGE list 0 -1\nGET list\nMULTI\nINCR n\nINCR n\nEXEC\n\
         SELECT 2\nGET key\nCONFIG SET masterauth {CANARY}\nCONFIG GET masterauth\nNOSUCH\n"
    );
    for options in [&[][..], &["-3"]] {
        cli(options, &commands);
    }
    let big = "x".repeat(1_000_000);
    cli(&["-x", "SET", "big"], &big);
    assert_eq!(cli(&["STRLEN", "big"], "").trim(), "1000000");
    let talks = relay.finish();
    check(&talks, Protocol::Redis);
    let line = |call: &Call| {
        let Detail::Redis(redis) = &call.detail else { panic!("{call:?}") };
        let database = redis.database.map_or("-".to_owned(), |number| number.to_string());
        format!(
            "{} {} {} {database}",
            redis.command,
            call.status().expect("there is an answer"),
            redis.elements
        )
    };
    // Which commands there are it asks by itself, by version.
    let is_ours = |line: &String| !line.starts_with("COMMAND DOCS");
    let lines = |talk: &Talk| talk.calls.iter().map(line).filter(is_ours).collect();
    let lines: Vec<Vec<String>> = talks.iter().map(lines).collect();
    let common = [
        "SET OK 1 -",
        "GET OK 1 -",
        "LPUSH OK 1 -",
        "LRANGE OK 3 -",
        "GET WRONGTYPE 0 -",
        "MULTI OK 1 -",
        "INCR OK 1 -",
        "INCR OK 1 -",
        "EXEC OK 2 -",
        "SELECT OK 1 2",
        "GET OK 0 2",
        "CONFIG SET OK 1 2",
    ];
    let of_version = |first: &[&'static str], pairs: &'static str, elements: &'static str| {
        let mut lines: Vec<&str> = first.to_vec();
        lines.extend(common);
        lines.extend([pairs, "NOSUCH ERR 0 2"]);
        lines.iter().map(|line| line.replace("LRANGE OK 3", elements)).collect::<Vec<_>>()
    };
    assert_eq!(lines[0], of_version(&["AUTH OK 1 -"], "CONFIG GET OK 2 2", "LRANGE OK 3"));
    // The list has three more by then; the configuration comes as a map.
    assert_eq!(lines[1], of_version(&["AUTH OK 1 -", "HELLO OK 7 -"], "CONFIG GET OK 1 2", "LRANGE OK 6"));
    assert_eq!(lines[2], ["AUTH OK 1 -", "SET OK 1 -"]);
    assert_eq!(lines[3], ["AUTH OK 1 -", "STRLEN OK 1 -"]);
    assert!(talks[2].calls[1].request.bytes > 1_000_000);
}
