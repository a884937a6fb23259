//! What a layer's archive does to an image, path by path.

use crate::image::VerifiedImage;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It is another, or its attributes are.
    Changed,
    /// It is gone.
    Deleted,
}

impl Change {
    /// As `docker diff` writes it.
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// What a layer on top of an image changes, by path.
pub fn list(layer: &Path, image: &VerifiedImage) -> io::Result<BTreeMap<PathBuf, Change>> {
    let mut archive = tar::Archive::new(io::BufReader::new(std::fs::File::open(layer)?));
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let path: PathBuf = entry?.path()?.components().collect();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => {}
            Some(hidden) => {
                found.insert(path.with_file_name(hidden), Change::Deleted);
            }
            None => {
                let change = if image.has(&path) { Change::Changed } else { Change::Added };
                found.insert(path, change);
            }
        }
    }
    Ok(found)
}

/// What a path of a changed tree is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// A file with these bytes, executable or not.
    File(Vec<u8>, bool),
    /// A symbolic link.
    Link(PathBuf),
    /// A directory; what is in it is listed for itself. If true, nothing of what was in it before is there any more.
    Directory(bool),
    /// Nothing.
    Gone,
}

/// Largest file that is brought back, and the most of all together.
const LARGEST: u64 = 256 << 20;
const MOST: u64 = 2 << 30;

/// What a changed tree has, path by path, in order: from a layer's archive. What a version control keeps for itself (`.git`, in any
/// directory, in any case) and what is neither file, link nor directory is left out, and told.
pub fn read(layer: &Path) -> io::Result<(BTreeMap<PathBuf, Now>, Vec<String>)> {
    let mut archive = tar::Archive::new(io::BufReader::new(std::fs::File::open(layer)?));
    let (mut found, mut left_out, mut total) = (BTreeMap::new(), Vec::new(), 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path: PathBuf = entry.path()?.components().collect();
        if path.as_os_str().is_empty() {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let hidden = name.strip_prefix(".wh.").filter(|hidden| *hidden != ".wh..opq");
        let place = hidden.map_or_else(|| path.clone(), |hidden| path.with_file_name(hidden));
        if !plain || place.components().any(|part| is_git(part.as_os_str())) {
            left_out.push(format!("{}: it is git's own", place.display()));
            continue;
        }
        let header = entry.header();
        let size = header.size()?;
        let now = match header.entry_type() {
            _ if name == ".wh..wh..opq" => {
                found.insert(path.parent().unwrap_or(Path::new("")).to_owned(), Now::Directory(true));
                continue;
            }
            _ if hidden.is_some() => Now::Gone,
            tar::EntryType::Directory => match found.get(&path) {
                Some(Now::Directory(true)) => continue,
                _ => Now::Directory(false),
            },
            tar::EntryType::Symlink => Now::Link(entry.link_name()?.unwrap_or_default().into_owned()),
            tar::EntryType::Regular if size <= LARGEST && total + size <= MOST => {
                total += size;
                let executable = header.mode()? & 0o111 != 0;
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut entry, &mut bytes)?;
                Now::File(bytes, executable)
            }
            tar::EntryType::Link => match entry.link_name()?.and_then(|first| found.get(first.as_ref()).cloned()) {
                Some(same @ Now::File(..)) => same,
                _ => continue,
            },
            other => {
                let why = if other == tar::EntryType::Regular { "it is too large" } else { "it is neither file, link nor directory" };
                left_out.push(format!("{}: {why}", place.display()));
                continue;
            }
        };
        found.insert(place, now);
    }
    Ok((found, left_out))
}

/// As file systems take it that know no case, or that know short names.
fn is_git(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    let name = name.trim_end_matches(['.', ' ']);
    let invisible = |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let name: String = name.chars().filter(|c| !invisible(*c)).collect();
    name == ".git" || name == "git~1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_own_has_many_names() {
        for name in [".git", ".GIT", ".Git.", ".git ", "git~1", ".g\u{200c}it"] {
            assert!(is_git(name.as_ref()), "{name:?}");
        }
        for name in ["git", ".gitignore", ".github", "x.git"] {
            assert!(!is_git(name.as_ref()), "{name:?}");
        }
    }
}
