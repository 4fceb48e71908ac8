//! System calls that have ended, on kernels that tell of nothing better: the socket is found by the number of its descriptor.
//!
//! What no system call of the table moves is not seen (`io_uring`, for example), and shows in the totals of the connection. Between the end of the
//! call and this program another thread may have closed the descriptor and opened it anew; nothing can be done about that.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use weir_common::tap::{RECEIVED, SENT};

use crate::{
    copy::{Call, read_user},
    flag,
    judge::in_force,
    maps::CALLS,
    moved::moved,
    places::{current_task, place, read},
    slot,
    socket::{Plain, Socket as _, TCP},
    state,
    system_call::{MESSAGE_LENGTH, MOST_MESSAGES, current, is_compat, number},
};

/// Bits of an inode's mode that tell the kind of file, and their value for sockets.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// Place of the length in a `struct mmsghdr`.
const MESSAGE_MOVED: u64 = 56;

/// Looks at a system call that has ended with this result.
#[inline(always)]
pub(crate) fn ended(result: u64) {
    // Errors are negative.
    if result > u64::from(u32::MAX) || in_force().is_none() {
        return;
    }
    let system_call = current();
    let arguments = &system_call.arguments;
    let (descriptor, way, flags) = match system_call.number {
        number::WRITE
        | number::WRITEV
        | number::PWRITEV
        | number::PWRITEV2
        | number::SENDTO
        | number::SENDMSG
        | number::SENDMMSG
        | number::SENDFILE => (arguments[0], SENT, 0),
        number::READ | number::READV | number::PREADV | number::PREADV2 | number::SPLICE => {
            (arguments[0], RECEIVED, 0)
        }
        number::RECVFROM | number::RECVMMSG => (arguments[0], RECEIVED, arguments[3]),
        number::RECVMSG => (arguments[0], RECEIVED, arguments[2]),
        _ => return,
    };
    let flags = flags as i32;
    if flags & (flag::PEEK | flag::ERROR_QUEUE | flag::OUT_OF_BAND) != 0 || is_compat() {
        return;
    }
    let (socket, way) = match socket_of(descriptor) {
        Some(socket) => (socket, way),
        // From a pipe to a socket.
        None if system_call.number == number::SPLICE => {
            let Some(socket) = socket_of(arguments[2]) else { return };
            (socket, SENT)
        }
        None => return,
    };
    let socket = Plain(socket);
    if result == 0 && way == RECEIVED {
        state::has_read_end(socket);
    }
    let is_stream = socket.field::<u16>(place!(sock_protocol)) == TCP;
    let Some(call) = CALLS.get_ptr_mut(slot::ENDED) else { return };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &mut *call };
    call.socket = socket.0;
    call.origin = system_call;
    call.behind = 0;
    let count = if !system_call.is_of_messages() {
        1
    } else if result > MOST_MESSAGES {
        MOST_MESSAGES
    } else {
        result
    };
    let mut context = Context {
        amount: result as u32,
        way,
        is_discarded: flags & flag::TRUNCATE != 0 && is_stream,
        is_stream,
        count,
    };
    // SAFETY: the function and the context are what the helper expects.
    unsafe { bpf_loop(count as u32, message as *mut c_void, (&raw mut context).cast(), 0) };
}

struct Context {
    count: u64,
    amount: u32,
    way: u8,
    is_discarded: bool,
    is_stream: bool,
}

/// One message of the call, or all of it.
extern "C" fn message(index: u64, context: *mut Context) -> i64 {
    // SAFETY: the context outlives the loop.
    let context = unsafe { &*context };
    let Some(call) = CALLS.get_ptr_mut(slot::ENDED) else { return 1 };
    // SAFETY: a valid element, of this CPU and this program.
    let call: &mut Call = unsafe { &mut *call };
    let (socket, behind) = (call.socket, call.behind);
    if !call.origin.is_of_messages() {
        moved(slot::ENDED, Plain(socket), context.way, context.amount, context.is_discarded, 0, 0);
        return 1;
    }
    // Positions on a stream are known at its end, so the last message comes first.
    let index = if context.is_stream { context.count - 1 - index } else { index };
    let messages = call.origin.arguments[1];
    let mut amount = 0_u32;
    let place = messages.wrapping_add(index * MESSAGE_LENGTH + MESSAGE_MOVED);
    if !read_user(&mut amount, place) {
        return 1;
    }
    if context.is_stream {
        call.behind = behind + u64::from(amount);
    }
    moved(slot::ENDED, Plain(socket), context.way, amount, context.is_discarded, index, behind as u32);
    0
}

/// The socket of a descriptor of the task that runs this, if it is one.
#[inline(always)]
fn socket_of(descriptor: u64) -> Option<u64> {
    let files = read::<u64>(current_task(), place!(task_files))?;
    let table = read::<u64>(files, place!(files_table))?;
    let length = read::<u32>(table, place!(table_length))?;
    if descriptor >= u64::from(length) {
        return None;
    }
    let all = read::<u64>(table, place!(table_files))?;
    let file = read::<u64>(all.wrapping_add(descriptor * 8), 0)?;
    let inode = read::<u64>(file, place!(file_inode))?;
    if read::<u16>(inode, place!(inode_mode))? & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = read::<u64>(file, place!(file_private))?;
    // A file on disk can have the mode of a socket; only a real socket points back at its file.
    if read::<u64>(socket, place!(socket_file))? != file {
        return None;
    }
    let socket = read::<u64>(socket, place!(socket_sock))?;
    (socket != 0).then_some(socket)
}
