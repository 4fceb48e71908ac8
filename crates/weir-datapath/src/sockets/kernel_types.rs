//! Reads the kernel's own type information (BTF) as far as it takes to find where fields of structures lie.
//!
//! The parser of aya-obj keeps the members of structures to itself, and it makes an object of each of the 150,000
//! types; this one looks up a handful of names in the raw bytes. Format: Documentation/bpf/btf.rst.

use std::{fs, io};

use thiserror::Error;
use weir_common::sockets::Offsets;

const PATH: &str = "/sys/kernel/btf/vmlinux";

/// Why fields cannot be found.
#[derive(Debug, Error)]
pub enum KernelTypesError {
    /// The kernel does not describe itself.
    #[error("cannot read {PATH}: use a kernel with CONFIG_DEBUG_INFO_BTF")]
    Read(#[source] io::Error),
    /// The description makes no sense to us.
    #[error("cannot make sense of {PATH}: {0}")]
    Format(&'static str),
    /// This kernel has no such field.
    #[error("this kernel has no field {field} in struct {structure}")]
    NoField {
        /// The structure.
        structure: &'static str,
        /// Its member.
        field: &'static str,
    },
}

/// Kinds of types that matter here (`BTF_KIND_*`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FORWARD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
    /// The last one known. A newer one may be longer than we think, so reading cannot go on after it.
    pub(super) const LAST: u32 = ENUM64;
}

/// Deepest nesting of anonymous members that is followed.
const DEPTH_LIMIT: usize = 8;

/// The type information of a kernel.
pub(crate) struct KernelTypes {
    bytes: Vec<u8>,
    /// Where each type begins, in `bytes`; the type with number n is at n - 1.
    types: Vec<u32>,
    /// Where the strings begin, in `bytes`.
    strings: usize,
}

/// A bit field or an ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bits from the start of the structure.
    pub(crate) bit_offset: u32,
}

impl KernelTypes {
    /// Reads those of the running kernel.
    pub(crate) fn of_running_kernel() -> Result<Self, KernelTypesError> {
        Self::parse(fs::read(PATH).map_err(KernelTypesError::Read)?)
    }

    /// Finds where types begin.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, KernelTypesError> {
        let short = || KernelTypesError::Format("it is cut short");
        let header = |position| read_u32(&bytes, position).ok_or_else(short);
        // magic (16 bits), version, flags, header length, offset and length of types, the same of strings
        if header(0)? & 0xffff != MAGIC {
            return Err(KernelTypesError::Format("it does not start with the magic number of BTF"));
        }
        let header_length = header(4)? as usize;
        let first_type = header_length + header(8)? as usize;
        let end = first_type + header(12)? as usize;
        let strings = header_length + header(16)? as usize;
        let mut types = Vec::new();
        let mut position = first_type;
        while position < end {
            let info = read_u32(&bytes, position + 4).ok_or_else(short)?;
            let extra =
                extra_length(info).ok_or(KernelTypesError::Format("it has kinds of types that are new"))?;
            let Ok(start) = u32::try_from(position) else {
                return Err(KernelTypesError::Format("it is longer than 4 GiB"));
            };
            types.push(start);
            position += TYPE_LENGTH + extra;
        }
        Ok(Self { bytes, types, strings })
    }

    /// The number of the type of that kind and name.
    fn find(&self, wanted: u32, name: &str) -> Option<u32> {
        let position = self.types.iter().position(|&position| {
            let position = position as usize;
            let info = read_u32(&self.bytes, position + 4);
            info.is_some_and(|info| kind_of(info) == wanted)
                && read_u32(&self.bytes, position).is_some_and(|offset| self.is_string(offset, name))
        })?;
        u32::try_from(position + 1).ok()
    }

    /// Type information in which a function of the kernel has the number that it has in the kernel, and all else is
    /// empty. The loader wants nothing but that number, and would make 12 MB of objects of the whole.
    pub(crate) fn function_alone(&self, name: &str) -> Option<Vec<u8>> {
        Self::alone(&[(kind::FUNC, name, self.find(kind::FUNC, name)?)])
    }

    /// The same for several functions and tracepoints, as far as the kernel has them.
    pub(crate) fn hooks_alone(&self, functions: &[&str], tracepoints: &[&str]) -> Option<Vec<u8>> {
        let tracepoints: Vec<_> = tracepoints.iter().map(|name| tracepoint_type(name)).collect();
        let functions = functions.iter().map(|name| (kind::FUNC, *name));
        let types = functions.chain(tracepoints.iter().map(|name| (kind::TYPEDEF, name.as_str())));
        let mut found: Vec<_> =
            types.filter_map(|(kind, name)| Some((kind, name, self.find(kind, name)?))).collect();
        found.sort_unstable_by_key(|(_, _, number)| *number);
        Self::alone(&found)
    }

    /// Whether the kernel has such a tracepoint.
    pub(crate) fn has_tracepoint(&self, name: &str) -> bool {
        self.find(kind::TYPEDEF, &tracepoint_type(name)).is_some()
    }

    /// Whether the kernel has such a function.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.find(kind::FUNC, name).is_some()
    }

    /// Types by kind, name and number, ascending, and nothing else.
    fn alone(wanted: &[(u32, &str, u32)]) -> Option<Vec<u8>> {
        let mut strings = vec![0];
        let mut types = Vec::new();
        for &(kind, name, number) in wanted {
            let empty = [0, kind::FORWARD << 24, 0];
            let before = u32::try_from(types.len() / empty.len()).ok()?;
            types.extend((before + 1..number).flat_map(|_| empty));
            // A function names its type, which must be one; the type of a typedef may be missing.
            let of = u32::from(kind == kind::FUNC);
            types.extend([u32::try_from(strings.len()).ok()?, kind << 24, of]);
            strings.extend(name.bytes());
            strings.push(0);
        }
        let types_length = u32::try_from(types.len() * 4).ok()?;
        let strings_length = u32::try_from(strings.len()).ok()?;
        let header = [MAGIC | 1 << 16, HEADER_LENGTH, 0, types_length, types_length, strings_length];
        let mut bytes: Vec<u8> = header.into_iter().chain(types).flat_map(u32::to_ne_bytes).collect();
        bytes.extend(strings);
        Some(bytes)
    }

    /// Size of a structure in bytes.
    pub(crate) fn size(&self, structure: &str) -> Option<u32> {
        let start = *self.types.get(self.find(kind::STRUCT, structure)? as usize - 1)? as usize;
        read_u32(&self.bytes, start + 8)
    }

    /// Where a member of a structure lies. Members of anonymous structures and unions inside count as its own.
    pub(crate) fn field(&self, structure: &str, field: &str) -> Option<Field> {
        self.member(self.find(kind::STRUCT, structure)?, field, DEPTH_LIMIT)
    }

    fn member(&self, type_number: u32, name: &str, depth: usize) -> Option<Field> {
        let start = *self.types.get((type_number as usize).checked_sub(1)?)? as usize;
        let info = read_u32(&self.bytes, start + 4)?;
        if depth == 0 || !matches!(kind_of(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        (0..member_count(info)).find_map(|index| {
            let member = start + TYPE_LENGTH + index * MEMBER_LENGTH;
            let name_offset = read_u32(&self.bytes, member)?;
            let member_type = read_u32(&self.bytes, member + 4)?;
            let offset = read_u32(&self.bytes, member + 8)?;
            // With bit fields in the structure, the upper byte is the width in bits.
            let bit_offset = if info >> 31 == 1 { offset & 0x00ff_ffff } else { offset };
            if self.is_string(name_offset, name) {
                return Some(Field { bit_offset });
            }
            if self.is_string(name_offset, "") {
                let inner = self.member(member_type, name, depth - 1)?;
                return Some(Field { bit_offset: bit_offset + inner.bit_offset });
            }
            None
        })
    }

    /// Bytes from the start of a structure to a member of it.
    pub(crate) fn offset(
        &self,
        structure: &'static str,
        field: &'static str,
    ) -> Result<u32, KernelTypesError> {
        Ok(self.required(structure, field)?.bit_offset / 8)
    }

    /// As [`Self::field`], for what has to be there.
    pub(crate) fn required(
        &self,
        structure: &'static str,
        field: &'static str,
    ) -> Result<Field, KernelTypesError> {
        self.field(structure, field).ok_or(KernelTypesError::NoField { structure, field })
    }

    /// Where a field of `struct sock_common` is in `struct sock`, in bytes.
    pub(crate) fn sock_offset(&self, field: &'static str) -> Result<u32, KernelTypesError> {
        Ok(self.offset("sock", "__sk_common")? + self.offset("sock_common", field)?)
    }

    /// The constants of an enumeration: name and value.
    pub(crate) fn enumeration(&self, name: &str) -> Option<Vec<(String, u32)>> {
        let start = *self.types.get(self.find(kind::ENUM, name)? as usize - 1)? as usize;
        let info = read_u32(&self.bytes, start + 4)?;
        let constant = |index: usize| {
            let position = start + TYPE_LENGTH + index * ENUMERATOR_LENGTH;
            let name = self.string(read_u32(&self.bytes, position)?)?;
            Some((name, read_u32(&self.bytes, position + 4)?))
        };
        (0..member_count(info)).map(constant).collect()
    }

    /// The name of the enumeration that a parameter of a function type has, where the parameter is one. The function type
    /// is found by the name of a pointer to it.
    pub(crate) fn parameter_enumeration(&self, pointer_type: &str, parameter: usize) -> Option<String> {
        let follow = |number: u32| {
            let start = *self.types.get((number as usize).checked_sub(1)?)? as usize;
            Some((start, read_u32(&self.bytes, start + 4)?))
        };
        let (start, _) = follow(self.find(kind::TYPEDEF, pointer_type)?)?;
        let (start, info) = follow(read_u32(&self.bytes, start + 8)?)?;
        if kind_of(info) != kind::POINTER {
            return None;
        }
        let (start, info) = follow(read_u32(&self.bytes, start + 8)?)?;
        if kind_of(info) != kind::FUNC_PROTO || parameter >= member_count(info) {
            return None;
        }
        let (start, info) =
            follow(read_u32(&self.bytes, start + TYPE_LENGTH + parameter * PARAMETER_LENGTH + 4)?)?;
        if kind_of(info) != kind::ENUM {
            return None;
        }
        self.string(read_u32(&self.bytes, start)?)
    }

    fn string(&self, offset: u32) -> Option<String> {
        let rest = self.bytes.get(self.strings + offset as usize..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn is_string(&self, offset: u32, text: &str) -> bool {
        let rest = self.bytes.get(self.strings + offset as usize..).unwrap_or_default();
        rest.strip_prefix(text.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Everything that the walk over open sockets has to know, and the bit of `Offsets::sock_v6only`.
pub(crate) fn socket_offsets(types: &KernelTypes) -> Result<(Offsets, u8), KernelTypesError> {
    let bytes = |structure, field| types.offset(structure, field);
    let sock = |field| types.sock_offset(field);
    let v6only = types.required("sock_common", "skc_ipv6only")?.bit_offset;
    let offsets = Offsets {
        file_inode: bytes("file", "f_inode")?,
        file_private: bytes("file", "private_data")?,
        inode_mode: bytes("inode", "i_mode")?,
        socket_file: bytes("socket", "file")?,
        socket_sock: bytes("socket", "sk")?,
        sock_family: sock("skc_family")?,
        sock_protocol: bytes("sock", "sk_protocol")?,
        sock_state: sock("skc_state")?,
        sock_v6only: sock("skc_ipv6only")?,
        sock_local_port: sock("skc_num")?,
        sock_remote_port: sock("skc_dport")?,
        sock_local_v4: sock("skc_rcv_saddr")?,
        sock_remote_v4: sock("skc_daddr")?,
        sock_local_v6: sock("skc_v6_rcv_saddr")?,
        sock_remote_v6: sock("skc_v6_daddr")?,
        // possible_net_t has the pointer as its only member.
        sock_net: sock("skc_net")?,
        sock_cookie: sock("skc_cookie")?,
        net_inode: bytes("net", "ns")? + bytes("ns_common", "inum")?,
        task_leader: bytes("task_struct", "group_leader")?,
        task_pid: bytes("task_struct", "thread_pid")?,
        task_started: bytes("task_struct", "start_boottime")?,
        task_command: bytes("task_struct", "comm")?,
        pid_level: bytes("pid", "level")?,
        pid_numbers: bytes("pid", "numbers")?,
        pid_number_size: types
            .size("upid")
            .ok_or(KernelTypesError::NoField { structure: "upid", field: "nr" })?,
        pid_number: bytes("upid", "nr")?,
    };
    Ok((offsets, 1 << (v6only % 8)))
}

/// The name of the type that stands for a tracepoint.
fn tracepoint_type(name: &str) -> String {
    format!("btf_trace_{name}")
}

const MAGIC: u32 = 0xeb9f;
const HEADER_LENGTH: u32 = 24;
const TYPE_LENGTH: usize = 12;
const MEMBER_LENGTH: usize = 12;
const ENUMERATOR_LENGTH: usize = 8;
const PARAMETER_LENGTH: usize = 8;

const fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

const fn member_count(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that follow the common part of a type.
const fn extra_length(info: u32) -> Option<usize> {
    let count = member_count(info);
    match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => Some(4),
        kind::ARRAY => Some(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Some(count * 12),
        kind::ENUM | kind::FUNC_PROTO => Some(count * 8),
        0..=kind::LAST => Some(0),
        _ => None,
    }
}

fn read_u32(bytes: &[u8], position: usize) -> Option<u32> {
    let bytes = bytes.get(position..position.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type information made by hand: `struct outer { u32 first; union { u64 a; struct { u16 b; u16 c:3; }; }; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0first\0a\0b\0c\0int\0walk\0";
        let name = |text: &str| {
            let terminated = format!("\0{text}\0");
            let position =
                strings.windows(terminated.len()).position(|window| window == terminated.as_bytes());
            u32::try_from(position.unwrap() + 1).unwrap()
        };
        let info = |kind: u32, count: u32, has_bit_fields: u32| has_bit_fields << 31 | kind << 24 | count;
        let types: Vec<u32> = [
            vec![name("int"), info(kind::INT, 0, 0), 4, 32],
            vec![name("outer"), info(kind::STRUCT, 2, 0), 16, name("first"), 1, 0, 0, 3, 64],
            vec![0, info(kind::UNION, 2, 0), 8, name("a"), 1, 0, 0, 4, 0],
            vec![0, info(kind::STRUCT, 2, 1), 4, name("b"), 1, 0, name("c"), 1, 3 << 24 | 16],
            vec![name("walk"), info(kind::FUNC, 0, 0), 0],
        ]
        .concat();
        let type_bytes: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = u32::try_from(type_bytes.len()).unwrap();
        let header = [0x0001_eb9f, 24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        bytes.extend(type_bytes);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_of_anonymous_parts_are_members_of_the_whole() {
        let types = KernelTypes::parse(sample()).unwrap();
        for (field, expect) in
            [("first", Some(0)), ("a", Some(64)), ("b", Some(64)), ("c", Some(80)), ("firs", None)]
        {
            let found = types.field("outer", field).map(|field| field.bit_offset);
            assert_eq!(found, expect, "{field}");
        }
        assert_eq!(types.size("outer"), Some(16));
        assert_eq!(types.size("int"), None);
        assert_eq!(types.field("nothing", "first"), None);
    }

    #[test]
    fn a_function_alone_keeps_its_number() {
        let types = KernelTypes::parse(sample()).unwrap();
        let alone = KernelTypes::parse(types.function_alone("walk").unwrap()).unwrap();
        assert_eq!(alone.find(kind::FUNC, "walk"), types.find(kind::FUNC, "walk"));
        assert_eq!(alone.find(kind::FUNC, "walk"), Some(5));
        assert_eq!(types.function_alone("outer"), None);
        let both = types.hooks_alone(&["walk", "missing"], &["missing"]).unwrap();
        assert_eq!(KernelTypes::parse(both).unwrap().find(kind::FUNC, "walk"), Some(5));
    }

    #[test]
    fn cut_or_foreign_bytes_are_an_error_or_find_nothing() {
        let sample = sample();
        for length in 0..sample.len() {
            if let Ok(types) = KernelTypes::parse(sample[..length].to_vec()) {
                types.field("outer", "c");
            }
        }
        assert!(KernelTypes::parse(vec![0; 64]).is_err());
    }

    #[test]
    fn a_kernel_without_a_field_names_it() {
        let types = KernelTypes::parse(sample()).unwrap();
        let error = socket_offsets(&types).unwrap_err().to_string();
        assert!(error.starts_with("this kernel has no field "), "{error}");
    }

    #[test]
    fn the_running_kernel_describes_its_sockets_if_it_describes_itself() {
        let Ok(types) = KernelTypes::of_running_kernel() else {
            println!("skipped: this kernel has no type information");
            return;
        };
        let (offsets, v6only) = socket_offsets(&types).unwrap();
        // The first members of struct sock_common are the same in every kernel that we support.
        assert_eq!((offsets.sock_remote_v4, offsets.sock_local_v4), (0, 4));
        assert_eq!((offsets.sock_remote_port, offsets.sock_local_port), (12, 14));
        assert_eq!(offsets.sock_family, 16);
        assert!(v6only.is_power_of_two());
    }
}
