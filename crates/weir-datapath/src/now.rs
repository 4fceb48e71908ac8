//! The clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_flow::{Monotonic, Tick, Wall};

/// This moment on both clocks.
pub fn tick() -> Tick {
    Tick { monotonic: monotonic(), wall: wall() }
}

/// Time on the clock that the kernel programs read.
pub fn monotonic() -> Monotonic {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in the structure; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Monotonic(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
