//! Layers that are on top of an image, and that the daemon does not know: they are written into the container before anything of it runs.
//!
//! A layer is a directory as an overlay would have it. Who made it is not trusted: nothing is opened but by its name in an opened directory,
//! no link is followed, and what is mounted into the sandbox from outside covers the layer and is not touched.

use cofferdam_engine::SandboxSpec;
use cofferdam_sys::ids::Ids;
use cofferdam_trust::pack::xattrs;
use cofferdam_trust::unpack::{is_opaque, is_whiteout};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fsetxattr, fstat,
    linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The kernel's own.
const NOT_OURS: [&CStr; 3] = [c"dev", c"proc", c"sys"];

/// Writes the layers over what is there. `root` can be written to.
pub fn write(root: &OwnedFd, ids: &Ids, spec: &SandboxSpec) -> io::Result<()> {
    let mounted = spec.mounts.iter().map(|mount| fstat(mount.source.fd()).map(|stat| identity(&stat)));
    let mounted = mounted.collect::<rustix::io::Result<Vec<_>>>()?;
    spec.image.added_layers().iter().rev().try_for_each(|layer| write_one(root, ids, &mounted, layer))
}

fn write_one(root: &OwnedFd, ids: &Ids, mounted: &[(u64, u64)], layer: &OwnedFd) -> io::Result<()> {
    let source = openat(layer, ".", DIRECTORY, Mode::empty())?;
    Writing { root, ids, mounted, links: HashMap::new() }.directory(&source, root, Path::new(""))
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

struct Writing<'a> {
    root: &'a OwnedFd,
    ids: &'a Ids,
    /// What is mounted from outside: device and inode of each.
    mounted: &'a [(u64, u64)],
    /// Files with several names: device and inode, to the first that was written.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Writing<'_> {
    fn directory(&mut self, source: &OwnedFd, target: &OwnedFd, path: &Path) -> io::Result<()> {
        for name in names(source)? {
            if path.as_os_str().is_empty() && NOT_OURS.contains(&name.as_c_str()) {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            self.entry(source, target, &name, &path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &OwnedFd, target: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.is_covered(target, name) {
            return Ok(());
        }
        if is_whiteout(&stat) {
            return self.remove(target, name);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.enter(source, target, name, path, &stat);
        }
        self.remove(target, name)?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity(&stat)) {
                return Ok(linkat(self.root, first, target, name, AtFlags::empty())?);
            }
            self.links.insert(identity(&stat), path.to_owned());
        }
        match kind {
            FileType::RegularFile => return self.file(source, target, name, &stat),
            FileType::Symlink => symlinkat(readlinkat(source, name, Vec::new())?, target, name)?,
            FileType::Fifo => mknodat(target, name, FileType::Fifo, mode(&stat), 0)?,
            // Nothing else is in a layer.
            _ => return Ok(()),
        }
        self.own(target, name, &stat, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind == FileType::Fifo {
            chmodat(target, name, mode(&stat), AtFlags::empty())?;
        }
        Ok(utimensat(target, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn enter(&mut self, source: &OwnedFd, target: &OwnedFd, name: &CStr, path: &Path, stat: &Stat) -> io::Result<()> {
        let from = openat(source, name, DIRECTORY, Mode::empty())?;
        let to = match openat(target, name, DIRECTORY, Mode::empty()) {
            Ok(to) => {
                if is_opaque(&from)? {
                    self.clear(&to)?;
                }
                to
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.remove(target, name)?;
                mkdirat(target, name, Mode::RWXU)?;
                openat(target, name, DIRECTORY, Mode::empty())?
            }
            Err(error) => return Err(error.into()),
        };
        self.directory(&from, &to, path)?;
        self.attributes(&from, &to, stat)
    }

    fn file(&self, source: &OwnedFd, target: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
        let from = openat(source, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(openat(target, name, flags, Mode::from_raw_mode(0o600))?);
        let mut from = File::from(from);
        io::copy(&mut from, &mut &to)?;
        self.attributes(&from.into(), &to.into(), stat)
    }

    /// A new owner clears bits of the mode, so that comes after; the time is what changes last.
    fn attributes(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
        self.own(to, c"", stat, AtFlags::EMPTY_PATH)?;
        fchmod(to, mode(stat))?;
        for (name, value) in xattrs(from)? {
            match fsetxattr(to, name.as_str(), &value, XattrFlags::empty()) {
                // Memory has no attributes of users on older kernels.
                Err(Errno::OPNOTSUPP) => {}
                other => other?,
            }
        }
        Ok(rustix::fs::futimens(to, &times(stat))?)
    }

    fn is_covered(&self, parent: &OwnedFd, name: &CStr) -> bool {
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| self.mounted.contains(&identity(&stat)))
    }

    /// What is there, with everything below it, if it is there. What something is mounted on stays.
    fn remove(&self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        if self.is_covered(parent, name) {
            return Ok(());
        }
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY) => Ok(()),
            Err(Errno::ISDIR) => {
                self.clear(&openat(parent, name, DIRECTORY, Mode::empty())?)?;
                match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn clear(&self, directory: &OwnedFd) -> io::Result<()> {
        names(directory)?.iter().try_for_each(|name| self.remove(directory, name))
    }

    fn own(&self, parent: &OwnedFd, name: &CStr, stat: &Stat, flags: AtFlags) -> io::Result<()> {
        let (user, group) = self.ids.outside((stat.st_uid, stat.st_gid));
        Ok(chownat(parent, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags)?)
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: time, last_modification: time }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_trust::unpack::opaque_attribute;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn open(path: &Path) -> OwnedFd {
        openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()).expect("a directory")
    }

    #[test]
    fn a_layer_is_written_over_what_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let (layer, root) = (directory.path().join("layer"), directory.path().join("root"));
        for path in ["layer/new/deep", "layer/kept", "layer/proc", "layer/replaced", "root/kept", "root/gone/deep", "root/proc", "root/out"]
        {
            fs::create_dir_all(directory.path().join(path)).expect("made");
        }
        for path in ["layer/new/deep/file", "layer/kept/added", "layer/proc/x", "layer/replaced/in", "root/kept/there", "root/gone/deep/x"]
        {
            fs::write(directory.path().join(path), path).expect("written");
        }
        fs::hard_link(layer.join("kept/added"), layer.join("kept/again")).expect("linked");
        fs::set_permissions(layer.join("new/deep/file"), fs::Permissions::from_mode(0o4750)).expect("set");
        symlink("/nowhere", layer.join("link")).expect("linked");
        // A link where the layer has a directory is no way out.
        symlink(root.join("out"), root.join("replaced")).expect("linked");
        mknodat(open(&layer), "gone", FileType::CharacterDevice, Mode::empty(), 0).expect("root");
        // What is mounted from outside is not cleared and not written to.
        for path in ["layer/opaque/outside", "root/opaque/outside", "root/opaque/in"] {
            fs::create_dir_all(directory.path().join(path)).expect("made");
        }
        fs::write(layer.join("opaque/outside/new"), "").expect("written");
        fs::write(root.join("opaque/outside/file"), "").expect("written");
        rustix::fs::setxattr(layer.join("opaque"), opaque_attribute(), b"y", XattrFlags::empty()).expect("root");
        let outside = identity(&rustix::fs::stat(root.join("opaque/outside")).expect("there"));
        write_one(&open(&root), &Ids::range(0, u32::MAX), &[outside], &open(&layer)).expect("written");
        assert!(root.join("opaque/outside/file").exists() && !root.join("opaque/outside/new").exists() && !root.join("opaque/in").exists());
        assert_eq!(fs::read_to_string(root.join("new/deep/file")).expect("there"), "layer/new/deep/file");
        assert_eq!(fs::metadata(root.join("new/deep/file")).expect("there").mode() & 0o7777, 0o4750);
        assert_eq!(fs::metadata(root.join("kept/again")).expect("there").nlink(), 2);
        assert!(root.join("kept/there").exists() && !root.join("gone").exists() && !root.join("proc/x").exists());
        assert_eq!(fs::read_link(root.join("link")).expect("a link"), Path::new("/nowhere"));
        assert!(root.join("replaced/in").exists() && !root.join("out/in").exists());
    }
}
