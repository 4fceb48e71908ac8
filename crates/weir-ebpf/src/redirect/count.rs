//! Counters.

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};

use weir_common::redirect::Reason;
use weir_ebpf::skb::Skb;

use crate::maps::{COUNTS, REASONS};

/// Counts a packet that was not treated like others. Rule 0 is none.
#[inline(always)]
pub(crate) fn reason(rule: u32, reason: Reason) {
    if let Some(counts) = REASONS.get_ptr_mut(rule) {
        // SAFETY: a valid element, of this CPU.
        let counts = unsafe { &mut *counts };
        counts[reason as usize] += 1;
    }
}

/// Counts a translated packet. `header_length` is what each further segment of a super-packet repeats.
#[inline(always)]
pub(crate) fn packet(skb: Skb, backend: u32, is_forward: bool, header_length: u64) {
    if let Some(counts) = COUNTS.get_ptr_mut(backend) {
        let frames = skb.on_the_wire(header_length);
        // SAFETY: a valid element, of this CPU.
        let counts = unsafe { &mut *counts };
        if is_forward {
            counts.forward_packets += frames.packets;
            counts.forward_bytes += frames.bytes;
        } else {
            counts.reverse_packets += frames.packets;
            counts.reverse_bytes += frames.bytes;
        }
    }
}

/// Counts a connection that began.
#[inline(always)]
pub(crate) fn opened(backend: u32) {
    if let Some(counts) = COUNTS.get_ptr_mut(backend) {
        // SAFETY: a valid element, of this CPU.
        unsafe { (*counts).opened += 1 };
    }
}

/// Counts a socket that was led to a backend. The process may be interrupted by another one on this CPU.
#[inline(always)]
pub(crate) fn opened_here(backend: u32) {
    if let Some(counts) = COUNTS.get_ptr_mut(backend) {
        // SAFETY: a valid element.
        let opened = unsafe { &raw mut (*counts).opened_here };
        // SAFETY: an aligned word of it.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(opened, 1) };
    }
}

/// Counts a connection that ended.
#[inline(always)]
pub(crate) fn closed(backend: u32) {
    if let Some(counts) = COUNTS.get_ptr_mut(backend) {
        // SAFETY: a valid element, of this CPU.
        unsafe { (*counts).closed += 1 };
    }
}
