//! [`RotatedFile`]: a file that is renamed when it is large; FIFOs and devices are just written to.

use std::{
    fs::{File, OpenOptions, metadata, rename},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::stream::wait_writable;
use crate::{journal, outlet::Patience};

/// A file to append to.
pub(super) struct RotatedFile {
    path: PathBuf,
    most_bytes: u64,
    keep: u32,
    file: Option<File>,
    bytes: u64,
    /// FIFOs, sockets and devices are never renamed.
    is_regular: bool,
    has_complained: bool,
}

impl RotatedFile {
    pub(super) fn new(path: PathBuf, most_bytes: u64, keep: u32) -> Self {
        Self { path, most_bytes, keep, file: None, bytes: 0, is_regular: true, has_complained: false }
    }

    /// Writes some of the bytes. [`ErrorKind::WouldBlock`] when nobody reads the FIFO.
    pub(super) fn write(&mut self, bytes: &[u8], patience: &Patience) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.open()?,
        };
        let written = match (&*file).write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_writable(file, patience)?;
                (&*file).write(bytes)
            }
            outcome => outcome,
        };
        match written {
            Ok(count) => {
                self.bytes += count as u64;
                Ok(count)
            }
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    self.file = None;
                }
                Err(named(&error, "write to", &self.path))
            }
        }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        // Without NONBLOCK, opening a FIFO waits until somebody reads it; with it, that is an error to try again after.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(0o640).custom_flags(flags).open(&self.path);
        let file = opened.map_err(|error| named(&error, "open", &self.path))?;
        let found = file.metadata()?;
        self.is_regular = !(found.file_type().is_fifo() || found.file_type().is_char_device());
        self.bytes = found.len();
        Ok(self.file.insert(file))
    }

    /// Renames the file if it is large enough, or begins anew if somebody else has renamed it. Where renaming fails, the
    /// file goes on growing, which is said once.
    pub(super) fn rotate_if_due(&mut self) {
        if self.file.is_none() || !self.is_regular {
            return;
        }
        if self.bytes < self.most_bytes {
            if metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                self.file = None;
            }
            return;
        }
        self.file = None;
        if let Err(error) = self.rotate() {
            if !self.has_complained {
                journal::warn(format_args!("cannot rotate {}: {error}", self.path.display()));
            }
            self.has_complained = true;
        } else {
            self.has_complained = false;
        }
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep == 0 {
            File::create(&self.path)?;
            return Ok(());
        }
        rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The error with what was tried, and the same kind.
fn named(error: &io::Error, what: &str, path: &Path) -> io::Error {
    let text = match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => "nobody reads it".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("cannot {what} {}: {text}", path.display()))
}
