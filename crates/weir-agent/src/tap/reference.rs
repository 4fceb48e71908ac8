//! The reference page of calls, made from their table of fields.

use std::fmt::Write as _;

use weir_datapath::tap::GapReason;
use weir_l7::call::FIELDS;

/// What [`super::Json`] tells of a connection, with what it is.
pub(super) const CONNECTION: &[(&str, &str)] = &[
    ("process.pid", "The process that said or heard it, as the first pid namespace numbers it."),
    ("process.executable.name", "Name of its command."),
    ("container.id", "Its container."),
    ("k8s.pod.uid", "Its pod."),
    ("network.transport", "`tcp`, `udp` or `unix`."),
    ("network.local.address", "Address of the process."),
    ("network.local.port", "Port of the process."),
    ("network.peer.address", "Address of the other end."),
    ("network.peer.port", "Port of the other end."),
    ("tap.role", "`client` or `server`: which of them the process is, where that is known."),
    ("tap.connection", "Number of the connection, from 1, in the order in which they were seen."),
    ("tap.rule", "Number of the rule that let it through."),
];

/// The page, in Markdown.
pub fn page() -> String {
    let mut page = String::from(include_str!("reference_head.md"));
    page.push_str("\n## Calls\n\n| field | values | description |\n|---|---|---|\n");
    let row = |page: &mut String, name: &str, values: &str, doc: &str| {
        writeln!(page, "| `{name}` | {values} | {doc} |").expect("a string takes any text");
    };
    for field in FIELDS {
        let values: Vec<String> = field.values.iter().map(|value| format!("`{value}`")).collect();
        row(&mut page, field.name, &values.join(", "), field.doc);
    }
    page.push_str(
        "\nWith `-v` also `http.request.header.NAME`, `http.response.header.NAME`, and the beginnings of bodies as \
         `http.request.body.content` and `http.response.body.content`.\n\n\
         ## Connections\n\nWith each call, and alone where no payload is copied.\n\n| field | description |\n|---|---|\n",
    );
    for (name, doc) in CONNECTION {
        writeln!(page, "| `{name}` | {doc} |").expect("a string takes any text");
    }
    page.push_str(
        "\nWithout payload, one object per connection has these besides, for `sent` and `received`:\n\n\
         | field | description |\n|---|---|\n\
         | `connection.start`, `connection.duration` | When it was opened, and how long it lasted. |\n\
         | `tap.sent.seen` | Bytes that calls moved. |\n\
         | `tap.sent.captured` | Of these, copied. |\n\
         | `tap.sent.lost` | Of these, copied for nothing because nobody read fast enough. |\n\
         | `tap.sent.gap.REASON` | Of these, not copied, for a reason. |\n\
         | `tap.sent.unseen` | Bytes beyond those, by the kernel's own count: no hook saw them. |\n\n## Reasons\n\n",
    );
    let names: Vec<String> = GapReason::ALL.iter().map(|(_, name)| format!("`{name}`")).collect();
    writeln!(page, "{}. [What they mean](../operate/tap.md#what-is-not-captured).", names.join(", "))
        .expect("a string takes any text");
    page
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_page_is_that_of_the_fields() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/calls.md");
        if env::var_os("WEIR_UPDATE_DOCS").is_some() {
            fs::write(&path, page()).unwrap();
        }
        let is_same = fs::read_to_string(&path).is_ok_and(|text| text == page());
        assert!(is_same, "docs/reference/calls.md is stale: run WEIR_UPDATE_DOCS=1 cargo test -p weir-agent");
    }
}
