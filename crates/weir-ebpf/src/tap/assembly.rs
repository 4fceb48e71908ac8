//! What needs instructions that the compiler does not make by itself: adding where several CPUs do, and hiding numbers.

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering::Relaxed, atomic_xadd},
};

/// Adds to a counter of a map.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, amount: u64) {
    // SAFETY: callers pass members of map values, which are aligned.
    unsafe { atomic_xadd::<u64, u64, { Relaxed }>(counter, amount) };
}

/// Adds to a counter of a map, and returns what it was before. The intrinsic cannot return it on the instruction set that
/// is compiled for, so the instruction (since 5.12) is written out.
#[inline(always)]
pub(crate) fn fetch_add(counter: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({counter} + 0), {value})",
            counter = in(reg) counter,
            value = inout(reg) value,
            options(nostack)
        );
    };
    value
}

/// The same number, of which the compiler knows nothing any more, so that it cannot turn arithmetic into branches or leave
/// out a comparison that the verifier wants.
#[inline(always)]
pub(crate) fn opaque(number: u64) -> u64 {
    let mut number = number;
    // Not empty: the kernel refuses two lines of source for one instruction.
    // SAFETY: nothing is done.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}
