//! Fetches kernels by series from Debian's archive and keeps them in the cache.
//!
//! Each suite of the archive gets a configuration, package lists and a cache of its own, so that the system's apt
//! never hears of it, and no root is needed. A kernel that is in the cache is used as it is, without the network:
//! a series is pinned by the first fetch on a machine; removing its directory fetches the newest of the series again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;

/// Series by name, and the suite that has them. The part behind the series must be Debian's plain flavour.
const SERIES: &[(&str, &str)] =
    &[("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("newest", "sid")];

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(super) version: String,
    /// The compressed kernel. Its modules are beside it, where virtme-ng looks for them.
    pub(super) image: PathBuf,
}

/// Returns a kernel of the series from the cache, fetching it first if it is not there.
pub(super) fn fetch(series: &str) -> anyhow::Result<Kernel> {
    let kernels = command::cache_directory()?.join("kernels");
    let directory = kernels.join(series);
    if directory.is_dir() {
        return unpacked(&directory);
    }
    let (plain, flavour) = match series.strip_suffix("-rt") {
        Some(plain) => (plain, "rt-amd64"),
        None => (series, "amd64"),
    };
    let Some((_, suite)) = SERIES.iter().find(|(name, _)| *name == plain) else {
        let known: Vec<&str> = SERIES.iter().map(|(name, _)| *name).collect();
        bail!("no source for kernel series {series}: there are {}, each also with -rt", known.join(", "));
    };

    eprintln!("kernel {series}: fetching from Debian {suite}, once");
    let partial = kernels.join(format!("{series}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot clear {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let archive = Archive::open(&kernels.join("apt").join(suite), suite)?;
    let version = archive.newest_kernel(plain, flavour)?;
    archive.unpack(&format!("linux-image-{version}"), &partial)?;
    // Since Debian 14 that package is an empty one, and depends on these.
    if unpacked(&partial).is_err() {
        archive.unpack(&format!("linux-binary-{version}"), &partial)?;
        archive.unpack(&format!("linux-modules-{version}"), &partial)?;
    }
    index_modules(&partial, &version)?;
    fs::rename(&partial, &directory).with_context(|| format!("cannot create {}", directory.display()))?;
    unpacked(&directory)
}

/// Finds the kernel in an unpacked package: named after its version in `boot`, or, since Debian 14, beside its modules.
fn unpacked(directory: &Path) -> anyhow::Result<Kernel> {
    for image in entries(&directory.join("boot")) {
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            return Ok(Kernel { version: version.to_owned(), image });
        }
    }
    for modules in entries(&directory.join("usr/lib/modules")) {
        let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = modules.join("vmlinuz");
        if image.is_file() {
            return Ok(Kernel { version, image });
        }
    }
    bail!("{0} holds no kernel: remove it to fetch it again", directory.display())
}

/// What a directory holds; a missing one holds nothing.
fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Writes the index by which `modprobe` finds modules and what they need.
fn index_modules(root: &Path, version: &str) -> anyhow::Result<()> {
    // Tools of Debian 12 look in lib/modules only.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).context("cannot link lib")?;
    }
    let depmod = command::find("depmod").context("no depmod: `cargo xtask setup --for vm` installs it")?;
    command::output(Command::new(depmod).arg("-b").arg(root).arg(version))?;
    Ok(())
}

/// apt, confined to one directory and one suite.
struct Archive {
    directory: PathBuf,
}

impl Archive {
    fn open(directory: &Path, suite: &str) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "download"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let options = "[arch=amd64 target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        let mut sources = vec![format!("deb {options} http://deb.debian.org/debian {suite} main\n")];
        if suite != "sid" {
            sources
                .push(format!("deb {options} http://deb.debian.org/debian-security {suite}-security main\n"));
        }
        fs::write(directory.join("sources.list"), sources.concat()).context("cannot write sources.list")?;
        let archive = Self { directory: directory.to_path_buf() };
        command::output(archive.apt("apt-get").args(["update", "-q"]))?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.directory.join(path).display()));
        }
        // The user `_apt` cannot write into a private directory; without the option apt only warns about it.
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User="]);
        command.current_dir(self.directory.join("download"));
        command
    }

    /// The version, flavour included, of the newest plain kernel image of a series.
    fn newest_kernel(&self, series: &str, flavour: &str) -> anyhow::Result<String> {
        let names = command::output(self.apt("apt-cache").args(["pkgnames", "linux-image-"]))?;
        newest(&names, series, flavour).with_context(|| {
            format!("{} offers no linux-image-{series}…-{flavour}", self.directory.display())
        })
    }

    fn unpack(&self, package: &str, root: &Path) -> anyhow::Result<()> {
        eprintln!("  {package}");
        let download = self.directory.join("download");
        command::output(self.apt("apt-get").args(["download", "-q", package]))?;
        for file in entries(&download) {
            command::output(Command::new("dpkg").arg("-x").arg(&file).arg(root))?;
            fs::remove_file(&file)?;
        }
        Ok(())
    }
}

/// Picks the highest version among package names such as `linux-image-6.12.107+deb13-amd64`.
fn newest(names: &str, series: &str, flavour: &str) -> Option<String> {
    let ending = format!("-{flavour}");
    names
        .lines()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|version| {
            let Some(plain) = version.strip_suffix(&ending) else { return false };
            let plain = plain.replace("+deb", "-");
            let numbers_only = plain.chars().all(|letter| letter.is_ascii_digit() || ".-".contains(letter));
            let complete = plain.matches('.').count() >= 2;
            let in_series =
                series == "newest" || plain.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'));
            numbers_only && complete && in_series
        })
        .max_by_key(|version| {
            version
                .split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|part| part.parse().ok())
                .collect::<Vec<u32>>()
        })
        .map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-47-amd64
linux-image-6.1.0-113-amd64
linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-114-rt-amd64
linux-image-6.1.0-115-amd64-unsigned
linux-image-6.1.0-115-amd64-dbg
linux-image-6.12-amd64
linux-image-6.12.94+deb13-amd64
linux-image-6.12.107+deb13-amd64
linux-image-amd64
linux-image-7.2.13+deb14-rt-amd64";

    fn check(series: &str, flavour: &str, expect: Option<&str>) {
        assert_eq!(newest(NAMES, series, flavour).as_deref(), expect, "{series} {flavour}");
    }

    #[test]
    fn the_newest_plain_kernel_of_a_series_is_taken() {
        check("6.1", "amd64", Some("6.1.0-113-amd64"));
        check("6.1", "rt-amd64", Some("6.1.0-114-rt-amd64"));
        check("6.12", "amd64", Some("6.12.107+deb13-amd64"));
        check("newest", "amd64", Some("6.12.107+deb13-amd64"));
        check("newest", "rt-amd64", Some("7.2.13+deb14-rt-amd64"));
        check("5.10", "amd64", None);
    }
}
