//! The `drops` object: counts packets that the kernel drops, by its own reason.
//!
//! `weir_dropped` runs on the tracepoint `skb:kfree_skb`, whose third argument is the reason since 5.17 (c504e5c2f964).
//! It costs nothing while nothing is dropped, and changes nothing. Packets whose way ends as it should
//! (`consume_skb`) do not come here. What is no packet of a network protocol (Unix sockets, netlink) is left out.
//!
//! The compiler emits no CO-RE relocations, so user space finds the fields in the kernel's type information.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has no atomic types")]

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};

use aya_ebpf::{
    btf_maps::{PerCpuArray, PerCpuHashMap},
    helpers::bpf_probe_read_kernel,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use weir_common::drops::{DROP_ENTRIES, DROP_REASONS, DropKey, DropValue, FIRST_NAMESPACE, Settings};

/// Where the fields are. Set by the loader.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    skb_device: 0,
    skb_sock: 0,
    skb_protocol: 0,
    device_index: 0,
    device_name: 0,
    device_net: 0,
    sock_net: 0,
    net_inode: 0,
    consumed: 0,
};

/// Packets by reason and interface. Entries are never removed, so their counts only grow.
#[btf_map]
static DROPS: PerCpuHashMap<DropKey, DropValue, DROP_ENTRIES> = PerCpuHashMap::new();

/// Packets by reason alone, of combinations for which there was no room.
#[btf_map]
static FOLDED: PerCpuArray<u64, DROP_REASONS> = PerCpuArray::new();

/// The entry must be new.
const NEW: u64 = aya_ebpf::bindings::BPF_NOEXIST as u64;

#[expect(clippy::cast_possible_truncation, reason = "it is 512")]
const LAST_REASON: u32 = DROP_REASONS as u32 - 1;

/// Counts a packet that the kernel drops.
#[raw_tracepoint(tracepoint = "kfree_skb")]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
fn weir_dropped(context: RawTracePointContext) -> i32 {
    let (skb, reason): (u64, u32) = (context.arg(0), context.arg(2));
    // Zero means "not dropped" in every kernel.
    if reason != 0 && reason != at(&raw const SETTINGS.consumed) {
        count(skb, reason);
    }
    0
}

#[inline(always)]
fn count(skb: u64, reason: u32) {
    if read::<u16>(skb, at(&raw const SETTINGS.skb_protocol)).is_none_or(|protocol| protocol == 0) {
        return;
    }
    let device = read::<u64>(skb, at(&raw const SETTINGS.skb_device)).unwrap_or(0);
    let key = place(skb, device, reason);
    if let Some(entry) = DROPS.get_ptr_mut(&key) {
        add(entry);
        return;
    }
    let name = if key.ifindex == 0 { None } else { read(device, at(&raw const SETTINGS.device_name)) };
    let first = DropValue { packets: 0, name: name.unwrap_or_default() };
    // Another CPU may have been quicker, so the outcome is looked at, not the result.
    let _exists = DROPS.insert(key, first, NEW);
    if let Some(entry) = DROPS.get_ptr_mut(&key) {
        add(entry);
    } else if let Some(folded) = FOLDED.get_ptr_mut(if reason < LAST_REASON { reason } else { LAST_REASON }) {
        // SAFETY: a valid element.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(folded, 1) };
    }
}

/// One more packet. The tracepoint can interrupt itself on a CPU, hence atomically.
#[inline(always)]
fn add(entry: *mut DropValue) {
    // SAFETY: the lookup gave a valid element.
    let packets = unsafe { &raw mut (*entry).packets };
    // SAFETY: as above; the field is aligned.
    unsafe { atomic_xadd::<u64, u64, { Relaxed }>(packets, 1) };
}

/// Where the packet was.
///
/// While a packet waits in a queue, the kernel keeps other things in the place of its device. So a device is believed
/// only if it is in something with the number of a network namespace.
#[inline(always)]
fn place(skb: u64, device: u64, reason: u32) -> DropKey {
    let mut key = DropKey { reason, ifindex: 0, netns: 0, reserved: 0 };
    if device != 0
        && let Some(netns) = namespace(device, at(&raw const SETTINGS.device_net))
        && let Some(ifindex) = read(device, at(&raw const SETTINGS.device_index))
    {
        (key.ifindex, key.netns) = (ifindex, netns);
    } else if let Some(sock) = read::<u64>(skb, at(&raw const SETTINGS.skb_sock))
        && sock != 0
        && let Some(netns) = namespace(sock, at(&raw const SETTINGS.sock_net))
    {
        key.netns = netns;
    }
    key
}

/// Number of the network namespace that a structure refers to.
#[inline(always)]
fn namespace(structure: u64, offset: u32) -> Option<u32> {
    let net = read::<u64>(structure, offset)?;
    let number = read::<u32>(net, at(&raw const SETTINGS.net_inode))?;
    (number >= FIRST_NAMESPACE).then_some(number)
}

/// Reads one of [`SETTINGS`]. The loader changes them after compilation, so the compiler must not look inside.
#[inline(always)]
fn at(setting: *const u32) -> u32 {
    // SAFETY: the pointer is to a member of a static.
    unsafe { setting.read_volatile() }
}

/// Reads a value out of kernel memory.
#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel(structure.wrapping_add(u64::from(offset)) as *const T) }.ok()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
