//! Every way to send and to receive, for the self check and for tests.
//!
//! Nothing here looks at what is moved, nor waits for more than one call does.

use std::{
    fmt,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _},
    ptr,
};

use crate::tap::GapReason;
use nix::unistd::pipe;

/// A way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// `write`
    Write,
    /// `sendto` without an address
    Send,
    /// `writev` with that many segments, some of them empty
    Writev(usize),
    /// `pwritev2`
    Pwritev2,
    /// `sendmsg` with five segments
    SendMsg,
    /// `sendmmsg` with that many messages
    SendMmsg(usize),
    /// `send` with `MSG_ZEROCOPY`
    ZeroCopy,
    /// `sendfile`
    Sendfile,
    /// `splice` from a pipe
    Splice,
    /// `write` by the 32-bit interface of x86-64. Where the kernel has none, the process is killed.
    Compat,
}

/// A way to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// `read`
    Read,
    /// `recvfrom` without an address
    Recv,
    /// `readv` with that many segments
    Readv(usize),
    /// `preadv2`
    Preadv2,
    /// `recvmsg` with five segments
    RecvMsg,
    /// `recvmmsg` with that many messages
    RecvMmsg(usize),
    /// `recv` with `MSG_WAITALL`
    WaitAll,
    /// `recv` with `MSG_PEEK`, and then `read`
    PeekAndRead,
    /// `recv` with `MSG_TRUNC`: nothing is copied
    Truncate,
    /// `splice` to a pipe
    Splice,
}

impl Send {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Write,
        Self::Send,
        Self::Writev(3),
        Self::Writev(42),
        Self::Pwritev2,
        Self::SendMsg,
        Self::SendMmsg(1),
        Self::SendMmsg(3),
        Self::ZeroCopy,
        Self::Sendfile,
        Self::Splice,
        Self::Compat,
    ];

    /// Why its bytes are not copied, if they are not. Messages are counted.
    pub const fn gap(self) -> Option<GapReason> {
        match self {
            Self::Sendfile => Some(GapReason::Sendfile),
            Self::Splice => Some(GapReason::Splice),
            Self::Compat => Some(GapReason::Compat),
            _ => None,
        }
    }

    /// Sends everything, by as many calls as it takes.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn all(self, socket: &impl AsFd, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.once(socket.as_fd(), &bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One call. Returns how much it has sent.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn once(self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        match self {
            Self::Write => Ok(nix::unistd::write(socket, bytes)?),
            Self::Send => send(fd, bytes, 0),
            Self::ZeroCopy => {
                let one = 1_i32;
                let (level, name) = (libc::SOL_SOCKET, libc::SO_ZEROCOPY);
                // SAFETY: the option is a number of four bytes.
                let outcome = unsafe { libc::setsockopt(fd, level, name, (&raw const one).cast(), 4) };
                if outcome < 0 {
                    return Err(io::Error::last_os_error());
                }
                // SAFETY: the bytes outlive the call; that the kernel reads them later is what loopback rules out.
                result(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) })
            }
            Self::Writev(count) => {
                let segments = segments(bytes, count);
                Ok(nix::sys::uio::writev(socket, &segments)?)
            }
            Self::Pwritev2 => {
                let segments = segments(bytes, 3);
                let length = i32::try_from(segments.len()).map_err(io::Error::other)?;
                // SAFETY: the segments are laid out as the kernel's, and outlive the call. Sockets have no offset: -1.
                result(unsafe { libc::pwritev2(fd, segments.as_ptr().cast(), length, -1, 0) })
            }
            Self::SendMsg => {
                let segments = segments(bytes, 5);
                let message = message(&segments);
                // SAFETY: the message refers to segments that outlive the call.
                result(unsafe { libc::sendmsg(fd, &raw const message, 0) })
            }
            Self::SendMmsg(count) => send_messages(fd, bytes, count),
            Self::Sendfile => {
                let mut file = memory_file()?;
                file.write_all(bytes)?;
                let mut offset = 0;
                // SAFETY: both descriptors are open, and the offset is ours.
                result(unsafe { libc::sendfile(fd, file.as_raw_fd(), &raw mut offset, bytes.len()) })
            }
            Self::Splice => {
                let (out, into) = pipe()?;
                let length = bytes.len().min(32 << 10);
                nix::unistd::write(&into, &bytes[..length])?;
                let null = ptr::null_mut();
                // SAFETY: both descriptors are open.
                result(unsafe { libc::splice(out.as_raw_fd(), null, fd, null, length, 0) })
            }
            Self::Compat => compat_write(fd, bytes),
        }
    }
}

impl Receive {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Recv,
        Self::Readv(3),
        Self::Readv(42),
        Self::Preadv2,
        Self::RecvMsg,
        Self::RecvMmsg(1),
        Self::RecvMmsg(3),
        Self::WaitAll,
        Self::PeekAndRead,
        Self::Truncate,
        Self::Splice,
    ];

    /// Receives so many bytes, by as many calls as it takes.
    ///
    /// # Errors
    ///
    /// That of the call; that the stream ended.
    pub fn all(self, socket: &impl AsFd, length: usize) -> io::Result<()> {
        let mut buffer = vec![0; length];
        let mut received = 0;
        while received < length {
            match self.once(socket.as_fd(), &mut buffer[received..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => received += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One call. Returns how much it has received.
    ///
    /// # Errors
    ///
    /// That of the call.
    pub fn once(self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        match self {
            Self::Read => Ok(nix::unistd::read(socket, buffer)?),
            Self::Recv => receive(fd, buffer, 0),
            Self::WaitAll => receive(fd, buffer, libc::MSG_WAITALL),
            Self::Truncate => receive(fd, buffer, libc::MSG_TRUNC),
            Self::PeekAndRead => {
                receive(fd, buffer, libc::MSG_PEEK)?;
                Ok(nix::unistd::read(socket, buffer)?)
            }
            Self::Readv(count) => {
                let mut segments = segments_mut(buffer, count);
                Ok(nix::sys::uio::readv(socket, &mut segments)?)
            }
            Self::Preadv2 => {
                let segments = segments_mut(buffer, 3);
                let length = i32::try_from(segments.len()).map_err(io::Error::other)?;
                // SAFETY: as for `pwritev2`.
                result(unsafe { libc::preadv2(fd, segments.as_ptr().cast(), length, -1, 0) })
            }
            Self::RecvMsg => {
                let segments = segments_mut(buffer, 5);
                let mut message = message_mut(&segments);
                // SAFETY: as for `sendmsg`.
                result(unsafe { libc::recvmsg(fd, &raw mut message, 0) })
            }
            Self::RecvMmsg(count) => receive_messages(fd, buffer, count),
            Self::Splice => {
                let (mut out, into) = pipe()?;
                let null = ptr::null_mut();
                let length = buffer.len().min(32 << 10);
                // SAFETY: both descriptors are open.
                let count = result(unsafe { libc::splice(fd, null, into.as_raw_fd(), null, length, 0) })?;
                let mut copied = 0;
                while copied < count {
                    copied += nix::unistd::read(&mut out, &mut buffer[copied..count])?;
                }
                Ok(count)
            }
        }
    }
}

impl fmt::Display for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write => write!(f, "write"),
            Self::Send => write!(f, "send"),
            Self::Writev(count) => write!(f, "writev, {count} segments"),
            Self::Pwritev2 => write!(f, "pwritev2"),
            Self::SendMsg => write!(f, "sendmsg"),
            Self::SendMmsg(1) => write!(f, "sendmmsg"),
            Self::SendMmsg(count) => write!(f, "sendmmsg, {count} messages"),
            Self::ZeroCopy => write!(f, "send, MSG_ZEROCOPY"),
            Self::Sendfile => write!(f, "sendfile"),
            Self::Splice => write!(f, "splice from a pipe"),
            Self::Compat => write!(f, "write, 32 bits"),
        }
    }
}

impl fmt::Display for Receive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => write!(f, "read"),
            Self::Recv => write!(f, "recv"),
            Self::Readv(count) => write!(f, "readv, {count} segments"),
            Self::Preadv2 => write!(f, "preadv2"),
            Self::RecvMsg => write!(f, "recvmsg"),
            Self::RecvMmsg(1) => write!(f, "recvmmsg"),
            Self::RecvMmsg(count) => write!(f, "recvmmsg, {count} messages"),
            Self::WaitAll => write!(f, "recv, MSG_WAITALL"),
            Self::PeekAndRead => write!(f, "recv, MSG_PEEK, and read"),
            Self::Truncate => write!(f, "recv, MSG_TRUNC"),
            Self::Splice => write!(f, "splice to a pipe"),
        }
    }
}

/// A file that is nowhere but in memory.
fn memory_file() -> io::Result<File> {
    // SAFETY: makes a descriptor; the name ends with a zero.
    let descriptor = unsafe { libc::memfd_create(c"weir".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

fn result(outcome: isize) -> io::Result<usize> {
    usize::try_from(outcome).ok().ok_or_else(io::Error::last_os_error)
}

fn send(fd: i32, bytes: &[u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the bytes outlive the call.
    result(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn receive(fd: i32, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the buffer outlives the call.
    result(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Where segments end: the third of every five is empty, as far as the bytes allow.
fn ends(length: usize, count: usize) -> Vec<usize> {
    let mut ends: Vec<_> = (1..=count).map(|index| length * index / count).collect();
    for index in (2..count.saturating_sub(1)).step_by(5) {
        ends[index] = ends[index - 1];
    }
    ends
}

fn segments(bytes: &[u8], count: usize) -> Vec<IoSlice<'_>> {
    let mut start = 0;
    let slice = |end: usize| IoSlice::new(&bytes[std::mem::replace(&mut start, end)..end]);
    ends(bytes.len(), count).into_iter().map(slice).collect()
}

fn segments_mut(buffer: &mut [u8], count: usize) -> Vec<IoSliceMut<'_>> {
    let (mut rest, mut start) = (buffer, 0);
    let mut segments = Vec::with_capacity(count);
    let length = rest.len();
    for end in ends(length, count) {
        let (segment, behind) = rest.split_at_mut(end - start);
        segments.push(IoSliceMut::new(segment));
        (rest, start) = (behind, end);
    }
    segments
}

fn empty_message() -> libc::msghdr {
    // SAFETY: numbers and pointers, all of which may be zero.
    unsafe { std::mem::zeroed() }
}

fn message(segments: &[IoSlice<'_>]) -> libc::msghdr {
    let mut message = empty_message();
    message.msg_iov = segments.as_ptr().cast_mut().cast();
    message.msg_iovlen = segments.len();
    message
}

fn message_mut(segments: &[IoSliceMut<'_>]) -> libc::msghdr {
    let mut message = empty_message();
    message.msg_iov = segments.as_ptr().cast_mut().cast();
    message.msg_iovlen = segments.len();
    message
}

fn send_messages(fd: i32, bytes: &[u8], count: usize) -> io::Result<usize> {
    let ends = ends(bytes.len(), count);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let parts: Vec<_> = starts.zip(&ends).map(|(start, end)| segments(&bytes[start..*end], 2)).collect();
    let mut messages: Vec<_> =
        parts.iter().map(|part| libc::mmsghdr { msg_hdr: message(part), msg_len: 7 }).collect();
    let length = u32::try_from(count).map_err(io::Error::other)?;
    // SAFETY: the messages refer to segments that outlive the call.
    let outcome = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), length, 0) };
    let sent = usize::try_from(outcome).ok().ok_or_else(io::Error::last_os_error)?;
    Ok(messages[..sent].iter().map(|message| message.msg_len as usize).sum())
}

fn receive_messages(fd: i32, buffer: &mut [u8], count: usize) -> io::Result<usize> {
    let length = buffer.len();
    let mut rest = buffer;
    let mut parts = Vec::new();
    let mut start = 0;
    for end in ends(length, count) {
        let (part, behind) = rest.split_at_mut(end - start);
        parts.push(segments_mut(part, 2));
        (rest, start) = (behind, end);
    }
    let mut messages: Vec<_> =
        parts.iter().map(|part| libc::mmsghdr { msg_hdr: message_mut(part), msg_len: 7 }).collect();
    let length = u32::try_from(count).map_err(io::Error::other)?;
    // All at once or as many as fit: a message that is only partly filled would leave a hole in our buffer.
    let flags = libc::MSG_WAITALL;
    // SAFETY: the messages refer to segments that outlive the call.
    let outcome = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), length, flags, ptr::null_mut()) };
    let received = usize::try_from(outcome).ok().ok_or_else(io::Error::last_os_error)?;
    Ok(messages[..received].iter().map(|message| message.msg_len as usize).sum())
}

/// There is no such interface.
#[cfg(not(target_arch = "x86_64"))]
fn compat_write(_fd: i32, _bytes: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `write` of the 32-bit interface, which takes 32-bit addresses.
#[cfg(target_arch = "x86_64")]
fn compat_write(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len().clamp(1, 1 << 20);
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: new memory, which nobody else knows.
    let low = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
    if low == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: there is room for that many bytes.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), low.cast(), bytes.len().min(length)) };
    let mut outcome: u64 = 4;
    // SAFETY: a system call with the arguments that it takes. rbx is the compiler's, and is put back.
    unsafe {
        std::arch::asm!(
            "xchg {fd:r}, rbx",
            "int 0x80",
            "xchg {fd:r}, rbx",
            fd = inout(reg) u64::try_from(fd).unwrap_or(0) => _,
            inout("rax") outcome,
            in("rcx") low,
            in("rdx") bytes.len().min(length),
        );
    };
    // SAFETY: it was mapped above.
    unsafe { libc::munmap(low, length) };
    let low_half = u32::try_from(outcome & u64::from(u32::MAX)).expect("it has 32 bits");
    let outcome = low_half.cast_signed();
    usize::try_from(outcome).ok().ok_or_else(|| io::Error::from_raw_os_error(-outcome))
}
