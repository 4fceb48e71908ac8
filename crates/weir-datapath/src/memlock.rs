//! The limit of locked memory, which maps count against before 5.11 (since then against the cgroup, 97306be45fbe).

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::features::Release;

/// The soft limit in bytes, `None` where there is none.
pub(crate) fn limit() -> Option<u64> {
    let soft = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Lifts the limit for this process where the kernel needs that. Without `CAP_SYS_RESOURCE` it stays, and large maps
/// cannot be made; `features` says so.
pub(crate) fn lift() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if !Release::parse(&release).is_at_least(5, 11) {
        // The limit may suffice as it is; if not, making the map fails, and that error is reported.
        let _outcome = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
}
