//! Where the bytes of a system call are in the memory of the process, by the registers that it came with.
//!
//! The tables are those of x86-64. A call that is not in them is a gap, never a guess.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use weir_common::tap::{RECEIVED, SEGMENTS, reason};

use crate::{
    copy::{Call, read_user, set_segments},
    places::{current_task, place, read},
    socket::typed,
};

/// System calls by their numbers.
pub(crate) mod number {
    pub(crate) const READ: u64 = 0;
    pub(crate) const WRITE: u64 = 1;
    pub(crate) const READV: u64 = 19;
    pub(crate) const WRITEV: u64 = 20;
    pub(crate) const SENDFILE: u64 = 40;
    pub(crate) const SENDTO: u64 = 44;
    pub(crate) const RECVFROM: u64 = 45;
    pub(crate) const SENDMSG: u64 = 46;
    pub(crate) const RECVMSG: u64 = 47;
    pub(crate) const SPLICE: u64 = 275;
    pub(crate) const PREADV: u64 = 295;
    pub(crate) const PWRITEV: u64 = 296;
    pub(crate) const RECVMMSG: u64 = 299;
    pub(crate) const SENDMMSG: u64 = 307;
    pub(crate) const PREADV2: u64 = 327;
    pub(crate) const PWRITEV2: u64 = 328;
    pub(crate) const IO_URING_ENTER: u64 = 426;
}

/// Bit of `thread_info.status`: the call came by the 32-bit interface (`TS_COMPAT`).
const COMPAT: u32 = 2;

/// What the kernel keeps in the place of the result while a call is in progress (`-ENOSYS`).
const IN_PROGRESS: u64 = (-38_i64).cast_unsigned();

/// Bytes of a `struct mmsghdr`.
pub(crate) const MESSAGE_LENGTH: u64 = 64;

/// Most messages of a call.
pub(crate) const MOST_MESSAGES: u64 = 1024;

/// A system call with its arguments.
#[derive(Clone, Copy)]
pub(crate) struct SystemCall {
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
}

impl SystemCall {
    /// Whether it moves several messages.
    #[inline(always)]
    pub(crate) fn is_of_messages(&self) -> bool {
        self.number == number::SENDMMSG || self.number == number::RECVMMSG
    }
}

/// The registers that a task came into the kernel with.
#[inline(always)]
fn registers() -> *const u8 {
    // SAFETY: no arguments, no preconditions.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the task that runs.
    unsafe { bpf_task_pt_regs(task) as *const u8 }
}

/// The system call that the task came with.
#[inline(always)]
pub(crate) fn current() -> SystemCall {
    let registers = registers();
    SystemCall {
        number: typed(registers, place!(regs_number)),
        arguments: [
            typed(registers, place!(regs_arguments[0])),
            typed(registers, place!(regs_arguments[1])),
            typed(registers, place!(regs_arguments[2])),
            typed(registers, place!(regs_arguments[3])),
            typed(registers, place!(regs_arguments[4])),
            typed(registers, place!(regs_arguments[5])),
        ],
    }
}

/// Whether the task is in the middle of the system call that its registers tell of. If not, they tell of something else:
/// the kernel moves the bytes by itself, or on behalf of a call that is over.
#[inline(always)]
pub(crate) fn is_in_progress() -> bool {
    // Where calls are looked at after they have ended, they have always ended.
    place!(ended) != 0 || typed::<u64>(registers(), place!(regs_result)) == IN_PROGRESS
}

/// Whether the call came by the 32-bit interface, which has other numbers and layouts.
#[inline(always)]
pub(crate) fn is_compat() -> bool {
    read::<u32>(current_task(), place!(task_status)).is_none_or(|status| status & COMPAT != 0)
}

/// Finds where the bytes are. A reason where that cannot be known.
#[inline(always)]
pub(crate) fn locate(call: &mut Call, system_call: &SystemCall, way: u8, amount: u64) -> Result<(), u8> {
    let arguments = &system_call.arguments;
    match system_call.number {
        number::READ | number::WRITE | number::SENDTO | number::RECVFROM => {
            call.source = arguments[1];
            // A datagram may be longer than the buffer.
            call.left = if way == RECEIVED && arguments[2] < amount { arguments[2] } else { amount };
            call.segments = 0;
            if system_call.number == number::SENDTO {
                call.name = arguments[4];
                call.name_length = arguments[5];
            } else if system_call.number == number::RECVFROM && place!(ended) != 0 {
                // The process has been told by now.
                let mut length = 0_u32;
                if read_user(&mut length, arguments[5]) {
                    call.name = arguments[4];
                    call.name_length = length.into();
                }
            }
            Ok(())
        }
        number::READV
        | number::WRITEV
        | number::PREADV
        | number::PWRITEV
        | number::PREADV2
        | number::PWRITEV2 => {
            set_segments(call, arguments[1], arguments[2]);
            Ok(())
        }
        number::SENDMSG | number::RECVMSG => message(call, arguments[1], way),
        number::SENDMMSG | number::RECVMMSG => {
            let index = if arguments[2] == 1 {
                0
            } else if place!(messages) | place!(ended) == 0 || call.message >= MOST_MESSAGES {
                return Err(reason::MESSAGES);
            } else {
                call.message
            };
            message(call, arguments[1].wrapping_add(index * MESSAGE_LENGTH), way)
        }
        number::SENDFILE => Err(reason::SENDFILE),
        number::SPLICE => Err(reason::SPLICE),
        number::IO_URING_ENTER => Err(reason::IO_URING),
        _ => Err(reason::OTHER),
    }
}

/// Finds where the bytes of a message are, by its `struct msghdr`.
#[inline(always)]
pub(crate) fn message(call: &mut Call, address: u64, way: u8) -> Result<(), u8> {
    // Name, length of the name, segments, number of segments.
    let mut header = [0_u64; 4];
    if !read_user(&mut header, address) {
        return Err(reason::FAULT);
    }
    if way != RECEIVED || place!(ended) != 0 {
        call.name = header[0];
        call.name_length = header[1] & 0xffff_ffff;
    }
    set_segments(call, header[2], header[3]);
    Ok(())
}

const _: () = assert!(SEGMENTS < 0x7ff);
