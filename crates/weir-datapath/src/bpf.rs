//! The bpf(2) commands that aya does not offer in the form needed here: emptying a hash map in batches (since 5.6,
//! 057996380a42), which it lacks, running a program once by its descriptor, which it ties to the program object,
//! iterators over the entries of a map, how often a program was skipped, walking over a hash map that is written
//! meanwhile, and detaching a link that is pinned.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

/// `BPF_PROG_TEST_RUN` of `enum bpf_cmd`.
const TEST_RUN: libc::c_long = 10;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_long = 24;

/// `BPF_LINK_DETACH` of `enum bpf_cmd`.
const LINK_DETACH: libc::c_long = 34;

/// `BPF_PROG_LOAD` of `enum bpf_cmd`.
const PROG_LOAD: libc::c_long = 5;

/// `BPF_MAP_LOOKUP_AND_DELETE_BATCH` of `enum bpf_cmd`.
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `BPF_LINK_CREATE` of `enum bpf_cmd`.
const LINK_CREATE: libc::c_long = 28;

/// `BPF_ITER_CREATE` of `enum bpf_cmd`.
const ITER_CREATE: libc::c_long = 33;

/// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
const TRACE_ITER: u32 = 28;

/// Largest buffer, in entries: more never helps, because the kernel returns to us between buckets anyway.
const MOST_ENTRIES: usize = 1 << 20;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Buffers for emptying hash maps whose keys and values are `K` and `V` words of 64 bits.
#[derive(Debug)]
pub(crate) struct BatchReader<const K: usize, const V: usize> {
    keys: Vec<[u64; K]>,
    values: Vec<[u64; V]>,
}

impl<const K: usize, const V: usize> BatchReader<K, V> {
    /// Buffers for `entries` at a time; they grow where a bucket of the map holds more.
    pub(crate) fn new(entries: usize) -> Self {
        Self { keys: vec![[0; K]; entries.max(1)], values: vec![[0; V]; entries.max(1)] }
    }

    /// Takes every entry out of the map and hands it to `sink`.
    ///
    /// The map must not be written meanwhile, or entries may be missed.
    pub(crate) fn drain(
        &mut self,
        map: BorrowedFd<'_>,
        mut sink: impl FnMut(&[u64; K], &[u64; V]),
    ) -> io::Result<()> {
        // The kernel writes a position of 4 bytes for hash maps; room for a key is what the interface promises.
        let mut position = [0u64; K];
        let mut next_position = [0u64; K];
        let mut started = false;
        loop {
            let mut attributes = BatchAttributes {
                in_batch: if started { position.as_ptr() as u64 } else { 0 },
                out_batch: next_position.as_mut_ptr() as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map_fd: map.as_raw_fd().cast_unsigned(),
                ..BatchAttributes::default()
            };
            // SAFETY: every pointer is to a buffer of this function or of self that outlives the call and holds
            // `count` entries of the sizes that the map was created with.
            let outcome = unsafe {
                libc::syscall(
                    libc::SYS_bpf,
                    LOOKUP_AND_DELETE_BATCH,
                    &raw mut attributes,
                    size_of::<BatchAttributes>(),
                )
            };
            let error = if outcome < 0 { Some(io::Error::last_os_error()) } else { None };
            match error.as_ref().and_then(io::Error::raw_os_error) {
                // A bucket holds more than the buffer: nothing was taken, try again with twice the room.
                Some(libc::ENOSPC) if self.keys.len() < MOST_ENTRIES => {
                    let doubled = self.keys.len() * 2;
                    self.keys.resize(doubled, [0; K]);
                    self.values.resize(doubled, [0; V]);
                    continue;
                }
                Some(libc::EINTR | libc::EAGAIN) => continue,
                None | Some(libc::ENOENT) => {}
                Some(_) => return Err(error.expect("an error number comes from an error")),
            }
            let count = (attributes.count as usize).min(self.keys.len());
            for (key, value) in self.keys.iter().zip(&self.values).take(count) {
                sink(key, value);
            }
            if error.is_some() {
                return Ok(());
            }
            position = next_position;
            started = true;
        }
    }
}

/// The beginning of the `test` member of `union bpf_attr`; the rest is zero by not being passed.
#[repr(C)]
#[derive(Default)]
struct TestAttributes {
    program_fd: u32,
    return_value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a program `repeat` times on `frame` and returns the mean time of a run, the kernel's own part included.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Duration> {
    let mut attributes = TestAttributes {
        program_fd: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestAttributes::default()
    };
    // SAFETY: the frame outlives the call, and nothing is written but the attributes.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut attributes, size_of::<TestAttributes>()) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_nanos(attributes.duration.into()))
}

/// The `link_create` member of `union bpf_attr`, for iterators.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    padding: u32,
}

/// Ties an iterator program to the map whose entries it walks over (since 5.9, a5cbe05a6673). The link goes away
/// with its descriptor.
pub(crate) fn link_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // The first member of `union bpf_iter_link_info` is the descriptor of a map. Older kernels know a shorter union,
    // and accept a longer one only if the rest is zero.
    let info = [map.as_raw_fd().cast_unsigned(), 0];
    let mut attributes = LinkAttributes {
        program_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: TRACE_ITER,
        info: info.as_ptr() as u64,
        info_length: u32::try_from(size_of_val(&info)).expect("it has eight bytes"),
        ..LinkAttributes::default()
    };
    // SAFETY: the info outlives the call and is as long as said.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw mut attributes, size_of::<LinkAttributes>())
    };
    descriptor(outcome)
}

/// Begins a walk: reading from the descriptor to its end is one walk.
pub(crate) fn start_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = [link.as_raw_fd().cast_unsigned(), 0];
    // SAFETY: nothing but the attributes is read.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, ITER_CREATE, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    descriptor(outcome)
}

fn descriptor(outcome: libc::c_long) -> io::Result<OwnedFd> {
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = i32::try_from(outcome).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The `info` member of `union bpf_attr`.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// How often a program was not run, because it was running on that CPU already (since 5.12, 9ed9e9ba2337; 0 before).
pub(crate) fn skipped_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// Position of `recursion_misses` in `struct bpf_prog_info`, in words.
    const MISSES: usize = 208 / 8;
    let mut info = [0_u64; MISSES + 1];
    let mut attributes = InfoAttributes {
        fd: program.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of_val(&info)).expect("it has 216 bytes"),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes, and follows no address in what is all zero.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<InfoAttributes>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(info[MISSES]) }
}

/// A walk over a hash map that others may write meanwhile: an entry that is there all the time is seen once, unless the
/// map is so full that its bucket does not fit the buffer.
#[derive(Debug)]
pub(crate) struct BatchWalk<const K: usize, const V: usize> {
    keys: Vec<[u64; K]>,
    values: Vec<[u64; V]>,
    /// Where the kernel goes on; `None` at the beginning.
    position: Option<[u64; K]>,
}

impl<const K: usize, const V: usize> BatchWalk<K, V> {
    /// Buffers for `entries` at a time.
    pub(crate) fn new(entries: usize) -> Self {
        Self { keys: vec![[0; K]; entries.max(1)], values: vec![[0; V]; entries.max(1)], position: None }
    }

    /// Hands over the next entries. Returns how many, and whether the walk has come to its end; then the next one begins.
    pub(crate) fn step(
        &mut self,
        map: BorrowedFd<'_>,
        mut visit: impl FnMut(&[u64; K], &[u64; V]),
    ) -> io::Result<(usize, bool)> {
        loop {
            let mut next_position = [0u64; K];
            let mut attributes = BatchAttributes {
                in_batch: self.position.as_ref().map_or(0, |position| position.as_ptr() as u64),
                out_batch: next_position.as_mut_ptr() as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map_fd: map.as_raw_fd().cast_unsigned(),
                ..BatchAttributes::default()
            };
            // SAFETY: as in `BatchReader::drain`.
            let outcome = unsafe {
                libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size_of::<BatchAttributes>())
            };
            let error = if outcome < 0 { Some(io::Error::last_os_error()) } else { None };
            let is_end = match error.as_ref().and_then(io::Error::raw_os_error) {
                Some(libc::ENOSPC) if self.keys.len() < MOST_ENTRIES => {
                    let doubled = self.keys.len() * 2;
                    self.keys.resize(doubled, [0; K]);
                    self.values.resize(doubled, [0; V]);
                    continue;
                }
                Some(libc::EINTR | libc::EAGAIN) => continue,
                None => false,
                Some(libc::ENOENT) => true,
                Some(_) => return Err(error.expect("an error number comes from an error")),
            };
            let count = (attributes.count as usize).min(self.keys.len());
            for (key, value) in self.keys.iter().zip(&self.values).take(count) {
                visit(key, value);
            }
            self.position = (!is_end).then_some(next_position);
            return Ok((count, is_end));
        }
    }
}

/// `BPF_OBJ_GET` of `enum bpf_cmd`.
const OBJ_GET: libc::c_long = 7;

/// `BPF_LINK_UPDATE` of `enum bpf_cmd`.
const LINK_UPDATE: libc::c_long = 29;

/// Opens what is pinned at `path`.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = [path.as_ptr() as u64, 0];
    // SAFETY: the path ends with a zero and outlives the call.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    descriptor(outcome)
}

/// Puts another program in the place of that of a link, at once (since 5.7, 0c991ebc8c69).
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [link.as_raw_fd().cast_unsigned(), program.as_raw_fd().cast_unsigned(), 0, 0];
    // SAFETY: nothing but the attributes is read.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_UPDATE, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a program off its hook, also if somebody else holds the link (since 5.9, 73b11c2ab072).
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [link.as_raw_fd().cast_unsigned(), 0];
    // SAFETY: nothing but the attributes is read.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_DETACH, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The beginning of the `BPF_PROG_LOAD` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Whether the helper that changes transport checksums knows `BPF_F_IPV6` (since 6.16, ead7f9b8de65, and later releases
/// of older series): really asks it.
pub(crate) fn knows_ipv6_checksums() -> bool {
    const SCHED_CLS: u32 = 3;
    /// `offset = 30, from = 0, to = 1, flags = PSEUDO_HDR | IPV6; return l4_csum_replace(...)`.
    const INSTRUCTIONS: [u64; 6] = [
        0x0000_001e_0000_02b7,
        0x0000_0000_0000_03b7,
        0x0000_0001_0000_04b7,
        0x0000_0090_0000_05b7,
        0x0000_000b_0000_0085,
        0x0000_0000_0000_0095,
    ];
    let attributes = LoadAttributes {
        program_type: SCHED_CLS,
        instruction_count: u32::try_from(INSTRUCTIONS.len()).unwrap_or(0),
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the instructions and the license outlive the call.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
    };
    let Ok(program) = descriptor(outcome) else { return false };
    run_packet(program.as_fd(), &[0; 64], 0).is_ok_and(|run| run.verdict == 0)
}

/// Outcome of running a program on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRun {
    /// What the program returned.
    pub verdict: i32,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`: the packet comes with the sum that a network card made, and the run fails with
/// `EBADMSG` if the program left that wrong (since 6.17, 5d87e96a49dd).
pub const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The `test` member of `union bpf_attr`, up to the flags.
#[repr(C)]
#[derive(Default)]
struct PacketAttributes {
    start: TestAttributes,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs a TC program once on `frame`, whose link header is Ethernet.
pub fn run_packet(program: BorrowedFd<'_>, frame: &[u8], flags: u32) -> io::Result<PacketRun> {
    let mut out = vec![0; frame.len() + 256];
    let mut attributes = PacketAttributes {
        start: TestAttributes {
            program_fd: program.as_raw_fd().cast_unsigned(),
            data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            data_size_out: u32::try_from(out.len()).unwrap_or(u32::MAX),
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ..TestAttributes::default()
        },
        flags,
        ..PacketAttributes::default()
    };
    // SAFETY: frame and buffer outlive the call and are as long as said.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut attributes, size_of::<PacketAttributes>()) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(attributes.start.data_size_out as usize);
    Ok(PacketRun { verdict: attributes.start.return_value.cast_signed(), frame: out })
}

/// Index of the interface that a TCX link is on; 0 once that is gone (since 6.6, e420bed02507).
pub(crate) fn tcx_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    /// Type, number, program and (behind padding) what TCX adds, in words of four bytes.
    const INTERFACE: usize = 4;
    let mut info = [0_u32; 8];
    let mut attributes = InfoAttributes {
        fd: link.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of_val(&info)).expect("it has 32 bytes"),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<InfoAttributes>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(info[INTERFACE]) }
}
