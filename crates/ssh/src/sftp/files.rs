//! A sandbox's files, for a thread that sees them as their user does.

use super::wire::{Attributes, open};
use cofferdam_engine::Root;
use cofferdam_model::Timestamp;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::process::see_files_as;
use cofferdam_trust::User;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatVfs, Timespec, Timestamps, Uid, chmodat, chownat,
    fchmod, fstat, fstatvfs, ftruncate, linkat, mkdirat, openat2, readlinkat, renameat_with, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const MOST_LINKS: u32 = 40;
const ALL_MODE: u32 = 0o7777;
const NEW_FILE: u32 = 0o666;
const NEW_DIRECTORY: u32 = 0o777;

type Result<T> = std::result::Result<T, Errno>;

/// Files of a sandbox as one of its users sees them.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
    ids: Ids,
    /// Where relative paths begin.
    directory: Vec<u8>,
    user: User,
}

/// A name of a directory, with what it stands for.
#[derive(Debug)]
pub struct Named {
    pub name: Vec<u8>,
    pub long: Vec<u8>,
    pub attributes: Attributes,
}

impl Files {
    /// From now on this thread is that user to the kernel's file systems.
    pub fn enter(root: Root, user: User, directory: String) -> cofferdam_sys::Result<Self> {
        let groups: Vec<u32> = user.groups.iter().map(|group| root.ids.outside((user.uid, *group)).1).collect();
        see_files_as(root.ids.outside((user.uid, user.gid)), &groups, user.uid == 0)?;
        Ok(Self::of(root, user, directory))
    }

    /// As whoever this thread is already.
    pub(super) fn of(root: Root, user: User, directory: String) -> Self {
        Self { root: root.mount, ids: root.ids, directory: directory.into_bytes(), user }
    }

    /// An absolute path.
    fn absolute(&self, path: &[u8]) -> Vec<u8> {
        if path.starts_with(b"/") { path.to_vec() } else { [&self.directory, &b"/"[..], path].concat() }
    }

    fn look(&self, path: &[u8], follow: bool) -> Result<OwnedFd> {
        let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        openat2(&self.root, self.absolute(path), OFlags::PATH | OFlags::CLOEXEC | last, Mode::empty(), INSIDE)
    }

    /// A path's directory, and its last name.
    fn parent(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let mut path = self.absolute(path);
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let slash = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
        let name = path.split_off(slash + 1);
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Errno::INVAL);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((openat2(&self.root, path, flags, Mode::empty(), INSIDE)?, name))
    }

    /// Opens a regular file.
    pub fn open(&self, path: &[u8], flags: u32, wanted: &Attributes) -> Result<File> {
        let has = |flag: u32| flags & flag != 0;
        let mut how = match (has(open::READ), has(open::WRITE) || has(open::APPEND)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        for (flag, meaning) in [
            (open::APPEND, OFlags::APPEND),
            (open::CREATE, OFlags::CREATE),
            (open::TRUNCATE, OFlags::TRUNC),
            (open::EXCLUSIVE, OFlags::EXCL),
        ] {
            how.set(meaning, has(flag));
        }
        let mode = if has(open::CREATE) { wanted.mode.unwrap_or(NEW_FILE) & ALL_MODE } else { 0 };
        // A pipe is not waited for; what is none is refused once it is open.
        let how = how | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat2(&self.root, self.absolute(path), how, Mode::from_raw_mode(mode), INSIDE)?;
        no_kernel_file(&file)?;
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// What a path stands for.
    pub fn stat(&self, path: &[u8], follow: bool) -> Result<Attributes> {
        let place = self.look(path, follow)?;
        statat(&place, "", AtFlags::EMPTY_PATH).map(|stat| self.attributes(&stat))
    }

    /// The same of an open file.
    pub fn stat_open(&self, file: &File) -> Result<Attributes> {
        fstat(file).map(|stat| self.attributes(&stat))
    }

    fn attributes(&self, stat: &Stat) -> Attributes {
        // Seconds as the protocol has them end in 2106.
        let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
        Attributes {
            size: Some(u64::try_from(stat.st_size).unwrap_or(0)),
            owner: Some(self.ids.inside((stat.st_uid, stat.st_gid))),
            mode: Some(stat.st_mode),
            times: Some((seconds(stat.st_atime), seconds(stat.st_mtime))),
        }
    }

    /// Sets what is there of a path.
    pub fn set(&self, path: &[u8], wanted: &Attributes, follow: bool) -> Result<()> {
        let place = self.look(path, follow)?;
        no_kernel_file(&place)?;
        // The descriptor's own name in /proc: a link by which the kernel finds what is open, whatever its path leads to by now.
        let by_descriptor = format!("/proc/self/fd/{}", place.as_raw_fd());
        let kind = FileType::from_raw_mode(statat(&place, "", AtFlags::EMPTY_PATH)?.st_mode);
        if let Some(size) = wanted.size {
            if kind != FileType::RegularFile {
                return Err(Errno::INVAL);
            }
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            ftruncate(rustix::fs::open(&by_descriptor, flags, Mode::empty())?, size)?;
        }
        self.set_owner(&place, wanted)?;
        if let Some(mode) = wanted.mode {
            if kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            chmodat(rustix::fs::CWD, &by_descriptor, Mode::from_raw_mode(mode & ALL_MODE), AtFlags::empty())?;
        }
        set_times(&place, wanted)
    }

    /// The same of an open file.
    pub fn set_open(&self, file: &File, wanted: &Attributes) -> Result<()> {
        if let Some(size) = wanted.size {
            ftruncate(file, size)?;
        }
        self.set_owner(file, wanted)?;
        if let Some(mode) = wanted.mode {
            fchmod(file, Mode::from_raw_mode(mode & ALL_MODE))?;
        }
        set_times(file, wanted)
    }

    fn set_owner(&self, place: impl std::os::fd::AsFd, wanted: &Attributes) -> Result<()> {
        let Some(owner) = wanted.owner else { return Ok(()) };
        if !self.ids.has(owner) {
            return Err(Errno::PERM);
        }
        let (uid, gid) = self.ids.outside(owner);
        chownat(place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
    }

    /// Opens a directory for its names.
    pub fn list(&self, path: &[u8]) -> Result<Listing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = openat2(&self.root, self.absolute(path), flags, Mode::empty(), INSIDE)?;
        Ok(Listing { names: Dir::read_from(&place)?, place })
    }

    /// Its next names; none at the end.
    pub fn next_names(&self, listing: &mut Listing, most: usize) -> Result<Vec<Named>> {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(entry) = listing.names.next() else { break };
            let name = entry?.file_name().to_bytes().to_vec();
            match statat(&listing.place, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
                // Gone meanwhile.
                Err(Errno::NOENT) => {}
                stat => {
                    let stat = stat?;
                    let attributes = self.attributes(&stat);
                    let long = long(&name, &stat, attributes.owner.unwrap_or_default());
                    found.push(Named { name, long, attributes });
                }
            }
        }
        Ok(found)
    }

    /// Removes a file.
    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        unlinkat(parent, OsStr::from_bytes(&name), AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        unlinkat(parent, OsStr::from_bytes(&name), AtFlags::REMOVEDIR)
    }

    /// Makes a directory.
    pub fn make_directory(&self, path: &[u8], wanted: &Attributes) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        mkdirat(parent, OsStr::from_bytes(&name), Mode::from_raw_mode(wanted.mode.unwrap_or(NEW_DIRECTORY) & ALL_MODE))
    }

    /// Gives a file another name; in place of another file only if `replace`.
    pub fn rename(&self, from: &[u8], to: &[u8], replace: bool) -> Result<()> {
        let ((from, old), (to, new)) = (self.parent(from)?, self.parent(to)?);
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(from, OsStr::from_bytes(&old), to, OsStr::from_bytes(&new), flags)
    }

    /// One more name of a file.
    pub fn link(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let ((from, old), (to, new)) = (self.parent(from)?, self.parent(to)?);
        linkat(from, OsStr::from_bytes(&old), to, OsStr::from_bytes(&new), AtFlags::empty())
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, target: &[u8], path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        symlinkat(OsStr::from_bytes(target), parent, OsStr::from_bytes(&name))
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        readlinkat(self.look(path, false)?, "", Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// How full the file system of a path is.
    pub fn space(&self, path: &[u8]) -> Result<StatVfs> {
        fstatvfs(self.look(path, true)?)
    }

    /// The path without links, `.` and `..`; what does not exist stays as it is.
    pub fn real_path(&self, path: &[u8]) -> Result<Vec<u8>> {
        let absolute = self.absolute(path);
        let mut wanted: VecDeque<Vec<u8>> = parts(&absolute);
        let (mut real, mut links) = (Vec::<Vec<u8>>::new(), 0);
        while let Some(part) = wanted.pop_front() {
            if part == b".." {
                real.pop();
                continue;
            }
            real.push(part);
            if let Ok(target) = self.read_link(&joined(&real)) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.starts_with(b"/") {
                    real.clear();
                } else {
                    real.pop();
                }
                for part in parts(&target).into_iter().rev() {
                    wanted.push_front(part);
                }
            }
        }
        Ok(joined(&real))
    }

    /// The same of a path that may begin with `~`.
    pub fn expand(&self, path: &[u8]) -> Result<Vec<u8>> {
        match path.strip_prefix(b"~") {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => self.real_path(&[self.user.home.as_bytes(), rest].concat()),
            Some(_) => Err(Errno::NOENT),
            None => self.real_path(path),
        }
    }

    /// A socket inside, connected to.
    pub fn connect(&self, path: &[u8]) -> Result<OwnedFd> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let place = self.look(path, true)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?)?;
        Ok(socket)
    }
}

/// A directory that is being listed.
#[derive(Debug)]
pub struct Listing {
    place: OwnedFd,
    names: Dir,
}

/// Files of `/proc` and `/sys` are not for whoever comes from outside: this thread may hold rights there that nobody inside has, and a link inside
/// may lead there from anywhere.
fn no_kernel_file(place: impl std::os::fd::AsFd) -> Result<()> {
    const KERNELS: [rustix::fs::FsWord; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];
    if KERNELS.contains(&rustix::fs::fstatfs(place)?.f_type) { Err(Errno::ACCESS) } else { Ok(()) }
}

fn set_times(place: impl std::os::fd::AsFd, wanted: &Attributes) -> Result<()> {
    let Some((access, modification)) = wanted.times else { return Ok(()) };
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let times = Timestamps { last_access: time(access), last_modification: time(modification) };
    utimensat(place, "", &times, AtFlags::EMPTY_PATH)
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    if parts.is_empty() { b"/".to_vec() } else { parts.iter().flat_map(|part| [b"/", part.as_slice()].concat()).collect() }
}

/// A line as `ls -l` prints it, which clients show.
fn long(name: &[u8], stat: &Stat, (user, group): (u32, u32)) -> Vec<u8> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '-',
    };
    let bit = |shift: u32| if stat.st_mode >> shift & 1 == 1 { ['x', 'w', 'r'][(shift % 3) as usize] } else { '-' };
    let mode: String = (0..9).rev().map(bit).collect();
    let time = Timestamp::from_second(stat.st_mtime).map_or_else(|_| "?".to_owned(), |time| time.strftime("%b %e %Y %H:%M").to_string());
    let mut line = format!("{kind}{mode} {:>4} {user:<8} {group:<8} {:>10} {time} ", stat.st_nlink, stat.st_size).into_bytes();
    line.extend(name);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn files(root: &Path) -> Files {
        let mount = File::open(root).expect("opened").into();
        let user = User { uid: 0, gid: 0, groups: Vec::new(), name: "root".into(), home: "/home/x".into() };
        Files::of(Root { mount, ids: Ids::range(0, u32::MAX) }, user, "/start".into())
    }

    #[test]
    fn no_path_leads_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("start")).expect("made");
        std::fs::write(directory.path().join("outside"), "secret").expect("written");
        for (link, target) in [("up", "../../outside"), ("abs", "/outside"), ("loop", "loop"), ("proc", "/proc/self/root/etc/passwd")] {
            std::os::unix::fs::symlink(target, root.join("start").join(link)).expect("a link");
        }
        let files = files(&root);
        for path in ["up", "abs", "loop", "proc", "../../outside", "/../outside", "/start/../../outside"] {
            assert!(files.open(path.as_bytes(), open::READ, &Attributes::default()).is_err(), "{path}");
            assert!(files.stat(path.as_bytes(), true).is_err(), "{path}");
        }
        files.open(b"up", open::WRITE | open::CREATE, &Attributes::default()).expect("within the root");
        assert!(root.join("outside").exists());
        assert_eq!(std::fs::read(directory.path().join("outside")).expect("there"), b"secret");
        files.rename(b"up", b"/../../moved", true).expect("within the root");
        assert!(root.join("moved").symlink_metadata().is_ok());
    }

    #[test]
    fn real_paths() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(directory.path().join("a/b")).expect("made");
        std::os::unix::fs::symlink("/a/b", directory.path().join("l")).expect("a link");
        std::os::unix::fs::symlink("../..", directory.path().join("a/b/up")).expect("a link");
        std::os::unix::fs::symlink("s", directory.path().join("s")).expect("a link");
        let files = files(directory.path());
        for (path, real) in [
            ("", "/start"),
            (".", "/start"),
            ("x/../y", "/start/y"),
            ("/l/..", "/a"),
            ("/l/new", "/a/b/new"),
            ("/a/b/up/l", "/a/b"),
            ("/../..", "/"),
            ("//a//./b/", "/a/b"),
        ] {
            assert_eq!(String::from_utf8(files.real_path(path.as_bytes()).expect(path)).expect("text"), real, "{path}");
        }
        assert_eq!(files.real_path(b"/s"), Err(Errno::LOOP));
        assert_eq!(files.expand(b"~/x").expect("a path"), b"/home/x/x");
        assert!(files.expand(b"~other").is_err());
    }

    #[test]
    fn only_files_are_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("made");
        let files = files(directory.path());
        for flags in [open::READ, open::WRITE, open::READ | open::WRITE] {
            assert!(files.open(b"/pipe", flags, &Attributes::default()).is_err());
        }
        assert_eq!(files.open(b"/", open::READ, &Attributes::default()).err(), Some(Errno::ISDIR));
    }

    #[test]
    fn files_of_the_kernel_are_not_served() {
        let files = files(Path::new("/"));
        for path in ["/proc/version", "/proc/sys/kernel/ostype", "/sys/kernel/notes"] {
            assert_eq!(files.open(path.as_bytes(), open::READ, &Attributes::default()).err(), Some(Errno::ACCESS), "{path}");
            assert_eq!(
                files.set(path.as_bytes(), &Attributes { mode: Some(0o644), ..Attributes::default() }, true).err(),
                Some(Errno::ACCESS)
            );
        }
    }
}
