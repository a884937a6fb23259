//! What building and testing need beyond Rust, and how to get it.

use crate::shell::{Step, command, output, run, succeeds, target};

/// To build: a C compiler for the static target.
const TO_BUILD: &[&str] = &["musl-tools"];
/// To test: the tools that tests drive.
const TO_TEST: &[&str] = &[
    "busybox-static",
    "curl",
    "debian-archive-keyring",
    "dns2tcp",
    "docker-compose",
    "docker-registry",
    "docker.io",
    "e2fsprogs",
    "file",
    "g++",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "gdb",
    "git",
    "gpgv",
    "hping3",
    "iodine",
    "iproute2",
    "knot-dnsutils",
    "libc6-dev-arm64-cross",
    "make",
    "musl-tools",
    "ncat",
    "nftables",
    "nmap",
    "openssh-client",
    "openssh-server",
    "openssl",
    "perl",
    "postgresql",
    "procps",
    "ptunnel",
    "python3",
    "python3-pip",
    "python3-scapy",
    "python3-websockets",
    "rsync",
    "skopeo",
    "sqlite3",
    "strace",
    "tmux",
    "uidmap",
    "umoci",
    "unbound",
    "util-linux",
    "xz-utils",
];
/// To compare with.
const TO_BENCH: &[&str] = &[
    "bubblewrap",
    "busybox-static",
    "crun",
    "curl",
    "docker-registry",
    "docker.io",
    "e2fsprogs",
    "haproxy",
    "hyperfine",
    "git",
    "iproute2",
    "libnginx-mod-stream",
    "mitmproxy",
    "musl-tools",
    "nftables",
    "nginx-light",
    "podman",
    "procps",
    "python3",
    "runc",
    "skopeo",
    "squid",
    "uidmap",
    "umoci",
    "wrk",
];

/// Makes sure that the binary can be built.
pub fn for_build() -> Step {
    install(TO_BUILD)?;
    rust_target(&target())
}

/// Makes sure that the tests can run.
pub fn for_tests() -> Step {
    install(TO_TEST)?;
    // Whoever has another Node keeps it.
    if !succeeds(&["npm", "--version"]) {
        install(&["nodejs", "npm"])?;
    }
    // Compose 2, beside the distribution's 1.29.
    run(&["sh", "xtask/parts.sh", "cosign", "docker-compose"])?;
    rust_target(&target())
}

/// Makes sure that the comparison can run.
pub fn for_bench() -> Step {
    install(TO_BENCH)?;
    rust_target(&target())
}

/// Adds a target to the toolchain.
pub fn rust_target(target: &str) -> Step {
    let sysroot = output(&["rustc", "--print", "sysroot"])?;
    if std::path::Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    run(&["rustup", "target", "add", target])
}

/// Installs Debian packages that are missing, or says how.
fn install(wanted: &[&str]) -> Step {
    let missing: Vec<&str> = wanted.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !succeeds(&["test", "-w", "/var/lib/dpkg"]) {
        return Err(format!("packages are missing; as root: apt-get update && {line}"));
    }
    eprintln!("+ {line}");
    let update = || run(&["apt-get", "update", "-qq"]);
    let install = || {
        let status = command(&["apt-get", "install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::process::Stdio::null())
            .status();
        matches!(status, Ok(status) if status.success())
    };
    if install() {
        return Ok(());
    }
    update()?;
    if install() { Ok(()) } else { Err(format!("could not install; try: apt-get update && {line}")) }
}

fn installed(package: &str) -> bool {
    succeeds(&["sh", "-c", &format!("dpkg-query -W -f '${{Status}}' {package} 2>/dev/null | grep -q 'ok installed'")])
}
