//! Layouts of the `drops` object: packets that the kernel dropped, by reason and place.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where fields lie in structures of the running kernel, in bytes from the start of the structure, and which reasons
/// are none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Settings {
    /// `struct sk_buff`: its device.
    pub skb_device: u32,
    /// The same: its socket.
    pub skb_sock: u32,
    /// The same: its EtherType.
    pub skb_protocol: u32,
    /// `struct net_device`: its index.
    pub device_index: u32,
    /// The same: its name.
    pub device_name: u32,
    /// The same: its network namespace.
    pub device_net: u32,
    /// `struct sock`: its network namespace.
    pub sock_net: u32,
    /// `struct net`: inode number of the namespace.
    pub net_inode: u32,
    /// A reason of packets that reached their end; the largest number where there is no such reason.
    pub consumed: u32,
}

/// What is counted together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropKey {
    /// Reason, by the kernel's own number.
    pub reason: u32,
    /// Index of the interface; 0 where the packet had none.
    pub ifindex: u32,
    /// Inode number of the network namespace; 0 where it is not known.
    pub netns: u32,
    /// Not used, zero.
    pub reserved: u32,
}

/// Counter of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropValue {
    /// Packets as the kernel handles them: a super-packet is one.
    pub packets: u64,
    /// Name of the interface, terminated by zero; on the CPU that saw it first.
    pub name: [u8; 16],
}

/// Words in a [`DropKey`].
pub const DROP_KEY_WORDS: usize = 2;
/// Words in a [`DropValue`].
pub const DROP_VALUE_WORDS: usize = 3;

/// Most combinations of reason and interface.
pub const DROP_ENTRIES: usize = 1024;

/// Reasons that are told apart where there is no room for a new combination. Higher ones share the last row.
pub const DROP_REASONS: usize = 512;

/// Lowest inode number of a namespace (`PROC_DYNAMIC_FIRST`, `include/linux/proc_fs.h`); what is lower is no namespace.
pub const FIRST_NAMESPACE: u32 = 0xf000_0000 - 16;

const _: () = {
    assert!(size_of::<DropKey>() == 8 * DROP_KEY_WORDS);
    assert!(size_of::<DropValue>() == 8 * DROP_VALUE_WORDS);
};
