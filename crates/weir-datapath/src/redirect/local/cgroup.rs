//! Where the cgroup of a number is.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

/// `FILEID_KERNFS`: a file handle that is the number of a file alone (since 5.5, 33c5ac9175195).
const KERNFS: i32 = 0xfe;

/// `struct file_handle` of a cgroup.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

/// The path of a cgroup below the place where its hierarchy is mounted.
pub(super) fn path(mount: &Path, id: u64) -> io::Result<PathBuf> {
    let mount = File::open(mount)?;
    let mut handle = Handle { bytes: 8, kind: KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the handle is as long as it says and outlives the call.
    let outcome =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, flags) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = i32::try_from(outcome).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    let cgroup = unsafe { OwnedFd::from_raw_fd(number) };
    fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd()))
}
