use std::{fs, path::Path};

use serde_json::json;

use super::*;

/// The problems of a file, one line each; nothing if there are none.
fn problems_of(yaml: &str) -> String {
    let mut tree = parse_yaml(yaml).unwrap();
    match Config::of_tree(&mut tree, std::iter::empty(), &[]) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn an_empty_file_works() {
    for yaml in ["", "---\n", "# nothing\n", "sinks: []\n", "server: {}\n"] {
        assert_eq!(problems_of(yaml), "", "{yaml:?}");
    }
    Config::load(&Sources { file: Some("/dev/null".into()), options: Vec::new() }).unwrap();
}

#[test]
fn every_problem_is_reported_with_its_path() {
    let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/config");
    let problems = problems_of(&fs::read_to_string(bad.join("bad.yaml")).unwrap());
    let expected = bad.join("bad.expected");
    if env::var_os("WEIR_UPDATE_DOCS").is_some() {
        fs::write(&expected, problems.clone() + "\n").unwrap();
    }
    assert_eq!(problems + "\n", fs::read_to_string(&expected).unwrap());
}

#[test]
fn elements_keep_their_number_when_others_are_cut_out() {
    let yaml = "sinks:\n- type: jsno\n- {type: json, filter: 'bytes ='}\n- type: json\n  name: b\n  unix: /a\n  tcp: x\n";
    let problems = problems_of(yaml);
    let paths: Vec<&str> = problems.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(paths, ["sinks[0].type", "sinks[1].filter", "sinks[2]"], "{problems}");
}

#[test]
fn shapes_that_are_told_apart_by_another_key_are_judged_too() {
    let association =
        |source: &str| problems_of(&format!("kubernetes:\n  pod_association: [{{sources: [{source}]}}]\n"));
    assert_eq!(association("{from: connection}"), "");
    assert_eq!(association("{from: resource_attribute, name: k8s.pod.uid}"), "");
    let at = "kubernetes.pod_association[0].sources";
    assert_eq!(
        association("{from: conection}"),
        format!("{at}[0].from: unknown value `conection`, did you mean `connection`?")
    );
    assert_eq!(
        association("{name: container.id}"),
        format!("{at}[0]: needs `from`: one of connection, resource_attribute")
    );
    assert_eq!(
        association("{from: connection}, {from: connection}"),
        format!("{at}: must have 1 elements, not 2")
    );
    assert_eq!(
        problems_of("kubernetes: {auth_type: kubeconfig, extract: {metadata: [k8s.node.nam]}}"),
        "kubernetes.auth_type: unknown value `kubeconfig`, did you mean `kubeConfig`?\n\
         kubernetes.extract.metadata[0]: unknown value `k8s.node.nam`, did you mean `k8s.node.name`?"
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let problems = problems_of("server:\n  token: hunter2hunter2hunter2\n");
    assert_eq!(problems, "server.token: must be keys and values, not text");
}

#[test]
fn what_is_no_mapping_is_told() {
    assert_eq!(problems_of("- a\n- b\n"), "must be keys and values, not a list");
}

#[test]
fn numbers_are_sizes_too() {
    let config = Config::of_tree(&mut json!({ "memory": 33_554_432 }), std::iter::empty(), &[]).unwrap();
    assert_eq!(config.counting.memory, 32 << 20);
}

#[test]
fn the_reference_is_that_of_the_types() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, text) in [("config.md", reference::page()), ("config.schema.json", reference::schema_text())] {
        let path = docs.join(name);
        if env::var_os("WEIR_UPDATE_DOCS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let is_same = fs::read_to_string(&path).is_ok_and(|committed| committed == text);
        assert!(is_same, "docs/reference/{name} is stale: run WEIR_UPDATE_DOCS=1 cargo test -p weir-agent");
    }
}
