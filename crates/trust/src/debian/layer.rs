//! Packages, put together as one layer's archive. `/bin`, `/sbin` and `/lib` are links into `/usr`, as Debian has them since 12.

use super::lock::LockedPackage;
use super::package::DebFile;
use crate::content::{Content, ContentError};
use crate::layout::NewLayer;
use crate::pack::{self, Entry, LayerWriter};
use cofferdam_model::image::Base;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const LARGEST_CERTIFICATE: u64 = 1 << 20;
/// What is empty in a new image: mode and path.
const SKELETON: &[(u32, &str)] = &[
    (0o755, "etc"),
    (0o755, "home"),
    (0o700, "root"),
    (0o755, "run"),
    (0o1777, "tmp"),
    (0o755, "usr"),
    (0o755, "var"),
    (0o1777, "var/tmp"),
];

/// Packages that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A package's file.
    #[error("package {package}: {source}")]
    Package {
        /// Its name.
        package: String,
        /// What is wrong.
        source: io::Error,
    },
    /// Two have the same file.
    #[error("packages {one} and {other} both hold /{path}", path = path.display())]
    Twice {
        /// The first.
        one: String,
        /// The second.
        other: String,
        /// The file.
        path: PathBuf,
    },
    /// A file of the definition.
    #[error("{path}: {source}")]
    Source {
        /// Its name.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path that no archive may hold.
    #[error("{package}: entry {path:?} is refused")]
    Path {
        /// Whose.
        package: String,
        /// The entry.
        path: String,
    },
    /// The layer cannot be written.
    #[error("layer: {0}")]
    Write(#[from] io::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What a definition says besides packages.
pub struct Extras<'a> {
    /// It.
    pub base: &'a Base,
    /// Contents of its `source` files, by name.
    pub sources: &'a BTreeMap<String, Vec<u8>>,
    /// What the system is, for who looks for it (os-release(5)).
    pub os_release: Option<String>,
}

impl Extras<'_> {
    /// Paths whose contents the definition says.
    pub(super) fn paths(&self) -> BTreeSet<PathBuf> {
        self.base.files.iter().map(|file| self.place(file.inside())).collect()
    }

    /// A path of the definition, through the links into `/usr`.
    fn place(&self, path: &Path) -> PathBuf {
        if self.base.packages.is_empty() { path.to_owned() } else { through_links(path.to_owned()) }
    }

    /// Homes and files.
    pub(super) fn write<W: Write>(&self, root: &mut Root<W>) -> Result<(), LayerError> {
        for user in &self.base.users {
            let home = PathBuf::from(user.home().trim_start_matches('/'));
            root.directory(&home, Entry { uid: user.uid, gid: user.gid(), mode: 0o755, ..Entry::directory() })?;
        }
        for file in &self.base.files {
            let ((uid, gid), mode, path) = (file.owner_ids(), file.mode_bits(), self.place(file.inside()));
            let (entry, path) = (Entry { uid, gid, mode, ..Entry::directory() }, path.as_path());
            root.parents(path)?;
            if file.directory {
                root.directory(path, entry)?;
            } else if let Some(target) = &file.link {
                root.writer.symlink(path, OsStr::new(target), entry)?;
            } else {
                let text = file.text.as_deref().map(str::as_bytes);
                let bytes = text.or_else(|| self.sources.get(file.source.as_ref()?).map(Vec::as_slice)).unwrap_or_default();
                root.writer.file(path, entry, bytes.len() as u64, bytes)?;
            }
        }
        Ok(())
    }
}

/// A root file system on its way into an archive.
pub(super) struct Root<W: Write> {
    pub writer: LayerWriter<W>,
    seen: HashMap<PathBuf, Option<String>>,
    /// What comes later, in place of what packages have.
    replaced: BTreeSet<PathBuf>,
    merged: bool,
    certificates: BTreeMap<PathBuf, Vec<u8>>,
}

impl<W: Write> Root<W> {
    pub fn new(writer: LayerWriter<W>, replaced: BTreeSet<PathBuf>) -> Self {
        Self { writer, seen: HashMap::new(), replaced, merged: false, certificates: BTreeMap::new() }
    }

    pub fn has(&self, path: &Path) -> bool {
        self.seen.contains_key(path)
    }

    /// Once; who comes later finds it as it is.
    pub fn directory(&mut self, path: &Path, entry: Entry) -> Result<(), LayerError> {
        self.parents(path)?;
        if !self.seen.contains_key(path) {
            self.writer.directory(path, entry)?;
            self.seen.insert(path.to_owned(), None);
        }
        Ok(())
    }

    /// The directories above a path, where nothing made them yet.
    pub fn parents(&mut self, path: &Path) -> Result<(), LayerError> {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
        if self.seen.contains_key(parent) { Ok(()) } else { self.directory(parent, Entry::directory()) }
    }

    pub fn text(&mut self, path: &str, text: &str) -> Result<(), LayerError> {
        if self.replaced.contains(Path::new(path)) {
            return Ok(());
        }
        self.parents(Path::new(path))?;
        self.writer.file(Path::new(path), Entry { mode: 0o644, ..Entry::directory() }, text.len() as u64, text.as_bytes())?;
        Ok(())
    }

    fn skeleton(&mut self, machine: &str, merged: bool) -> Result<(), LayerError> {
        for (mode, path) in SKELETON {
            self.directory(Path::new(path), Entry { mode: *mode, ..Entry::directory() })?;
        }
        self.merged = merged;
        for name in MERGED.iter().filter(|name| merged && (machine == "amd64" || **name != "lib64")) {
            self.directory(&Path::new("usr").join(name), Entry::directory())?;
            self.writer.symlink(Path::new(name), OsStr::new(&format!("usr/{name}")), Entry::directory())?;
            self.seen.insert(name.into(), None);
        }
        Ok(())
    }

    /// A path of an archive, below the root and through the links into `/usr`; None for the root itself.
    fn place(&self, path: &Path) -> Result<Option<PathBuf>, ()> {
        let mut place = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::CurDir | Component::RootDir => {}
                _ => return Err(()),
            }
        }
        if self.merged {
            place = through_links(place);
        }
        Ok(Some(place).filter(|place| !place.as_os_str().is_empty()))
    }

    fn package(&mut self, name: &str, data: impl Read) -> Result<(), LayerError> {
        let wrong = |source| LayerError::Package { package: name.to_owned(), source };
        let refused = |path: &Path| LayerError::Path { package: name.to_owned(), path: path.display().to_string() };
        let mut archive = tar::Archive::new(data);
        for entry in archive.entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            let path = entry.path().map_err(wrong)?.into_owned();
            let Some(place) = self.place(&path).map_err(|()| refused(&path))? else { continue };
            let header = entry.header().clone();
            let number = |value: io::Result<u64>| value.and_then(|value| u32::try_from(value).map_err(io::Error::other)).map_err(wrong);
            let (uid, gid) = (number(header.uid())?, number(header.gid())?);
            let mode = header.mode().map_err(wrong)? & 0o7777;
            let mtime = i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(i64::MAX);
            let own = Entry { uid, gid, mode, mtime };
            let kind = header.entry_type();
            // `/bin -> usr/bin` of the package that brings the links.
            let is_merged = kind == EntryType::Symlink && self.merged && MERGED.iter().any(|name| path == Path::new(".").join(name));
            if self.replaced.contains(&place) && kind != EntryType::Directory || is_merged {
                continue;
            }
            if kind == EntryType::Directory {
                self.directory(&place, own)?;
                continue;
            }
            self.parents(&place)?;
            match self.seen.insert(place.clone(), Some(name.to_owned())) {
                Some(Some(one)) => return Err(LayerError::Twice { one, other: name.to_owned(), path: place }),
                Some(None) => return Err(LayerError::Twice { one: "others (as a directory)".into(), other: name.to_owned(), path: place }),
                None => {}
            }
            let target = entry.link_name().map_err(wrong)?.map(std::borrow::Cow::into_owned).unwrap_or_default();
            match kind {
                EntryType::Symlink => self.writer.symlink(&place, target.as_os_str(), own)?,
                EntryType::Link => {
                    let target = self.place(&target).map_err(|()| refused(&target))?.ok_or_else(|| refused(&place))?;
                    self.writer.hard_link(&place, &target, own)?;
                }
                EntryType::Regular | EntryType::Continuous => {
                    let size = entry.size();
                    if place.starts_with(CERTIFICATES) && size <= LARGEST_CERTIFICATE {
                        let mut bytes = Vec::new();
                        entry.read_to_end(&mut bytes).map_err(wrong)?;
                        self.writer.file(&place, own, size, bytes.as_slice())?;
                        self.certificates.insert(place, bytes);
                    } else {
                        self.writer.file(&place, own, size, entry)?;
                    }
                }
                _ => return Err(refused(&place)),
            }
        }
        Ok(())
    }
}

/// `bin/x` is `usr/bin/x`.
fn through_links(path: PathBuf) -> PathBuf {
    let first = path.components().next().map(|part| part.as_os_str().to_owned());
    if first.is_some_and(|first| MERGED.iter().any(|name| *name == first)) { Path::new("usr").join(path) } else { path }
}

/// One layer of these packages, lowest common denominator of a root file system. With `extras` it is a whole image without the packages'
/// scripts; without, it is what `dpkg` needs to install the same packages in it.
pub fn packages_layer(
    content: &Content,
    packages: &[LockedPackage],
    machine: &str,
    extras: Option<&Extras<'_>>,
    epoch: i64,
) -> Result<NewLayer, LayerError> {
    let replaced = extras.map(Extras::paths).unwrap_or_default();
    let mut root = Root::new(pack::begin(content, epoch)?, replaced);
    root.skeleton(machine, !packages.is_empty())?;
    for package in packages {
        let wrong = |source| LayerError::Package { package: package.name.clone(), source };
        let deb = DebFile::open(&content.blob_path(&package.digest)).map_err(wrong)?;
        root.package(&package.name, deb.data().map_err(wrong)?)?;
        if extras.is_some() {
            root.text(&format!("var/lib/dpkg/status.d/{}", package.name), &deb.control().map_err(wrong)?)?;
        }
    }
    match extras {
        Some(extras) => finish(&mut root, extras)?,
        None => empty_database(&mut root)?,
    }
    Ok(pack::commit(content, root.writer)?)
}

/// What scripts of packages would have made, as far as everything needs it; then what the definition says.
fn finish<W: Write>(root: &mut Root<W>, extras: &Extras<'_>) -> Result<(), LayerError> {
    if !root.certificates.is_empty() {
        let texts = root.certificates.values().map(|bytes| String::from_utf8_lossy(bytes).trim_end().to_owned() + "\n");
        let bundle = texts.collect::<String>();
        root.text(BUNDLE, &bundle)?;
    }
    if let Some(text) = extras.os_release.as_ref().filter(|_| !root.has(Path::new("etc/os-release"))) {
        root.text("etc/os-release", text)?;
    }
    if !root.has(Path::new("etc/passwd")) {
        let (passwd, group) = accounts(extras.base);
        let first = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
        root.text("etc/passwd", &format!("{first}{passwd}"))?;
        root.text("etc/group", &format!("root:x:0:\nnogroup:x:65534:\n{group}"))?;
    }
    extras.write(root)
}

/// What `dpkg` wants to find before it installs anything.
fn empty_database<W: Write>(root: &mut Root<W>) -> Result<(), LayerError> {
    for directory in ["info", "triggers", "updates"] {
        root.directory(&Path::new("var/lib/dpkg").join(directory), Entry::directory())?;
    }
    root.text("var/lib/dpkg/status", "")?;
    root.text("var/lib/dpkg/available", "")
}

/// Lines of `/etc/passwd` and `/etc/group` for the definition's users.
pub fn accounts(base: &Base) -> (String, String) {
    let (mut passwd, mut group) = (String::new(), String::new());
    for user in &base.users {
        let shell = user.shell.as_deref().unwrap_or("/bin/sh");
        let _ = writeln!(passwd, "{}:x:{}:{}:{}:{}:{shell}", user.name, user.uid, user.gid(), user.name, user.home());
        let _ = writeln!(group, "{}:x:{}:", user.name, user.gid());
    }
    (passwd, group)
}
