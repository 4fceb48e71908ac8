//! Packages of Debian and its children: which ones we want, which are missing, and how they get in.
//!
//! Asks `dpkg-query` what is installed and `apt-cache` what could be; changes something in `install` alone.

use std::process::Command;

use crate::command;

/// To compile bpf-linker and the kernel programs.
pub(super) const BUILD: &[&str] = &["g++", "llvm-22-dev", "libpolly-22-dev", "zlib1g-dev"];

/// To link C code into a static binary.
pub(super) const DIST: &[&str] = &["musl-tools"];

/// Namespaces, traffic, and the tools that our counts are compared with.
pub(super) const TEST: &[&str] = &[
    "bind9-dnsutils",
    "bpftool",
    "curl",
    "dnsmasq-base",
    "ethtool",
    "haproxy",
    "iperf3",
    "iproute2",
    "kmod",
    "nftables",
    "nginx",
    "openssl",
    "postgresql-15",
    "procps",
    "prometheus",
    "redis-server",
    "socat",
    "tcpdump",
    "tmux",
    "tshark",
];

/// To fetch, unpack and boot other kernels. `file` and `python3-venv` are for virtme-ng, `bsdutils` has `script`.
pub(super) const VM: &[&str] = &[
    "bsdutils",
    "busybox-static",
    "debian-archive-keyring",
    "file",
    "iproute2",
    "kmod",
    "python3-venv",
    "qemu-system-x86",
];

/// Whether this system has apt.
pub(super) fn is_here() -> bool {
    command::find("apt-get").is_some() && command::find("dpkg-query").is_some()
}

/// Those of `wanted` that are not installed. Without dpkg there is no telling, so they all count as missing.
pub(super) fn missing(wanted: &[&'static str]) -> Vec<&'static str> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let listed = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        // Its exit code is 1 as soon as one package is unknown; the list is right all the same.
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    not_installed(wanted, &listed)
}

fn not_installed(wanted: &[&'static str], listed: &str) -> Vec<&'static str> {
    let installed: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// Why these packages cannot be installed here, and what would help.
pub(super) fn obstacle(packages: &[&str]) -> Option<String> {
    if packages.is_empty() {
        return None;
    }
    let list = packages.join(" ");
    if !is_here() {
        return Some(format!(
            "no apt-get: install what these Debian packages hold by the means of your system, and bpf-linker with \
             LLVM 22 or newer: {list}"
        ));
    }
    if !command::is_root() && command::find("sudo").is_none() {
        return Some(format!("not root, and no sudo: let an administrator run `apt-get install {list}`"));
    }
    // A fresh machine may never have fetched the lists; then nothing can be said before they are there.
    let known = candidates(packages);
    if known.is_empty() {
        return None;
    }
    let unknown: Vec<&str> = packages.iter().copied().filter(|package| !known.contains(package)).collect();
    unavailable(&unknown)
}

/// What to say about packages that no configured source offers.
fn unavailable(unknown: &[&str]) -> Option<String> {
    if unknown.is_empty() {
        return None;
    }
    let mut text = format!("apt has no package {}", unknown.join(", "));
    if unknown.iter().any(|package| package.contains("-22-")) {
        text.push_str(
            "; Debian 12 has LLVM 22 in its security archive (suite bookworm-security), newer releases in main, and \
             https://apt.llvm.org serves others; or install a bpf-linker built with LLVM 22 or newer into your PATH; \
             WEIR_SKIP_EBPF=1 builds the parts that need no kernel",
        );
    }
    text.push_str(" (`apt-get update` first if its lists are old)");
    Some(text)
}

/// Those of `packages` that apt could install.
fn candidates<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let policy = command::output(Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C"))
        .unwrap_or_default();
    with_candidate(packages, &policy)
}

fn with_candidate<'a>(packages: &[&'a str], policy: &str) -> Vec<&'a str> {
    let mut current = "";
    let mut found = Vec::new();
    for line in policy.lines() {
        if !line.starts_with(' ') {
            current = line.trim_end_matches(':');
        } else if line.trim_start().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)") {
            found.extend(packages.iter().copied().filter(|package| *package == current));
        }
    }
    found
}

/// Installs without a question: tshark, for one, would ask who may capture.
pub(super) fn install(packages: &[&str]) -> anyhow::Result<()> {
    command::run(command::as_root("apt-get").args(["update", "-q"]))?;
    let known = candidates(packages);
    let unknown: Vec<&str> = packages.iter().copied().filter(|package| !known.contains(package)).collect();
    if let Some(obstacle) = unavailable(&unknown) {
        anyhow::bail!(obstacle);
    }
    command::run(
        command::as_root("env")
            .arg("DEBIAN_FRONTEND=noninteractive")
            .args(["apt-get", "install", "-yq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
            .args(packages),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fully_installed_package_counts() {
        let listed = "tshark installed\ntcpdump config-files\nkmod half-installed\n";
        assert_eq!(
            not_installed(&["tshark", "tcpdump", "kmod", "ethtool"], listed),
            ["tcpdump", "kmod", "ethtool"]
        );
    }

    #[test]
    fn a_package_without_a_version_to_install_is_no_candidate() {
        let policy = "tshark:\n  Installed: (none)\n  Candidate: 4.0.17-0\n  Version table:\nllvm-22-dev:\n  \
                      Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(with_candidate(&["llvm-22-dev", "tshark", "unheard-of"], policy), ["tshark"]);
    }

    #[test]
    fn a_missing_llvm_comes_with_its_remedy() {
        let text = unavailable(&["llvm-22-dev"]).expect("it is unknown");
        assert!(text.contains("bookworm-security"), "{text}");
        assert_eq!(unavailable(&[]), None);
    }
}
