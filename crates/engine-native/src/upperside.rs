//! What a sandbox changed of its image: its upper directory, without what the engine itself put there.

use cofferdam_engine::{Changes, EngineError, SandboxSpec};
use cofferdam_trust::layout::NewLayer;
use cofferdam_trust::pack::{LayerWriter, PackTree};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files that every sandbox gets.
const OWN_FILES: &[&str] = &["etc/hosts", "etc/hostname", "etc/resolv.conf"];
/// Directories that every sandbox gets; they are a change only if something is in them.
const OWN_DIRECTORIES: &[&str] = &["dev", "proc", "sys", "sys/devices", "sys/devices/system", "tmp", "etc"];

/// The upper directory of a sandbox.
#[derive(Debug)]
pub struct Upperside {
    upper: OwnedFd,
    base: u32,
    /// Put there by the engine.
    own: BTreeSet<PathBuf>,
    /// Directories made on the way to those.
    made: Vec<String>,
    /// Account files as the engine wrote them.
    accounts: Vec<(&'static str, String)>,
}

impl Upperside {
    /// Of a sandbox made from this.
    pub fn of(upper: OwnedFd, base: u32, spec: &SandboxSpec) -> Self {
        let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
        let mut own: BTreeSet<PathBuf> = OWN_FILES.iter().map(PathBuf::from).collect();
        own.extend(spec.files.iter().map(|file| inside(&file.path)));
        own.extend(spec.mounts.iter().map(|mount| inside(&mount.target)));
        let mut made: BTreeSet<String> = OWN_DIRECTORIES.iter().map(|name| (*name).to_owned()).collect();
        let directories = spec.directories.iter().map(|directory| inside(&directory.path));
        let home = inside(Path::new(&spec.user.home));
        let added = directories.chain([PathBuf::from("workspace"), home]).flat_map(|path| ancestors(&path, true));
        made.extend(added.filter(|_| !spec.bare));
        made.extend(own.iter().flat_map(|path| ancestors(path, false)));
        let accounts = spec.image.accounts();
        let accounts = [("etc/passwd", accounts.passwd().to_owned()), ("etc/group", accounts.group().to_owned())];
        let accounts = if spec.bare { Vec::new() } else { accounts.into() };
        Self { upper, base, own, made: made.into_iter().collect(), accounts }
    }

    /// Writes it as a layer.
    pub fn write(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        let unchanged: Vec<&Path> =
            self.accounts.iter().filter(|(path, text)| self.holds(path, text)).map(|(path, _)| Path::new(path)).collect();
        let leave_out = |path: &Path| {
            self.own.contains(path) || unchanged.contains(&path) || wanted.leave_out.iter().any(|left| path.starts_with(left))
        };
        let mut prune: BTreeSet<String> = self.made.iter().cloned().collect();
        prune.extend(wanted.leave_out.iter().flat_map(|path| ancestors(path, false)));
        let prune: Vec<&str> = prune.iter().map(String::as_str).collect();
        let tree = PackTree { root: self.upper.as_fd(), base: self.base, leave_out: &leave_out, prune: &prune };
        let write = || -> io::Result<NewLayer> {
            let mut layer = LayerWriter::new(io::BufWriter::with_capacity(1 << 20, wanted.out), wanted.epoch);
            tree.write(&mut layer)?;
            Ok(layer.finish()?.0)
        };
        write().map_err(|error| EngineError::host("read what the sandbox changed", error))
    }

    fn holds(&self, path: &str, text: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Ok(file) = openat2(&self.upper, path, flags, Mode::empty(), resolve) else { return false };
        let mut found = Vec::new();
        File::from(file).take(text.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == text.as_bytes()
    }
}

/// The directories that lead to a path, and itself if wanted.
fn ancestors(path: &Path, itself: bool) -> Vec<String> {
    let all = path.ancestors().skip(usize::from(!itself)).filter(|above| !above.as_os_str().is_empty());
    all.map(|above| above.to_string_lossy().into_owned()).collect()
}
