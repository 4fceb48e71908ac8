//! Tests that need a kernel, network namespaces or real servers.

use std::env;

use caps::{CapSet, Capability};

/// Whether this test may do what only root can. Where it may not, says so and the test returns early; under
/// `WEIR_TEST_STRICT=1`, as in CI, that is a failure.
pub fn is_root() -> bool {
    let is_root = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false);
    if !is_root {
        let reason = "this test needs root: run it by `cargo xtask test`";
        assert!(env::var_os("WEIR_TEST_STRICT").is_none_or(|value| value != "1"), "{reason}");
        println!("skipped: {reason}");
    }
    is_root
}
