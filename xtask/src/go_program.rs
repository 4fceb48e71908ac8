//! Programs in Go that tests talk to. Each is a module of our own that imports what it needs.
//!
//! They are built once per machine, and again only if their sources, the flags or Go change.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::command;

/// A program.
pub(crate) struct GoProgram {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is, and how long it takes to build.
    pub(crate) description: &'static str,
    /// Directory of its module, with `go.mod`, `go.sum` and `main.go`.
    pub(crate) source: &'static str,
    /// Variable by which tests find it.
    pub(crate) variable: &'static str,
    /// Flags for the linker.
    pub(crate) link_flags: fn() -> String,
}

/// Whether programs can be built here.
pub(crate) fn has_go() -> bool {
    command::find("go").is_some()
}

impl GoProgram {
    /// Where it is, or will be once it is built.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        let mut key = DefaultHasher::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            fs::read(Path::new(self.source).join(file))
                .with_context(|| format!("cannot read {}/{file}", self.source))?
                .hash(&mut key);
        }
        (self.link_flags)().hash(&mut key);
        command::output(Command::new("go").arg("version"))?.hash(&mut key);
        let name = self.name;
        Ok(command::cache_directory()?.join(format!("{name}-{:016x}/{name}", key.finish())))
    }

    /// Builds it.
    pub(crate) fn build(&self, path: &Path) -> anyhow::Result<()> {
        let directory = path.parent().expect("the binary lies in a directory of its own");
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        // Put in place only when it is whole.
        let unfinished = path.with_extension("unfinished");
        command::run(
            Command::new("go")
                .args(["build", "-trimpath", "-ldflags", &(self.link_flags)(), "-o"])
                .arg(&unfinished)
                .arg(".")
                .current_dir(self.source)
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "-mod=readonly"),
        )?;
        fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))
    }
}
