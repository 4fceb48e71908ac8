//! Tells user space what time it is in jiffies. Run by `BPF_PROG_TEST_RUN`, never attached.

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::classifier,
    programs::TcContext,
};

use crate::maps::CLOCK;

/// Stores jiffies and the monotonic time of the same moment in `CLOCK`.
#[classifier]
fn weir_clock(_: TcContext) -> i32 {
    if let Some(answer) = CLOCK.get_ptr_mut(0) {
        // SAFETY: no arguments, no preconditions.
        let jiffies = unsafe { bpf_jiffies64() };
        // SAFETY: as above.
        let nanoseconds = unsafe { bpf_ktime_get_ns() };
        // SAFETY: the lookup gave a valid element; only this program writes it, and user space runs it one at a time.
        unsafe { answer.write([jiffies, nanoseconds]) };
    }
    TC_ACT_UNSPEC
}
