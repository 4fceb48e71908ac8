//! A device without link-layer headers, the other end of which is the test.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::Ipv4Addr,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
};

use crate::Namespace;

/// A tun device that is up. It goes away when dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    /// Interface index in its namespace.
    pub index: u32,
}

/// Name of the device.
pub const NAME: &str = "tun0";

impl Tun {
    /// Makes `tun0`, which has no such device yet, and gives it an address in a /24.
    pub fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let file = namespace.run(|| open().expect("root may make tun devices"));
        namespace.ip(&format!("address add {address}/24 dev {NAME}"));
        namespace.ip(&format!("link set {NAME} up"));
        let index = namespace.run(|| nix::net::if_::if_nametoindex(NAME).expect("we just made it"));
        Self { file, index }
    }

    /// Lets the node receive a packet that begins with its IP header.
    pub fn receive(&mut self, packet: &[u8]) {
        self.file.write_all(packet).expect("the device is up");
    }
}

fn open() -> io::Result<File> {
    let file = match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open_made_node()?,
        outcome => outcome?,
    };
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("flags have 16 bits");
    // SAFETY: the request outlives the call.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// Where nobody made the device node, as in a small virtual machine. Opening it loads the module.
fn open_made_node() -> io::Result<File> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tun");
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name outlives the call.
    let outcome = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(10, 200)) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    OpenOptions::new().read(true).write(true).open(path)
}
