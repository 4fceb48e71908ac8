//! Control groups that a test makes as a container runtime would, and removes again.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::cannot_run;

/// A control group of version 2, with the process that a test puts into it.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
    mount: PathBuf,
    process: Option<Child>,
}

impl ControlGroup {
    /// Makes a group with this name, in one that nobody else has: tests run side by side, and each takes away what it made.
    /// `None` if that cannot be done here, which has then been said.
    #[must_use]
    pub fn make(name: &str) -> Option<Self> {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
        let mount = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4)).flatten()
        });
        let Some(mount) = mount else {
            cannot_run("no version 2 of control groups is mounted");
            return None;
        };
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(mount).join(format!("weir-test-{}-{number}", std::process::id())).join(name);
        if let Err(error) = fs::create_dir_all(&path) {
            cannot_run(&format!("cannot make {}: {error}", path.display()));
            return None;
        }
        Some(Self { path, mount: mount.into(), process: None })
    }

    /// The number by which the kernel knows it.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).expect("it exists as long as this").ino()
    }

    /// Where the hierarchy is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a command's process begin in it.
    pub fn enter(&self, command: &mut Command) {
        let processes = fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"));
        let processes = processes.expect("root may move processes");
        // SAFETY: between fork and exec only write is called, which is async-signal-safe. "0" is the writer itself.
        unsafe { command.pre_exec(move || (&processes).write_all(b"0")) };
    }

    /// Puts a process into it; returns its number.
    pub fn start_process(&mut self) -> u32 {
        let process =
            Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().expect("sleep is everywhere");
        let pid = process.id();
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("root may move processes");
        self.process = Some(process);
        pid
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.kill());
            drop(process.wait());
        }
        // Those around it were made for it.
        for path in self.path.ancestors().take_while(|path| *path != self.mount) {
            drop(fs::remove_dir(path));
        }
    }
}
