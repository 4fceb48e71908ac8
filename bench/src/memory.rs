//! The most memory that this process has had.

use std::fs;

/// Begins the peak of memory anew (since 4.0, 695f055936938).
pub(crate) fn forget_peak() {
    // Where that is refused the peak is one of the whole run, which is only larger.
    fs::write("/proc/self/clear_refs", "5").ok();
}

pub(crate) fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
