//! What needs instructions that the compiler does not make by itself: adding where several CPUs do, hiding numbers, and copying by
//! words.

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

/// Copies a structure by its words. The compiler would call a function that does it byte by byte.
#[inline(always)]
pub(crate) fn copy_words<T>(to: *mut T, from: *const T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
    let mut place = 0;
    while place < size_of::<T>() / 8 {
        // SAFETY: callers pass two places with room for the structure, which has no padding.
        let word = unsafe { from.wrapping_add(place).read_volatile() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(place).write_volatile(word) };
        place += 1;
    }
}

/// Nothing, of which the compiler does not know that it is: it would clear neighbours byte by byte, with one call.
#[inline(always)]
pub(crate) fn zero() -> u64 {
    opaque(0)
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
