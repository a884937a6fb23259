//! Two layers become one: what the upper hides or replaces of the lower is not in it.

use super::layer::{Extras, LayerError, Root};
use crate::content::{Content, ContentError};
use crate::layout::NewLayer;
use crate::pack::{self, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Archive, EntryType};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the upper layer has.
#[derive(Default)]
struct Upper {
    directories: BTreeMap<PathBuf, Entry>,
    others: BTreeSet<PathBuf>,
    hidden: BTreeSet<PathBuf>,
    opaque: BTreeSet<PathBuf>,
}

impl Upper {
    /// Whether something of the lower layer is not seen.
    fn hides(&self, path: &Path) -> bool {
        let above = |path: &Path| self.hidden.contains(path) || self.others.contains(path);
        self.directories.contains_key(path)
            || path.ancestors().any(above)
            || path.ancestors().skip(1).any(|above| self.opaque.contains(above))
    }
}

/// Puts both together with what a definition says besides; all are plain archives of the store.
pub fn flatten(content: &Content, lower: &NewLayer, upper: &NewLayer, extras: &Extras<'_>, epoch: i64) -> Result<NewLayer, LayerError> {
    let top = read(content, upper)?;
    let replaced = extras.paths();
    let mut root = Root::new(pack::begin(content, epoch)?, replaced.clone());
    let mut directories = top.directories.clone();
    each(content, lower, |path, entry, kind, _| {
        if kind == EntryType::Directory && !top.hides(&path) {
            directories.insert(path, entry);
        }
        Ok(())
    })?;
    for (path, entry) in directories {
        root.directory(&path, entry)?;
    }
    let copy = |content: &Content, layer: &NewLayer, root: &mut Root<_>, skip: &dyn Fn(&Path) -> bool| {
        each(content, layer, |path, own, kind, entry| {
            if kind == EntryType::Directory || is_sign(&path) || skip(&path) || replaced.contains(&path) {
                return Ok(());
            }
            root.parents(&path)?;
            write(root, &path, own, kind, entry)
        })
    };
    copy(content, lower, &mut root, &|path| top.hides(path))?;
    copy(content, upper, &mut root, &|_| false)?;
    extras.write(&mut root)?;
    Ok(pack::commit(content, root.writer)?)
}

fn write<W: io::Write>(
    root: &mut Root<W>,
    path: &Path,
    own: Entry,
    kind: EntryType,
    entry: &mut tar::Entry<'_, BufReader<File>>,
) -> Result<(), LayerError> {
    let target = entry.link_name()?.map(std::borrow::Cow::into_owned).unwrap_or_default();
    match kind {
        EntryType::Symlink => root.writer.symlink(path, target.as_os_str(), own)?,
        EntryType::Link => root.writer.hard_link(path, &target, own)?,
        EntryType::Regular => {
            let xattrs = xattrs(entry)?;
            root.writer.xattrs(&xattrs)?;
            root.writer.file(path, own, entry.size(), entry)?;
        }
        _ => {}
    }
    Ok(())
}

fn xattrs(entry: &mut tar::Entry<'_, BufReader<File>>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                found.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(found)
}

fn is_sign(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT))
}

fn read(content: &Content, layer: &NewLayer) -> Result<Upper, LayerError> {
    let mut upper = Upper::default();
    each(content, layer, |path, entry, kind, _| {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if name == OPAQUE {
            upper.opaque.extend(path.parent().map(Path::to_owned));
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            upper.hidden.insert(path.with_file_name(OsStr::from_bytes(hidden)));
        } else if kind == EntryType::Directory {
            upper.directories.insert(path, entry);
        } else {
            upper.others.insert(path);
        }
        Ok(())
    })?;
    Ok(upper)
}

/// Every entry of a layer that was made here.
fn each(
    content: &Content,
    layer: &NewLayer,
    mut tell: impl FnMut(PathBuf, Entry, EntryType, &mut tar::Entry<'_, BufReader<File>>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let path = content.blob_path(&layer.digest);
    let file = File::open(&path).map_err(|source| LayerError::Content(ContentError::Io { path, source }))?;
    let mut archive = Archive::new(BufReader::with_capacity(1 << 20, file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header();
        let number = |value: u64| u32::try_from(value).map_err(io::Error::other);
        let mtime = i64::try_from(header.mtime()?).unwrap_or(i64::MAX);
        let own = Entry { uid: number(header.uid()?)?, gid: number(header.gid()?)?, mode: header.mode()? & 0o7777, mtime };
        let kind = header.entry_type();
        let place: PathBuf = entry.path()?.components().collect();
        tell(place, own, kind, &mut entry)?;
    }
    Ok(())
}
