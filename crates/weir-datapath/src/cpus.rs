//! How many CPUs the kernel may number.

use std::{fs, io};

/// Where the kernel lists the CPUs that may ever be there, as in `0-3,8`.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// The highest number that a CPU may have. Numbers below it may be missing, so this, and not how many there are, decides
/// the size of what CPUs index.
pub(crate) fn highest_possible() -> io::Result<u32> {
    let list = fs::read_to_string(POSSIBLE)?;
    highest(&list).ok_or_else(|| {
        let text = format!("{POSSIBLE} holds {:?} and not a list of CPUs", list.trim());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The highest number in a list of numbers and ranges.
fn highest(list: &str) -> Option<u32> {
    let numbers: Result<Vec<u32>, _> = list.trim().split([',', '-']).map(str::parse).collect();
    numbers.ok()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_cpu_counts_and_not_their_number() {
        for (list, expected) in [
            ("0\n", Some(0)),
            ("0-1\n", Some(1)),
            ("0-3,8-11\n", Some(11)),
            ("0,4\n", Some(4)),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(highest(list), expected, "{list:?}");
        }
        assert!(highest_possible().is_ok());
    }
}
