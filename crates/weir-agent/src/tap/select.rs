//! [`Selector`]: which control groups are meant by containers, pods and paths.
//!
//! Pods are known by the directories of their logs, which the kubelet names `NAMESPACE_NAME_UID`: no API server is asked.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Selection, session::Locate};
use crate::{
    enrich::containers::{ContainerWatch, Containers, Lookout, TreeError},
    kubernetes::names::PodUid,
};

/// Where the kubelet keeps logs.
const POD_LOGS: &str = "/var/log/pods";

/// Fewest digits of a container's identifier that tell it.
const LEAST_DIGITS: usize = 6;

/// Why it is not known who is meant.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Control groups cannot be read.
    #[error("containers and pods cannot be told apart here")]
    Groups(#[source] TreeError),
    /// No such process.
    #[error("no process {0} runs here")]
    NoProcess(u32),
    /// That is no identifier of a container.
    #[error(
        "`{0}` does not tell a container: write at least the first {LEAST_DIGITS} hexadecimal digits of its identifier"
    )]
    ContainerDigits(String),
    /// No such container.
    #[error("no container runs here whose identifier begins with `{0}`")]
    NoContainer(String),
    /// That is no name of a pod.
    #[error("`{0}` is no pod: write NAMESPACE/NAME")]
    PodName(String),
    /// No such pod.
    #[error("no pod `{0}` runs here: {POD_LOGS} has no logs of it, or it has no processes")]
    NoPod(String),
    /// No such control group.
    #[error("no control group {}", path.display())]
    NoCgroup {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SelectError {
    /// Whether what the user wrote can never be right.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::PodName(_) | Self::ContainerDigits(_))
    }
}

/// Knows control groups, and keeps an eye on them once it is told to.
#[derive(Debug, Default)]
pub struct Selector {
    containers: Containers,
    /// Where they are mounted.
    root: PathBuf,
    lookout: Option<Lookout>,
    watch: Option<ContainerWatch>,
}

impl Selector {
    /// Looks at control groups. Where there are none, processes are still known by number and name.
    pub fn start(selection: &Selection) -> Result<Self, SelectError> {
        match Containers::look() {
            Ok((containers, lookout)) => {
                let root = lookout.root().to_owned();
                Ok(Self { containers, root, lookout: Some(lookout), watch: None })
            }
            Err(error) if selection.needs_groups() => Err(SelectError::Groups(error)),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Goes on looking, by a thread, as long as this lives.
    pub fn watch(&mut self) -> Result<(), SelectError> {
        if let Some(lookout) = self.lookout.take() {
            self.watch = Some(lookout.watch().map_err(SelectError::Groups)?);
        }
        Ok(())
    }

    /// Who a control group is.
    pub fn locate(&self) -> Locate {
        let containers = self.containers.clone();
        Box::new(move |group| containers.of_group(group))
    }

    /// The control groups that are meant now. An error if something that is named is not there.
    pub fn cgroups(&self, selection: &Selection) -> Result<Vec<u64>, SelectError> {
        let mut groups = Vec::new();
        for pid in &selection.pids {
            if !Path::new("/proc").join(pid.to_string()).exists() {
                return Err(SelectError::NoProcess(*pid));
            }
        }
        for prefix in &selection.containers {
            if prefix.len() < LEAST_DIGITS || !prefix.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(SelectError::ContainerDigits(prefix.clone()));
            }
            let found = self.container(prefix);
            if found.is_empty() {
                return Err(SelectError::NoContainer(prefix.clone()));
            }
            groups.extend(found);
        }
        for name in &selection.pods {
            let found = self.pod(name)?;
            if found.is_empty() {
                return Err(SelectError::NoPod(name.clone()));
            }
            groups.extend(found);
        }
        for path in &selection.cgroups {
            groups.push(self.cgroup(path)?);
        }
        Ok(tidy(groups))
    }

    /// The same, of what is still there: containers and pods come and go.
    pub fn cgroups_again(&self, selection: &Selection) -> Vec<u64> {
        let containers = selection.containers.iter().flat_map(|prefix| self.container(prefix));
        let pods = selection.pods.iter().flat_map(|name| self.pod(name).unwrap_or_default());
        let paths = selection.cgroups.iter().filter_map(|path| self.cgroup(path).ok());
        tidy(containers.chain(pods).chain(paths).collect())
    }

    fn container(&self, prefix: &str) -> Vec<u64> {
        let prefix = prefix.to_ascii_lowercase();
        self.containers.groups(|located| {
            located.container.as_ref().is_some_and(|container| container.id.starts_with(&prefix))
        })
    }

    fn pod(&self, name: &str) -> Result<Vec<u64>, SelectError> {
        let Some((namespace, pod)) = name
            .split_once('/')
            .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty() && !pod.contains('/'))
        else {
            return Err(SelectError::PodName(name.to_owned()));
        };
        let uids = pod_uids(Path::new(POD_LOGS), namespace, pod);
        Ok(self.containers.groups(|located| located.place.pod.is_some_and(|uid| uids.contains(&uid))))
    }

    /// The number of a control group: the inode of its directory. Paths begin at the root of the groups, or at that of all files.
    fn cgroup(&self, path: &str) -> Result<u64, SelectError> {
        let path = match Path::new(path) {
            path if path.starts_with(&self.root) => path.to_owned(),
            path => self.root.join(path.strip_prefix("/").unwrap_or(path)),
        };
        match fs::metadata(&path) {
            Ok(directory) => Ok(directory.ino()),
            Err(source) => Err(SelectError::NoCgroup { path, source }),
        }
    }
}

impl Selection {
    /// Whether anything of it is known by control groups alone.
    pub fn needs_groups(&self) -> bool {
        !(self.containers.is_empty() && self.pods.is_empty() && self.cgroups.is_empty())
    }
}

fn tidy(mut groups: Vec<u64>) -> Vec<u64> {
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Identifiers of the pods of this name that have logs here.
fn pod_uids(logs: &Path, namespace: &str, pod: &str) -> Vec<PodUid> {
    // Names of namespaces and pods have no underscore.
    let prefix = format!("{namespace}_{pod}_");
    let entries = fs::read_dir(logs).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| PodUid::parse(name.strip_prefix(&prefix)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_known_by_the_directories_of_their_logs() {
        let logs = tempfile::tempdir().unwrap();
        let uid = "8a3d5c1e-0f2b-4c6d-9e8f-112233445566";
        for name in [format!("shop_web_{uid}"), format!("shop_web-2_{uid}"), "shop_web_none".to_owned()] {
            fs::create_dir(logs.path().join(name)).unwrap();
        }
        assert_eq!(pod_uids(logs.path(), "shop", "web"), [PodUid::parse(uid).unwrap()]);
        assert_eq!(pod_uids(logs.path(), "shop", "we"), []);
        assert_eq!(pod_uids(Path::new("/no/such"), "shop", "web"), []);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let selector = Selector::default();
        let select = |selection: &Selection| selector.cgroups(selection).map_err(|error| error.to_string());
        let own = Selection { pids: vec![std::process::id()], ..Selection::default() };
        assert_eq!(select(&own), Ok(vec![]));
        let none = Selection { containers: vec!["0123456789ab".to_owned()], ..Selection::default() };
        assert!(select(&none).unwrap_err().starts_with("no container runs here"));
        for text in ["0123", "shop-web", ""] {
            let short = Selection { containers: vec![text.to_owned()], ..Selection::default() };
            assert!(select(&short).unwrap_err().starts_with(&format!("`{text}` does not tell a container")));
        }
        let odd = Selection { pods: vec!["web".to_owned()], ..Selection::default() };
        assert_eq!(select(&odd).unwrap_err(), "`web` is no pod: write NAMESPACE/NAME");
    }
}
