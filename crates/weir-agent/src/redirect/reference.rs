//! The reference page of the rules file and of the metrics, made from the types and tables.

use super::{document::RulesDocument, metrics};
use crate::config::reference::rows;

/// The page, in Markdown.
pub fn page() -> String {
    let schema = schemars::schema_for!(RulesDocument).to_value();
    let mut page = String::from(include_str!("reference_head.md"));
    page.push_str("\n| key | type | default | description |\n|---|---|---|---|\n");
    let mut keys = String::new();
    rows(&schema, &schema, "", false, &mut keys);
    // Every key of a rule changes while traffic flows; the column about reloads has nothing to say.
    for line in keys.lines() {
        let cells: Vec<&str> = line.splitn(6, " | ").collect();
        if let [key, kind, default, _, description] = cells.as_slice() {
            page.push_str(&[*key, *kind, *default, *description].join(" | "));
            page.push('\n');
        }
    }
    page.push_str("\n## Metrics\n\nOn the control socket at `/metrics`, and at the address of `--metrics` or `metrics`.\n\n");
    page.push_str(&metrics::reference());
    page
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_page_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/proxy.md");
        if env::var_os("WEIR_UPDATE_DOCS").is_some() {
            fs::write(&path, page()).unwrap();
        }
        let is_same = fs::read_to_string(&path).is_ok_and(|text| text == page());
        assert!(is_same, "docs/reference/proxy.md is stale: run WEIR_UPDATE_DOCS=1 cargo test -p weir-agent");
        for key in [
            "`rules[].listen`",
            "`rules[].timeouts.udp_unreplied`",
            "`interfaces`",
            "`weir_proxy_backend_up`",
        ] {
            assert!(page().contains(key), "{key}");
        }
    }
}
