//! Maps and constants of the `flow` object.
//!
//! Sizes given here are minima; the loader overrides them. Everything a packet writes exists once per generation
//! and once per CPU, so that one CPU alone writes it and user space reads only what nobody writes.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use weir_common::{
    dns::DnsHeader,
    flow::{FlowValue, GENERATIONS, KEY_WORDS, LedgerRow, PointEntry, Slot, VALUE_WORDS},
};
use weir_ebpf::{filter::FilterSet, headers::ParsedHeaders};
use weir_packet::Buffer;

/// Pairs of slots of a CPU, a power of two.
#[unsafe(no_mangle)]
pub(crate) static PAIRS: Global<u32> = Global::new(2);

/// 64 less the logarithm of that.
#[unsafe(no_mangle)]
pub(crate) static PAIR_SHIFT: Global<u32> = Global::new(63);

/// Rows of the ledger in one generation on one CPU.
#[unsafe(no_mangle)]
pub(crate) static ROWS: Global<u32> = Global::new(2);

/// Whether the programs of this instance are TC programs (1) or socket filters (0).
#[unsafe(no_mangle)]
pub(crate) static TC_HOOK: Global<u32> = Global::new(0);

/// Random numbers of the slot hash, so that nobody outside can choose colliding flows.
#[unsafe(no_mangle)]
pub(crate) static SEED: Global<[u64; KEY_WORDS]> = Global::new([1; KEY_WORDS]);

/// Which generation is live, 0 or 1. Written by user space alone, as the one element of the map that this section
/// becomes; programs read such a map without a lookup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.generation")]
static mut GENERATION: u32 = 0;

/// The live generation.
#[inline(always)]
pub(crate) fn live_generation() -> u32 {
    let generation = &raw const GENERATION;
    // SAFETY: an aligned word, which user space writes with one store.
    (unsafe { generation.read_volatile() }) & 1
}

/// The two places that a flow may have.
pub(crate) type SlotPair = [Slot; 2];

/// The first place of a flow: `[cpu][generation][pair]`. User space reads and clears it by `mmap`.
#[btf_map]
pub(crate) static SLOTS: Array<SlotPair, 32, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Hash map inside [`OVERFLOW`]. Words, not structures: kernels before 6.2 refuse to put a map that was created
/// without BTF in the place of one whose value is a structure.
pub(crate) type OverflowMap = HashMap<[u64; KEY_WORDS], [u64; VALUE_WORDS], 1>;

/// Flows that found no slot, one map per generation. When it is full, packets count as overflow in the ledger.
#[btf_map]
pub(crate) static OVERFLOW: ArrayOfMaps<OverflowMap, { GENERATIONS as usize }> = ArrayOfMaps::new();

/// The ledger: `[cpu][generation][row]`. User space reads and clears it by `mmap`.
#[btf_map]
pub(crate) static LEDGER: Array<LedgerRow, 64, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Interfaces by the low 16 bits of their index.
#[btf_map]
pub(crate) static POINTS: Array<PointEntry, 65_536> = Array::new();

/// Conditions that new flows must meet, one set per generation.
#[btf_map]
pub(crate) static FILTER: Array<FilterSet, { GENERATIONS as usize }> = Array::new();

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
    /// A new entry of the overflow map.
    pub(crate) value: FlowValue,
    /// What goes in front of a DNS message.
    pub(crate) event: DnsHeader,
}

/// One per CPU. Programs of one instance never interrupt each other on a CPU: TC and packet sockets run with bottom
/// halves disabled.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Answer of the clock program: jiffies, then nanoseconds of the monotonic clock.
#[btf_map]
pub(crate) static CLOCK: Array<[u64; 2], 1> = Array::new();

/// Index of the counting program for packet sockets on Ethernet devices.
pub(crate) const JUMP_L2: u32 = 0;

/// Index of the one for devices without link headers.
pub(crate) const JUMP_L3: u32 = 1;

/// Where the filters of packet sockets jump to.
#[btf_map]
pub(crate) static JUMPS: ProgramArray<2> = ProgramArray::new();
