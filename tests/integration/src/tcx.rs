//! Somebody else's TCX program: it lets every packet go on.

use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::{
    Namespace,
    sock_ops::{bpf, command, load, op},
};

const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// The program, on both directions of an interface as long as this value lives.
#[derive(Debug)]
pub struct ForeignTcx {
    _links: [OwnedFd; 2],
}

impl ForeignTcx {
    /// Attaches it. Needs a kernel that knows TCX (6.6).
    pub fn attach(namespace: &Namespace, interface: &str) -> Self {
        let index =
            namespace.run(|| nix::net::if_::if_nametoindex(interface).expect("the interface is there"));
        // r0 = TCX_NEXT; exit
        let instructions = [op(0xb7, 0x00, 0, -1), op(0x95, 0x00, 0, 0)];
        let attach = |attach_type| {
            let program = load(PROG_TYPE_SCHED_CLS, attach_type, &instructions);
            // prog_fd, target_ifindex, attach_type, flags, expected position (none)
            let mut link = [program.as_raw_fd().cast_unsigned(), index, attach_type, 0, 0, 0, 0, 0];
            namespace.run(|| bpf(command::LINK_CREATE, &mut link))
        };
        Self { _links: [TCX_INGRESS, TCX_EGRESS].map(attach) }
    }
}
