//! Maps and constants of the `packets` object. Sizes given here are minima; the loader overrides them.

use aya_ebpf::{
    Global,
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, RingBuf},
    macros::btf_map,
};
use weir_common::{
    flow::PointEntry,
    packets::{PacketHeader, PacketRow},
};
use weir_ebpf::{filter::FilterSet, headers::ParsedHeaders};
use weir_packet::Buffer;

/// Most bytes of each packet that are copied.
#[unsafe(no_mangle)]
pub(crate) static SNAP_LENGTH: Global<u32> = Global::new(128);

/// Records on their way to user space. When it is full, packets count as lost in the ledger.
#[btf_map]
pub(crate) static RING: RingBuf<[u8; 0], 4096> = RingBuf::new();

/// The ledger, one row per interface and direction.
#[btf_map]
pub(crate) static LEDGER: PerCpuArray<PacketRow, 64> = PerCpuArray::new();

/// Interfaces by the low 16 bits of their index.
#[btf_map]
pub(crate) static POINTS: Array<PointEntry, 65_536> = Array::new();

/// Conditions that packets must meet.
#[btf_map]
pub(crate) static FILTER: Array<FilterSet, 1> = Array::new();

/// Never used by a program: updating a map of maps makes user space wait until no program that started before is
/// still running (`maybe_wait_bpf_programs`, since 4.20, 1ae80cf31938).
#[btf_map]
pub(crate) static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// Memory of one CPU that would not fit the stack.
#[repr(C)]
pub(crate) struct Scratch {
    /// First bytes of the packet.
    pub(crate) headers: Buffer,
    /// What was found in them.
    pub(crate) parsed: ParsedHeaders,
    /// What goes in front of the bytes.
    pub(crate) header: PacketHeader,
}

/// One per CPU. Programs of one instance never interrupt each other on a CPU: TC runs with bottom halves disabled.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
