//! Maps of the `tap` object. Sizes given here are minima; the loader overrides them.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use weir_common::tap::{
    Budget, CommandKey, Control, Counts, Entry, ListenerKey, NetworkKey, NumberKey, RuleSet, Side,
};

use crate::copy::Call;

/// Bytes and gaps on their way to user space. When it is full, bytes are lost, and counted in their socket.
#[btf_map]
pub(crate) static RING: RingBuf<[u8; 0], 4096> = RingBuf::new();

/// Openings, ends and closings: apart from the bytes, so that a flood of these cannot make those be lost.
#[btf_map]
pub(crate) static EVENTS: RingBuf<[u8; 0], 4096> = RingBuf::new();

/// Whether user space sleeps until there is something: 1, or 0 while it looks at the rings by itself.
#[btf_map]
pub(crate) static ASLEEP: Array<u32, 1> = Array::new();

/// What is in force.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();

/// Two sets of rules: one in force, one to be written.
#[btf_map]
pub(crate) static RULE_SETS: Array<RuleSet, 2> = Array::new();

/// Masks of rules by pid or cgroup.
#[btf_map]
pub(crate) static NUMBERS: HashMap<NumberKey, u64, 8192> = HashMap::new();

/// Masks of rules by command.
#[btf_map]
pub(crate) static COMMANDS: HashMap<CommandKey, u64, 1024> = HashMap::new();

/// Masks of rules by network. Those of a longer prefix include those of the shorter ones around it.
#[btf_map]
pub(crate) static NETWORKS: LpmTrie<NetworkKey, u64, 8192> = LpmTrie::new();

/// What is kept in each socket, where the kernel gives us typed sockets.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<Entry> = SkStorage::new();

/// The same by address of the socket, where it does not.
#[btf_map]
pub(crate) static SOCKET_TABLE: LruHashMap<u64, Entry, 1> = LruHashMap::new();

/// The first entry of a socket: more than fits the stack.
#[btf_map]
pub(crate) static EMPTY_ENTRY: Array<Entry, 1> = Array::new();

/// What rules may copy in this second, by number.
#[btf_map]
pub(crate) static BUDGETS: Array<Budget, 256> = Array::new();

/// Ledgers of rules: twice the number, and the direction.
#[btf_map]
pub(crate) static RULE_SIDES: PerCpuArray<Side, 512> = PerCpuArray::new();

/// Counts.
#[btf_map]
pub(crate) static COUNTS: PerCpuArray<Counts, 1> = PerCpuArray::new();

/// The call that is being looked at, by program: a program never interrupts itself on a CPU.
#[btf_map]
pub(crate) static CALLS: PerCpuArray<Call, 6> = PerCpuArray::new();

/// The socket and the flags that a thread has called a probed function with.
#[btf_map]
pub(crate) static PROBED: LruHashMap<u64, [u64; 2], 16384> = LruHashMap::new();

/// Where the datagram came from that a thread is receiving: cookie of the socket, words of the address, port.
#[btf_map]
pub(crate) static NOTES: LruHashMap<u64, [u64; 4], 4096> = LruHashMap::new();

/// Which message of a call a thread is at.
#[btf_map]
pub(crate) static MESSAGES: LruHashMap<u64, u64, 16384> = LruHashMap::new();

/// Ports that somebody waits for connections on, as the last walk over open files found them.
#[btf_map]
pub(crate) static LISTENERS: LruHashMap<ListenerKey, u32, 16384> = LruHashMap::new();

/// Never used by a program: updating a map of maps makes user space wait until no program that started before is still
/// running (`maybe_wait_bpf_programs`, since 4.20, 1ae80cf31938).
#[btf_map]
pub(crate) static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();
