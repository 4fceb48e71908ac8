//! What the path of a control group tells: the container, and the pod that it is in.
//!
//! Runtimes agree on nothing but 64 hexadecimal digits at the end of a name. That covers containerd, CRI-O, Docker and
//! Podman, with groups made by systemd or directly.

use crate::kubernetes::names::{ContainerId, PodUid};

/// What a path tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The innermost container.
    pub container: Option<ContainerId>,
    /// The innermost pod.
    pub pod: Option<PodUid>,
}

impl Place {
    /// Reads a path, whatever it begins with.
    pub fn of(path: &str) -> Self {
        let mut place = Self::default();
        // A colon separates slice, prefix and name where a runtime gave a name for systemd to one that is not systemd.
        for name in path.split(['/', ':']) {
            let name = name.strip_suffix(".scope").or_else(|| name.strip_suffix(".slice")).unwrap_or(name);
            if let Some(pod) = pod(name) {
                // Whatever container is around the pod is not the one in it.
                place = Self { container: None, pod: Some(pod) };
            } else if let Some(container) = container(name) {
                place.container = Some(container);
            }
        }
        place
    }
}

/// The container of a name such as `cri-containerd-0123…`, `libpod-0123…` or `0123…`.
fn container(name: &str) -> Option<ContainerId> {
    let (prefix, digits) = name.split_at_checked(name.len().checked_sub(64)?)?;
    // The monitor of a container is outside of it.
    if prefix.ends_with("conmon-") || !(prefix.is_empty() || prefix.ends_with('-')) {
        return None;
    }
    ContainerId::parse(digits)
}

/// The pod of a name such as `kubepods-burstable-pod01234567_89ab_…` or `pod01234567-89ab-…`.
fn pod(name: &str) -> Option<PodUid> {
    let (prefix, uid) = name.rsplit_once("pod")?;
    // `libpod-0123…` is a container of Podman.
    if !(prefix.is_empty() || prefix.ends_with('-')) {
        return None;
    }
    PodUid::parse(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    const OTHER: &str = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd";
    const UID: &str = "8a3d5c1e-0f2b-4c6d-9e8f-112233445566";

    #[test]
    fn runtimes_are_understood() {
        let check = |path: &str, container: Option<&str>, pod: Option<&str>| {
            let path = path.replace("<id>", ID).replace("<other>", OTHER).replace("<uid>", UID);
            let path = path.replace("<u_d>", &UID.replace('-', "_"));
            let expected =
                Place { container: container.and_then(ContainerId::parse), pod: pod.and_then(PodUid::parse) };
            assert_eq!(Place::of(&path), expected, "{path}");
        };
        // containerd, groups by systemd and direct.
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u_d>.slice/cri-containerd-<id>.scope",
            Some(ID),
            Some(UID),
        );
        check("/kubepods/besteffort/pod<uid>/<id>", Some(ID), Some(UID));
        check(
            "/kubepods.slice/kubepods-pod<u_d>.slice/cri-containerd-<id>.scope/init.scope",
            Some(ID),
            Some(UID),
        );
        check(
            "/system.slice/containerd.service/kubepods-burstable-pod<u_d>.slice:cri-containerd:<id>",
            Some(ID),
            Some(UID),
        );
        // CRI-O.
        check("/kubepods.slice/kubepods-pod<u_d>.slice/crio-<id>.scope", Some(ID), Some(UID));
        check("/kubepods.slice/kubepods-pod<u_d>.slice/crio-<id>.scope/container", Some(ID), Some(UID));
        check("/kubepods/burstable/pod<uid>/crio-<id>", Some(ID), Some(UID));
        check("/kubepods.slice/kubepods-pod<u_d>.slice/crio-conmon-<id>.scope", None, Some(UID));
        // Docker.
        check("/system.slice/docker-<id>.scope", Some(ID), None);
        check("/docker/<id>", Some(ID), None);
        // Podman, as root and as a user.
        check("/machine.slice/libpod-<id>.scope/container", Some(ID), None);
        check("/machine.slice/libpod-conmon-<id>.scope", None, None);
        check("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope", Some(ID), None);
        check("/libpod_parent/libpod-<id>", Some(ID), None);
        // A node that is a container itself, from outside.
        check("/docker/<other>/kubelet/kubepods/burstable/pod<uid>/<id>", Some(ID), Some(UID));
        check("/docker/<other>/kubelet.slice/kubelet-kubepods-pod<u_d>.slice", None, Some(UID));
        // Static pods have a hash without hyphens.
        check(
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/<id>",
            Some(ID),
            Some("0123456789abcdef0123456789abcdef"),
        );
        // As a control group namespace shows what is outside of it.
        check("/../../kubepods/pod<uid>/<id>", Some(ID), Some(UID));
        // No containers.
        check("/system.slice/ssh.service", None, None);
        check("/user.slice/user-0.slice/session-3.scope", None, None);
        check("/", None, None);
        check("/docker/0123", None, None);
        check("/kubepods/pod-of-mine", None, None);
        check("/x<id>", None, None);
    }
}
