//! Collected outputs: what matches the globs is copied out of `/workspace`, nothing else, no links and no devices.

use crate::data::DataDir;
use cofferdam_engine::{EngineError, Sandbox, Transfer, TransferReport};
use cofferdam_trust::content::Hasher;
use cofferdam_trust::pattern::path_matches;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Most bytes that are taken out of one sandbox.
const MOST_BYTES: u64 = 4 << 30;

/// Why outputs could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of the host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Copies what matches any of the globs (relative to `/workspace`) into `target`.
pub async fn collect(sandbox: &dyn Sandbox, globs: &[String], target: &Path) -> Result<TransferReport, CollectError> {
    let staging = target.with_extension("collecting");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CollectError::Io { path, source }
    };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    remove(&staging).map_err(io(&staging))?;
    let transfer = Transfer::Out { source: "/workspace".into(), target: staging.clone(), most_bytes: MOST_BYTES };
    let mut report = sandbox.transfer(transfer).await?;
    (report.files, report.bytes) = (0, 0);
    let result = keep_matching(&staging, &staging, globs, target, &mut report);
    remove(&staging).map_err(io(&staging))?;
    result.map_err(io(target))?;
    Ok(report)
}

/// A file that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Below the directory that its manifest stands in.
    pub path: String,
    /// `sha256:…`: its bytes are in `artifacts/sha256`.
    pub digest: String,
    /// Bytes.
    pub bytes: u64,
}

/// Where it says what was kept in a directory: beside it, where no file of an agent's can be.
pub(super) fn manifest_of(directory: &Path) -> PathBuf {
    directory.with_extension("manifest.json")
}

/// Where collected files of an attempt are, below what is kept of it.
pub const FILES: &str = "files";
const COPY_BYTES: usize = 1 << 18;

/// Keeps what matches any of the globs of a result that is on the host already: bytes by digest, once; below `target` links to them and
/// a manifest. It is on the disk when this returns.
pub fn keep(data: &DataDir, result: &Path, globs: &[String], target: &Path) -> Result<Vec<Artifact>, CollectError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CollectError::Io { path, source }
    };
    let blobs = blobs(data);
    let mut kept = Vec::new();
    if !result.is_dir() {
        return Ok(kept);
    }
    let mut report = TransferReport::default();
    let visited = each_match(result, result, globs, &mut report, &mut |path, relative, _| {
        fs::create_dir_all(&blobs)?;
        let (digest, bytes) = store(path, &blobs)?;
        let place = target.join(relative);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        let hex = digest.trim_start_matches("sha256:");
        match fs::hard_link(blobs.join(hex), &place) {
            // A blob has as many links as the file system allows: then this is a copy of its own.
            Err(error) if error.raw_os_error() == Some(libc_emlink()) => drop(fs::copy(blobs.join(hex), &place)?),
            other => other?,
        }
        kept.push(Artifact { path: relative.to_string_lossy().into_owned(), digest, bytes });
        Ok(())
    });
    visited.map_err(io(target))?;
    if !kept.is_empty() {
        kept.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        fs::write(manifest_of(target), manifest).map_err(io(target))?;
        let directory = fs::File::open(target).map_err(io(target))?;
        rustix::fs::syncfs(&directory).map_err(|error| CollectError::Io { path: target.to_owned(), source: error.into() })?;
    }
    Ok(kept)
}

fn libc_emlink() -> i32 {
    rustix::io::Errno::MLINK.raw_os_error()
}

fn blobs(data: &DataDir) -> PathBuf {
    data.artifacts().join("sha256")
}

/// Copies a file to where its digest says, unless it is there.
fn store(path: &Path, blobs: &Path) -> io::Result<(String, u64)> {
    let mut from = fs::File::open(path)?;
    let mut to = tempfile::Builder::new().prefix(".making-").tempfile_in(blobs)?;
    let (mut hasher, mut bytes, mut buffer) = (Hasher::default(), 0, vec![0; COPY_BYTES]);
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
        bytes += length as u64;
    }
    let digest = hasher.finish();
    to.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
    match to.persist_noclobber(blobs.join(digest.hex())) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
        _ => {}
    }
    Ok((digest.to_string(), bytes))
}

/// What a directory's manifest lists.
pub fn manifest(directory: &Path) -> Vec<Artifact> {
    let text = fs::read(manifest_of(directory)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Removes bytes that no attempt links to any more.
pub fn forget(data: &DataDir, artifacts: &[Artifact]) {
    for artifact in artifacts {
        let path = blobs(data).join(artifact.digest.trim_start_matches("sha256:"));
        // Who links to it meanwhile keeps the bytes; only their name here goes.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.nlink() == 1) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves matching regular files from the staging copy to the target.
fn keep_matching(root: &Path, directory: &Path, globs: &[String], target: &Path, report: &mut TransferReport) -> io::Result<()> {
    each_match(root, directory, globs, report, &mut |path, relative, report| {
        let kept = target.join(relative);
        if let Some(parent) = kept.parent() {
            fs::create_dir_all(parent)?;
        }
        report.files += 1;
        report.bytes += fs::metadata(path)?.len();
        fs::rename(path, &kept)
    })
}

type Keep<'a> = &'a mut dyn FnMut(&Path, &Path, &mut TransferReport) -> io::Result<()>;

/// Visits regular files that match; links and the like that do are named as left out.
fn each_match(root: &Path, directory: &Path, globs: &[String], report: &mut TransferReport, keep: Keep<'_>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let relative = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each_match(root, &path, globs, report, keep)?;
        } else if globs.iter().any(|glob| matches(glob, &relative)) {
            if kind.is_file() {
                keep(&path, &relative, report)?;
            } else {
                report.left_out.push(format!("{}: a link", relative.display()));
            }
        }
    }
    Ok(())
}

/// Whether a relative path matches a glob: `*` and `?` within a name, `**` over any number of directories.
pub fn matches(glob: &str, path: &Path) -> bool {
    let parts: Vec<&str> = glob.trim_start_matches("./").split('/').filter(|part| !part.is_empty()).collect();
    let names: Option<Vec<&str>> = path.iter().map(|name| name.to_str()).collect();
    names.is_some_and(|names| path_matches(&parts, &names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let cases = [
            ("output/**", "output/a/b.txt", true),
            ("output/**", "output/a", true),
            ("output/**", "src/output/a", false),
            ("**/*.log", "a.log", true),
            ("**/*.log", "x/y/a.log", true),
            ("*.log", "x/a.log", false),
            ("a?c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("../secret", "secret", false),
            ("", "a", false),
        ];
        for (glob, path, expected) in cases {
            assert_eq!(matches(glob, Path::new(path)), expected, "{glob} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "*a".repeat(60);
        assert!(!matches(&pattern, Path::new(&"a".repeat(59))));
    }
}
