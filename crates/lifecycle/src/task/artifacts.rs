//! Collected outputs: what matches the globs is copied out of `/workspace`, nothing else, no links and no devices.

use cofferdam_engine::{EngineError, Sandbox, Transfer, TransferReport};
use cofferdam_trust::pattern::path_matches;
use std::fs;
use std::io;
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

/// Copies what matches any of the globs from a result that is on the host already.
pub fn keep_from(result: &Path, globs: &[String], target: &Path) -> Result<TransferReport, CollectError> {
    let mut report = TransferReport::default();
    copy_matching(result, result, globs, target, &mut report).map_err(|source| CollectError::Io { path: target.to_owned(), source })?;
    Ok(report)
}

fn copy_matching(root: &Path, directory: &Path, globs: &[String], target: &Path, report: &mut TransferReport) -> io::Result<()> {
    each_match(root, directory, globs, report, &mut |path, relative, report| {
        let kept = target.join(relative);
        if let Some(parent) = kept.parent() {
            fs::create_dir_all(parent)?;
        }
        report.files += 1;
        report.bytes += fs::copy(path, &kept)?;
        Ok(())
    })
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
