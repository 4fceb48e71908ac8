//! The example does what it says.

use std::{path::Path, process::Command};

use weir_integration::{agent::binary, require_root, require_tool};

#[test]
fn the_script_shows_calls_at_both_ends_and_no_secret() {
    if !require_root() || !["nginx", "curl", "unshare", "tshark"].into_iter().all(require_tool) {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/tap/demo.sh");
    let mut command = Command::new(script);
    let output =
        command.env("WEIR", binary()).env("TMPDIR", directory.path()).output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "← GET http://127.0.0.1:8080/reviews/4?token=**************  200",
        "  > Authorization: *********************\n",
        "  > | {\"user\": \"alice\", \"password\": \"**************\"}\n",
        "← GET http://127.0.0.1:8080/missing  404",
        "\nGET /reviews/4?token=************** HTTP/1.1",
        ", 0 open at the end; 4 calls: http 4\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("this-is-secret"), "{said}");
}
