//! One packet into the ring: reserve room of a class, fill it in place, submit.

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id, bpf_skb_load_bytes};
use weir_common::packets::{PacketHeader, SNAP_CLASSES};
use weir_ebpf::skb::Skb;

use crate::maps::{RING, SNAP_LENGTH};

/// A record with room for `N` bytes of the packet.
#[repr(C)]
struct Record<const N: usize> {
    header: PacketHeader,
    bytes: [u8; N],
}

/// Writes the packet behind `header`, as much of it as is wanted. False if the ring is full.
#[inline(always)]
pub(crate) fn write(skb: Skb, header: &mut PacketHeader) -> bool {
    // SAFETY: the context is that of this program.
    header.cookie = unsafe { bpf_get_socket_cookie(skb.as_ptr().cast()) };
    // SAFETY: as above.
    header.cgroup = unsafe { bpf_skb_cgroup_id(skb.as_ptr()) };
    let snap_length = u64::from(SNAP_LENGTH.load());
    let length = u64::from(skb.length()).min(snap_length);
    // The verifier knows the snap length: it never walks through classes that are not wanted.
    let fits = |class: usize| snap_length <= class as u64 || length <= class as u64;
    if fits(SNAP_CLASSES[0]) {
        write_class::<{ SNAP_CLASSES[0] }>(skb, header, length)
    } else if fits(SNAP_CLASSES[1]) {
        write_class::<{ SNAP_CLASSES[1] }>(skb, header, length)
    } else if fits(SNAP_CLASSES[2]) {
        write_class::<{ SNAP_CLASSES[2] }>(skb, header, length)
    } else if fits(SNAP_CLASSES[3]) {
        write_class::<{ SNAP_CLASSES[3] }>(skb, header, length)
    } else {
        write_class::<{ SNAP_CLASSES[4] }>(skb, header, length)
    }
}

#[inline(always)]
fn write_class<const N: usize>(skb: Skb, header: &mut PacketHeader, length: u64) -> bool {
    let Some(mut entry) = RING.reserve_untyped::<Record<N>>(0) else { return false };
    let record: *mut Record<N> = MaybeUninit::as_mut_ptr(&mut entry);
    // One less, of which the compiler knows nothing: the verifier then sees a comparison and an addition on one register,
    // and knows 1..=N behind them. (Before 6.8 it learns nothing from a comparison with zero.)
    let last = black_box(length.wrapping_sub(1));
    let mut captured = 0;
    if last < N as u64 {
        // SAFETY: the reserved memory has room for N bytes there.
        let bytes = unsafe { &raw mut (*record).bytes };
        // SAFETY: as above, and the length is 1..=N.
        let outcome = unsafe { bpf_skb_load_bytes(skb.as_ptr().cast(), 0, bytes.cast(), (last + 1) as u32) };
        if outcome == 0 {
            captured = (last + 1) as u32;
        }
    }
    header.captured = captured;
    // SAFETY: the reserved memory starts with room for a header.
    let place = unsafe { &raw mut (*record).header };
    // SAFETY: as above; nobody else knows the reservation yet.
    unsafe { place.write(*header) };
    entry.submit(0);
    true
}
