//! Maps and constants of the `redirect` object. All maps but the scratch memory are pinned and outlive the process.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage},
    helpers::generated::bpf_get_prandom_u32,
    macros::btf_map,
};
use weir_common::redirect::{
    AffinityKey, AffinityValue, BackendCounts, BackendValue, Chunk, ConnectionValue, FragmentValue,
    ListenerKey, LocalConfig, MOST_BACKENDS, MOST_OWN_ADDRESSES, MOST_RULES, OwnAddress, PORT_BITMAPS,
    PORT_WORDS, PlaceValue, PrefixKey, PrefixValue, RateValue, ReasonCounts, RedirectConfig, RetiredCounts,
    RuleValue, SocketFlows,
};
use weir_packet::{Buffer, rewrite::Layout};

/// Ticks per second.
#[unsafe(no_mangle)]
pub(crate) static HZ: Global<u32> = Global::new(250);

/// `BPF_F_IPV6` where the kernel knows it, else 0.
#[unsafe(no_mangle)]
pub(crate) static IPV6_FLAG: Global<u64> = Global::new(0);

/// Which ports are of interest: one bitmap for each of the `PORTS_` constants.
#[btf_map]
pub(crate) static PORTS: Array<[u64; PORT_WORDS], { PORT_BITMAPS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Both directions of every connection. The loader says how many.
#[btf_map]
pub(crate) static CONNECTIONS: HashMap<[u64; 5], ConnectionValue, 524_288> = HashMap::new();

/// The table that connections are moved from, while [`MOVING`] says so.
#[btf_map]
pub(crate) static OLD_CONNECTIONS: HashMap<[u64; 5], ConnectionValue, 1> = HashMap::new();

/// 1 while the table of connections gets another size.
#[unsafe(no_mangle)]
pub(crate) static MOVING: Global<u32> = Global::new(0);

/// Listeners of one address and one port, or all ports: the number of their rule.
#[btf_map]
pub(crate) static LISTENERS: HashMap<ListenerKey, u32, { MOST_RULES as usize }> = HashMap::new();

/// Every prefix that something listens on.
#[btf_map]
pub(crate) static PREFIXES: LpmTrie<PrefixKey, PrefixValue, { MOST_RULES as usize }> = LpmTrie::new();

/// Rules by number.
#[btf_map]
pub(crate) static RULES: HashMap<u32, RuleValue, { MOST_RULES as usize }> = HashMap::new();

/// Chunks of the tables of backends.
#[btf_map]
pub(crate) static TABLES: Array<Chunk, 163_840, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Backends by number.
#[btf_map]
pub(crate) static BACKENDS: Array<BackendValue, { MOST_BACKENDS as usize }> = Array::new();

/// What backends carried.
#[btf_map]
pub(crate) static COUNTS: PerCpuArray<BackendCounts, { MOST_BACKENDS as usize }> = PerCpuArray::new();

/// What was not as usual, by rule.
#[btf_map]
pub(crate) static REASONS: PerCpuArray<ReasonCounts, { MOST_RULES as usize }> = PerCpuArray::new();

/// What backends carried that are no more, by rule; kept by user space.
#[btf_map]
pub(crate) static RETIRED: HashMap<u32, RetiredCounts, { MOST_RULES as usize }> = HashMap::new();

/// Datagrams of which fragments follow.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<[u64; 5], FragmentValue, 16_384> = LruHashMap::new();

/// Backends that clients keep.
#[btf_map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityValue, 65_536> = LruHashMap::new();

/// New connections of rules with a limit.
#[btf_map]
pub(crate) static RATES: HashMap<u32, RateValue, { MOST_RULES as usize }> = HashMap::new();

/// Constants that outlive the process.
#[btf_map]
pub(crate) static CONFIG: Array<RedirectConfig, 1> = Array::new();

/// Interfaces that the programs are attached to; kept by user space.
#[btf_map]
pub(crate) static PLACES: HashMap<u32, PlaceValue, 4096> = HashMap::new();

/// Whose sockets are led to backends.
#[btf_map]
pub(crate) static LOCAL: Array<LocalConfig, 1> = Array::new();

/// Addresses of this host; kept by user space.
#[btf_map]
pub(crate) static OWN_ADDRESSES: HashMap<OwnAddress, u32, { MOST_OWN_ADDRESSES as usize }> = HashMap::new();

/// What sockets of this host talk to.
#[btf_map]
pub(crate) static LOCAL_SOCKETS: SkStorage<SocketFlows> = SkStorage::new();

/// Answer of the clock program: jiffies, then nanoseconds of the monotonic clock.
#[btf_map]
pub(crate) static CLOCK: Array<[u64; 2], 1> = Array::new();

/// Never used by a program: updating a map of maps makes user space wait until no program that started before is
/// still running (`maybe_wait_bpf_programs`, since 4.20, 1ae80cf31938).
#[btf_map]
pub(crate) static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// Whether [`CACHE`] may be used: not where a program may interrupt another one on the same CPU (real-time kernels).
#[unsafe(no_mangle)]
pub(crate) static CACHING: Global<u32> = Global::new(0);

/// Slots of a CPU, a power of two.
pub(crate) const CACHE_SLOTS: usize = 4096;

/// What a CPU knows of a connection that it saw lately, so that most packets need no look into the table.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Cached {
    /// Key of the direction.
    pub(crate) key: [u64; 5],
    /// The rest is of the entry.
    pub(crate) address: [u64; 2],
    pub(crate) ports: u32,
    pub(crate) rule: u32,
    pub(crate) backend: u32,
    pub(crate) interface: u32,
    pub(crate) seen: u32,
    pub(crate) route: u32,
    /// The epoch before the entry was read.
    pub(crate) epoch: u64,
}

/// By a hash of the key.
#[btf_map]
pub(crate) static CACHE: PerCpuArray<Cached, CACHE_SLOTS> = PerCpuArray::new();

/// Changes whenever an entry is taken away or becomes another connection's while packets may come. What was cached
/// before does not count any more.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.epoch")]
static mut EPOCH: u64 = 1;

/// The epoch.
#[inline(always)]
pub(crate) fn epoch() -> u64 {
    let epoch = &raw const EPOCH;
    // SAFETY: an aligned word, which is written with one store.
    unsafe { epoch.read_volatile() }
}

/// Begins a new epoch: a random one, because CPUs that counted up at the same time would begin the same.
#[inline(always)]
pub(crate) fn forget_cached() {
    // SAFETY: no arguments, no preconditions.
    let random = u64::from(unsafe { bpf_get_prandom_u32() });
    let next = random << 32 | (epoch().wrapping_add(1) & 0xffff_ffff);
    let current = &raw mut EPOCH;
    // SAFETY: as above.
    unsafe { current.write_volatile(next) };
}

/// Memory of one CPU that would not fit the stack.
#[repr(C)]
pub(crate) struct Scratch {
    /// First bytes of the packet.
    pub(crate) headers: Buffer,
    /// Where its parts are.
    pub(crate) layout: Layout,
    /// The same of the packet that an ICMP error is about.
    pub(crate) inner: Layout,
    /// Key of the packet's direction of its connection.
    pub(crate) key: [u64; 5],
    /// What becomes of it.
    pub(crate) value: ConnectionValue,
    /// Key of the other direction.
    pub(crate) pair_key: [u64; 5],
    /// What becomes of that.
    pub(crate) pair: ConnectionValue,
    /// The rule of a new connection.
    pub(crate) rule: RuleValue,
    /// The TCP header of a reset.
    pub(crate) reset: [u32; 10],
    /// 1 if a backend was passed over because it is on this host.
    pub(crate) has_backend_here: u64,
    /// 1 while a packet is worked on.
    pub(crate) is_busy: u64,
}

/// One per CPU.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// The scratch memory of this CPU.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: one program at a time has it: `is_busy` turns away whoever interrupts.
    Some(unsafe { &mut *scratch })
}
