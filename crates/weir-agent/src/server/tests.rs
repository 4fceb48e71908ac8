use std::{collections::BTreeSet, env, fs, path::Path};

use axum::http::Request;

use super::*;

/// Routes that are not part of the described interface: a page for people, and the description itself.
const NOT_DESCRIBED: [&str; 2] = ["/", "/api/v1/openapi.json"];

/// The paths of `.route("…"` in the sources of the server.
fn routes_in(source: &str) -> BTreeSet<String> {
    let paths = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    paths.filter(|path| !NOT_DESCRIBED.contains(path)).map(str::to_owned).collect()
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let description = serde_json::to_value(openapi::description()).unwrap();
    let described: BTreeSet<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    let mut routes = routes_in(include_str!("../server.rs"));
    routes.extend(routes_in(include_str!("query.rs")));
    assert_eq!(described, routes);
    for (path, item) in description["paths"].as_object().unwrap() {
        let methods: Vec<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(methods, ["get"], "{path}");
    }
}

#[test]
fn the_committed_references_are_those_of_the_code() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let openapi = openapi::description().to_pretty_json().unwrap() + "\n";
    for (name, text) in [("metrics.md", reference()), ("openapi.json", openapi)] {
        let path = docs.join(name);
        if env::var_os("WEIR_UPDATE_DOCS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let is_same = fs::read_to_string(&path).is_ok_and(|committed| committed == text);
        assert!(is_same, "docs/reference/{name} is stale: run WEIR_UPDATE_DOCS=1 cargo test -p weir-agent");
    }
}

mod requests {
    use axum::body::Body;

    use super::{
        guard::{Guard, Refusal, Transport},
        *,
    };

    fn guard(transport: Transport, token: bool) -> Guard {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "a token of some length").unwrap();
        let source = token.then_some(crate::config::SecretSource::File(path));
        Guard {
            tokens: Arc::new(Tokens::open(source).unwrap()),
            names: ["weir.example".to_owned()].into(),
            transport,
            requests: Guard::requests(),
            refusals: Arc::default(),
        }
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_hosts_that_cannot_be_rebound_are_ours() {
        let guard = guard(Transport::Http, false);
        let check = |host: &str, expect: Option<Refusal>| {
            assert_eq!(guard.judge(&request("GET", "/", &[("host", host)])), expect, "{host}");
        };
        for host in [
            "localhost",
            "LOCALHOST:4780",
            "127.0.0.1:4780",
            "10.1.2.3",
            "[::1]:4780",
            "[fd00::1]",
            "weir.example:4780",
            "Weir.Example",
        ] {
            check(host, None);
        }
        for host in
            ["evil.example", "evil.example:4780", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            check(host, Some(Refusal::Host));
        }
        assert_eq!(guard.judge(&request("GET", "/", &[])), Some(Refusal::Host));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(guard.judge(&request("GET", "/", &two)), Some(Refusal::Host));
    }

    #[test]
    fn other_sites_and_other_methods_are_refused() {
        let guard = guard(Transport::Http, false);
        let host = ("host", "localhost:4780");
        let check = |extra: (&str, &str), expect: Option<Refusal>| {
            assert_eq!(guard.judge(&request("GET", "/metrics", &[host, extra])), expect, "{extra:?}");
        };
        check(("origin", "http://localhost:4780"), None);
        check(("origin", "https://localhost:4780"), Some(Refusal::Origin));
        check(("origin", "http://localhost:8080"), Some(Refusal::Origin));
        check(("origin", "null"), Some(Refusal::Origin));
        check(("sec-fetch-site", "cross-site"), Some(Refusal::Origin));
        check(("sec-fetch-site", "same-origin"), None);
        let link = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(guard.judge(&request("GET", "/", &link)), None);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
            assert_eq!(guard.judge(&request(method, "/", &[host])), Some(Refusal::Method), "{method}");
        }
    }

    #[test]
    fn with_a_token_only_the_probes_go_without() {
        let guard = guard(Transport::Https, true);
        let host = ("host", "weir.example");
        let right = ("authorization", "Bearer a token of some length");
        let wrong = ("authorization", "Bearer a token of some other");
        for path in ["/", "/metrics", "/api/v1/status", "/api/v1/live", "/nowhere"] {
            assert_eq!(guard.judge(&request("GET", path, &[host])), Some(Refusal::Token), "{path}");
            assert_eq!(guard.judge(&request("GET", path, &[host, wrong])), Some(Refusal::Token), "{path}");
            assert_eq!(guard.judge(&request("GET", path, &[host, right])), None, "{path}");
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(guard.judge(&request("GET", path, &[host])), None, "{path}");
        }
    }

    #[test]
    fn the_rights_of_a_unix_socket_are_enough() {
        let guard = guard(Transport::Unix, true);
        assert_eq!(guard.judge(&request("GET", "/metrics", &[])), None);
        assert_eq!(guard.judge(&request("POST", "/metrics", &[])), Some(Refusal::Method));
    }
}
