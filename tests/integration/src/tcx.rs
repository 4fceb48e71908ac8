//! TCX programs: somebody else's, which lets every packet go on, and the end of ours.

use std::os::fd::{AsRawFd as _, OwnedFd};

use weir_datapath::hook::tcx_programs;

use crate::{
    Namespace,
    sock_ops::{bpf, command, load, op},
    tcp::wait_until,
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

/// Waits until none of our programs sees packets of an interface any more. Closing their links is not enough: processes
/// that other tests start have all descriptors, too, until they are another program.
pub fn until_ours_are_off(namespace: &Namespace, interface: &str) {
    wait_until("our programs are off", || {
        // Without TCX, or without the interface, there are none.
        let programs = namespace.run(|| tcx_programs(interface)).unwrap_or_default();
        !programs.iter().any(|program| program.name.starts_with("weir_"))
    });
}
