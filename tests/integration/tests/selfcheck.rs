//! The self-check finds nothing wrong on a machine where counting is exact, and leaves nothing behind.

use weir_datapath::selfcheck;
use weir_integration::require_root;

#[test]
fn the_self_check_passes_here() {
    if !require_root() {
        return;
    }
    let report = selfcheck::run().expect("the self-check runs");
    for check in &report.checks {
        println!("{}: {:?}", check.name, check.outcome);
    }
    assert!(report.passed());
    assert!(report.checks.len() > 15);
}
