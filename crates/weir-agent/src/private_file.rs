//! Files of which others must not know what is in them, written by a program that may be root in a directory that may be
//! anybody's.
//!
//! Promises that what is written can be read by the user of this process alone: links are not followed, a file of somebody
//! else is not written, and the rights of a file that was there are narrowed before anything is in it.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Rights of its owner alone.
const OWNER_ONLY: u32 = 0o600;

/// A file that is written anew. What was in it stays until the first byte is written, so that what fails before costs
/// nothing.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    is_begun: bool,
}

/// Opens a file to be written anew; pipes and devices are written as they are.
///
/// # Errors
///
/// The system's; that the file belongs to another user.
pub fn create(path: &Path) -> io::Result<NewFile> {
    let file = open(path, OpenOptions::new().write(true))?;
    Ok(NewFile { is_begun: !file.metadata()?.is_file(), file })
}

/// Opens a file to be added to.
///
/// # Errors
///
/// As of [`create`].
pub fn append(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().append(true))
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let no_links = OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.create(true).mode(OWNER_ONLY).custom_flags(no_links).open(path)?;
    let found = file.metadata()?;
    if found.is_file() {
        if found.uid() != rustix::process::geteuid().as_raw() {
            let text = "the file there belongs to another user: remove it, or name another one";
            return Err(io::Error::other(text));
        }
        file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    }
    Ok(file)
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_begun {
            self.file.set_len(0)?;
            self.is_begun = true;
        }
        self.file.write(bytes)
    }

    /// Also empties the file if nothing was written.
    fn flush(&mut self) -> io::Result<()> {
        self.write(&[])?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_there_stays_until_something_is_written_and_is_nobody_elses_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        fs::write(&path, "yesterday").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut file = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, OWNER_ONLY);
        assert_eq!(fs::read_to_string(&path).unwrap(), "yesterday");
        file.write_all(b"to").unwrap();
        file.write_all(b"day").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "today");
        append(&path).unwrap().write_all(b" and later").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "today and later");
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (precious, link) = (directory.path().join("precious"), directory.path().join("link"));
        fs::write(&precious, "kept").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        for opened in [create(&link).map(drop), append(&link).map(drop)] {
            assert_eq!(opened.unwrap_err().raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    }
}
