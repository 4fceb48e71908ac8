//! The release of the running kernel and the configuration that it was built with.

use std::{fmt, fs, io::Read};

/// Longest configuration that is read, compressed or not; real ones have about 300 KiB.
const CONFIG_LIMIT: u64 = 4 << 20;

/// A kernel release such as `6.1.0-13-amd64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    major: u32,
    minor: u32,
    text: String,
}

impl Release {
    /// Reads major and minor number; what cannot be read is 0, so that such a kernel counts as old.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text
            .trim()
            .split(|character: char| !character.is_ascii_digit())
            .map(|number| number.parse().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { major, minor, text: text.trim().to_owned() }
    }

    /// Whether this release is `major.minor` or newer.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The text of the kernel's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(String);

impl Config {
    /// Takes the text of a configuration file.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Reads the configuration of the running kernel: from the kernel itself, else from where distributions put it.
    pub fn of_running_kernel(release: &Release) -> Option<Self> {
        if let Some(text) = read_limited("/proc/config.gz").and_then(|bytes| gunzip(&bytes)) {
            return Some(Self(text));
        }
        [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")]
            .iter()
            .find_map(|path| String::from_utf8(read_limited(path)?).ok())
            .map(Self)
    }

    /// Value of an option such as `HZ`, without the quotes of a text: `y`, `m`, a number or a text; `None` where the
    /// option is off or unknown to that kernel.
    pub fn value(&self, option: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let value = line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('=')?;
            Some(value.trim().trim_matches('"'))
        })
    }

    /// Whether an option is built in or a module.
    pub fn has(&self, option: &str) -> bool {
        matches!(self.value(option), Some("y" | "m"))
    }
}

fn read_limited(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(CONFIG_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Unpacks a gzip file without optional header fields (RFC 1952 2.3), which is how the kernel's build makes it.
fn gunzip(bytes: &[u8]) -> Option<String> {
    const HEADER_LENGTH: usize = 10;
    const TRAILER_LENGTH: usize = 8;
    let ([0x1f, 0x8b, 8, 0, ..], true) = (bytes, bytes.len() > HEADER_LENGTH + TRAILER_LENGTH) else {
        return None;
    };
    let packed = &bytes[HEADER_LENGTH..bytes.len() - TRAILER_LENGTH];
    let limit = usize::try_from(CONFIG_LIMIT).ok()?;
    let unpacked = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, limit).ok()?;
    String::from_utf8(unpacked).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_their_numbers() {
        for (text, major, minor, expect) in [
            ("6.18.44-fc", 6, 6, true),
            ("6.6.0", 6, 6, true),
            ("6.5.13", 6, 6, false),
            ("5.10.0-32-amd64", 5, 10, true),
            ("5.4.0", 5, 10, false),
            ("6.12-rc1", 6, 12, true),
            ("7+", 6, 6, true),
            ("unreadable", 0, 1, false),
            ("", 0, 1, false),
        ] {
            assert_eq!(Release::parse(text).is_at_least(major, minor), expect, "{text}");
        }
    }

    #[test]
    fn options_are_found_by_their_whole_name() {
        let config = Config::from_text(
            "CONFIG_HZ=250\nCONFIG_HZ_250=y\n# CONFIG_HZ_100 is not set\nCONFIG_NET_CLS_BPF=m\nCONFIG_CC=\"gcc 12\"\n",
        );
        assert_eq!(config.value("HZ"), Some("250"));
        assert_eq!(config.value("H"), None);
        assert_eq!(config.value("CC"), Some("gcc 12"));
        assert!(config.has("NET_CLS_BPF"));
        assert!(config.has("HZ_250"));
        assert!(!config.has("HZ_100"));
    }

    #[test]
    fn broken_archives_are_no_configuration() {
        for bytes in [&b""[..], b"\x1f\x8b\x08\x00", &[0x1f; 40], b"CONFIG_HZ=250 and some more text"] {
            assert_eq!(gunzip(bytes), None);
        }
    }
}
