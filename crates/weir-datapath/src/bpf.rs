//! The bpf(2) commands that aya does not offer in the form needed here: emptying a hash map in batches (since 5.6,
//! 057996380a42), which it lacks, running a program once by its descriptor, which it ties to the program object,
//! iterators over the entries of a map, and how often a program was skipped.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

/// `BPF_PROG_TEST_RUN` of `enum bpf_cmd`.
const TEST_RUN: libc::c_long = 10;

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
