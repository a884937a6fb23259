//! Differences in the user's own tree, because the user said so.

use super::{Changed, Difference, Item, Root};
use crate::exit::{FAILED, Failure};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, renameat, statat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A name that is renamed to the right one when it is whole.
const PARTIAL: &str = ".cofferdam-partial";

/// Writes them. With `force`, what was changed meanwhile is overwritten; else nothing is written at all then.
pub fn to_tree(changed: &Changed, force: bool) -> Result<(), Failure> {
    let meanwhile: Vec<String> = changed
        .differences
        .iter()
        .filter(|difference| difference.meanwhile)
        .map(|difference| difference.path.display().to_string())
        .collect();
    if !meanwhile.is_empty() && !force {
        let message = format!("changed in {} since the sandbox was made: {}", changed.source.display(), meanwhile.join(", "));
        return Err(Failure::new(FAILED, "conflict", message).remedy("look at cofferdam diff; --force overwrites, --branch keeps both"));
    }
    let root = Root::open(&changed.source)?;
    let stat = statat(&root.fd, "", AtFlags::EMPTY_PATH).map_err(std::io::Error::from)?;
    let owner = rustix::process::geteuid().is_root().then(|| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)));
    // What goes makes room for what comes.
    let (gone, came): (Vec<&Difference>, Vec<&Difference>) = changed.differences.iter().partition(|difference| difference.after.is_none());
    for difference in gone.into_iter().rev().chain(came) {
        let failed = |error: Errno| Failure::new(FAILED, "io", format!("{}: {error}", changed.source.join(&difference.path).display()));
        write(&root, difference, owner).map_err(failed)?;
    }
    Ok(())
}

fn write(root: &Root, difference: &Difference, owner: Option<(Uid, Gid)>) -> rustix::io::Result<()> {
    let parent = difference.path.parent().unwrap_or(Path::new(""));
    let name = difference.path.file_name().ok_or(Errno::INVAL)?;
    let Some(item) = &difference.after else {
        let directory = root.enter(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        unlinkat(&directory, name, AtFlags::empty())?;
        // Directories that are empty now go too; git keeps none either.
        for above in parent.ancestors().take_while(|above| !above.as_os_str().is_empty()) {
            let Ok(directory) = root.enter(above.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY) else { break };
            if unlinkat(&directory, above.file_name().unwrap_or_default(), AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        return Ok(());
    };
    let directory = made(root, parent, owner)?;
    let _ = unlinkat(&directory, PARTIAL, AtFlags::empty());
    match item {
        Item::Link(target) => symlinkat(target, &directory, PARTIAL)?,
        Item::File(bytes, executable) => {
            let mode = Mode::from_raw_mode(if *executable { 0o777 } else { 0o666 });
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(openat(&directory, PARTIAL, flags, mode)?);
            file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
    }
    own(&directory, PARTIAL.as_ref(), owner)?;
    renameat(&directory, PARTIAL, &directory, name)
}

fn own(directory: impl AsFd, name: &OsStr, owner: Option<(Uid, Gid)>) -> rustix::io::Result<()> {
    owner.map_or(Ok(()), |(uid, gid)| chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))
}

/// A directory, with those above it.
fn made(root: &Root, path: &Path, owner: Option<(Uid, Gid)>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match root.enter(path, flags) {
        Err(Errno::NOENT) => {
            let above = made(root, path.parent().unwrap_or(Path::new("")), owner)?;
            let name = path.file_name().ok_or(Errno::INVAL)?;
            mkdirat(&above, name, Mode::from_raw_mode(0o777))?;
            own(&above, name, owner)?;
            root.enter(path, flags)
        }
        other => other,
    }
}
