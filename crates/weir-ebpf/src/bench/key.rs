//! Keys of the reference designs, whose tables all CPUs share.

use weir_common::flow::{CPU_SHIFT, KEY_WORDS};

/// The key of a flow on all CPUs.
#[inline(always)]
pub(crate) fn every_cpu(key: &[u64; KEY_WORDS]) -> [u64; KEY_WORDS] {
    let mut key = *key;
    key[KEY_WORDS - 1] &= (1 << CPU_SHIFT) - 1;
    key
}
