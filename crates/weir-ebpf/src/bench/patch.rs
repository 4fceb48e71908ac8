//! What benchmarks put in front of a program: the next flow of a list, written into the packet, then a tail call.
//!
//! A test run repeats one packet; this makes it tens of thousands of flows in one run. Both programs run by
//! `BPF_PROG_TEST_RUN` alone and are never attached.

#![no_std]
#![no_main]

use aya_ebpf::{
    Global,
    bindings::TC_ACT_UNSPEC,
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Flow numbers in one element of [`SEQUENCE`].
const CHUNK: usize = 4096;

/// Elements of [`SEQUENCE`]. Long enough for a skewed sample to show its tail.
const CHUNKS: usize = 64;

/// Offset in the packet of the last word of the source address: 4 bytes of IPv4, 8 of IPv6.
#[unsafe(no_mangle)]
static OFFSET: Global<u32> = Global::new(26);

/// Bytes of that word.
#[unsafe(no_mangle)]
static WIDTH: Global<u32> = Global::new(4);

/// What the word is for flow 0.
#[unsafe(no_mangle)]
static BASE: Global<u64> = Global::new(0);

/// Flow numbers in the order in which packets come; user space fills it in.
#[btf_map]
static SEQUENCE: Array<[u16; CHUNK], CHUNKS> = Array::new();

/// How many packets came so far.
#[btf_map]
static POSITION: Array<u32, 1> = Array::new();

/// The program under test.
#[btf_map]
static SUBJECT: ProgramArray<1> = ProgramArray::new();

/// Longest offset that the verifier is asked to accept.
const MOST_OFFSET: usize = 64;

/// Writes the next flow number and goes on with the program under test.
#[classifier]
fn weir_bench_patch(context: TcContext) -> i32 {
    let Some(position) = POSITION.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
    // SAFETY: a valid element; one test run at a time uses it.
    let position = unsafe { &mut *position };
    let step = *position as usize;
    *position = position.wrapping_add(1);
    let Some(chunk) = SEQUENCE.get((step / CHUNK % CHUNKS) as u32) else { return TC_ACT_UNSPEC };
    let number = chunk[step % CHUNK];
    let word = BASE.load() + u64::from(number);
    let offset = OFFSET.load() as usize & (MOST_OFFSET - 1);
    let place = context.data() + offset;
    if place + size_of::<u64>() > context.data_end() {
        return TC_ACT_UNSPEC;
    }
    // In one piece: a program that reads words which were written in pieces would wait for them.
    if WIDTH.load() == 4 {
        // SAFETY: the bounds check above, which the verifier repeats, proves eight writable bytes.
        unsafe { (place as *mut u32).write_unaligned((word as u32).to_be()) };
    } else {
        // SAFETY: as above.
        unsafe { (place as *mut u64).write_unaligned(word.to_be()) };
    }
    // SAFETY: nothing here needs to be dropped.
    unsafe { SUBJECT.tail_call(&context, 0) };
    TC_ACT_UNSPEC
}

/// Does nothing: what remains is the cost of the test run itself.
#[classifier]
fn weir_bench_empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
