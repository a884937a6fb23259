//! What the gate's process gives up before it takes its first byte from a sandbox.

use cofferdam_policy::seccomp::{Arch, GATE_TABLE, compile, parse};
use cofferdam_sys::bpf::Instruction;
use cofferdam_sys::{confine, process};
use std::io;
use std::path::{Path, PathBuf};

/// What resolving names needs to read: of the C library's resolver, and who is trusted to sign for name servers over TLS.
const READABLE: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/services",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
];

/// Files: only what resolving names needs and `more`, for reading. System calls: those of the gate's table. With `user`, that user and no other.
/// Everything that is opened later by path has to be among the files. Call it while the process has one thread, or when every other has
/// [given up](give_up) its rights.
pub fn confine(user: Option<u32>, more: Option<&Path>) -> io::Result<()> {
    give_up(user, more)?;
    confine::filter(&filter()?).map_err(of_system)
}

fn of_system(error: cofferdam_sys::Error) -> io::Error {
    io::Error::new(error.source.kind(), error.to_string())
}

/// All of it but the system calls, for the calling thread.
pub fn give_up(user: Option<u32>, more: Option<&Path>) -> io::Result<()> {
    // A resolv.conf is often a link to one that changes: the directory it is in.
    let resolver = std::fs::canonicalize("/etc/resolv.conf").ok().and_then(|path| path.parent().map(Path::to_owned));
    let resolver = resolver.filter(|directory| directory != Path::new("/etc"));
    let readable: Vec<PathBuf> = READABLE.iter().map(PathBuf::from).chain(resolver).chain(more.map(Path::to_owned)).collect();
    process::become_unprivileged(user).map_err(of_system)?;
    if let Some(version) = process::landlock_version() {
        let readable: Vec<&Path> = readable.iter().map(PathBuf::as_path).collect();
        confine::read_only_below(&readable, version).map_err(of_system)?;
    }
    Ok(())
}

fn filter() -> io::Result<Vec<Instruction>> {
    let arch = Arch::from_name(std::env::consts::ARCH).ok_or_else(|| io::Error::other("no system call table for this architecture"))?;
    let calls = parse(GATE_TABLE).map_err(io::Error::other)?;
    Ok(compile(&calls, arch).iter().map(|instruction| Instruction::unpack(instruction.pack())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compiles() {
        let length = filter().expect("compiles").len();
        assert!(length > 50 && length < 400, "{length}");
    }
}
