//! Names of processes: the program that a process runs, remembered while it runs it.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use super::open::Holder;

/// Names that were read, of the processes of the last snapshot.
#[derive(Debug, Default)]
pub(crate) struct ProcessNames {
    /// A process that starts another program gets another command name, so the name is read again.
    known: HashMap<Holder, Arc<str>>,
}

impl ProcessNames {
    /// The last part of the path of the executable, else the command name (kernel threads, and processes of others
    /// that we may not look into).
    pub(crate) fn name(&mut self, holder: &Holder) -> Arc<str> {
        if let Some(name) = self.known.get(holder) {
            return Arc::clone(name);
        }
        let name: Arc<str> = read_name(holder).into();
        self.known.insert(*holder, Arc::clone(&name));
        name
    }

    /// Forgets everybody of whom `is_there` says that they are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&Holder) -> bool) {
        self.known.retain(|holder, _| is_there(holder));
    }
}

fn read_name(holder: &Holder) -> String {
    let pid = holder.pid;
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe"))
        && let Some(name) = executable_name(&path)
    {
        return name;
    }
    let command = command_name(&holder.command);
    if !command.is_empty() {
        return command;
    }
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// The kernel marks an executable whose file was replaced or removed.
fn executable_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    Some(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
}

fn command_name(command: &[u8]) -> String {
    let length = command.iter().position(|&byte| byte == 0).unwrap_or(command.len());
    String::from_utf8_lossy(&command[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_named_by_the_last_part_of_its_path() {
        for (path, expect) in
            [("/usr/sbin/nginx", Some("nginx")), ("/usr/sbin/nginx (deleted)", Some("nginx")), ("/", None)]
        {
            assert_eq!(executable_name(Path::new(path)).as_deref(), expect, "{path}");
        }
    }

    #[test]
    fn a_process_that_cannot_be_looked_into_goes_by_its_command_name() {
        let mut command = [0; 16];
        command[..5].copy_from_slice(b"kcopy");
        // Process identifiers stay below 2^22.
        let holder = Holder { started: 0, pid: u32::MAX, command };
        let mut names = ProcessNames::default();
        assert_eq!(&*names.name(&holder), "kcopy");
        names.retain(|_| false);
        assert!(names.known.is_empty());
    }

    #[test]
    fn our_own_name_is_that_of_the_test() {
        let holder = Holder { started: 0, pid: std::process::id(), command: [0; 16] };
        let expect = executable_name(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(*ProcessNames::default().name(&holder), *expect);
    }
}
