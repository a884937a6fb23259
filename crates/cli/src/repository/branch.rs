//! Differences as a commit on a new branch of the user's repository: neither its index nor its working tree is touched.

use super::{Changed, Item};
use crate::exit::{FAILED, Failure};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that would lead git elsewhere.
const ELSEWHERE: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
];

/// git in the repository that holds a tree. The settings are the user's; no hook runs.
struct Git {
    top: PathBuf,
    index: PathBuf,
}

/// A branch that was made.
#[derive(Debug)]
pub struct Branch {
    /// Its commit.
    pub commit: String,
    /// What differs in repositories of their own below this one, which its commits cannot hold.
    pub left_out: Vec<PathBuf>,
}

/// Makes the branch.
pub fn to_branch(changed: &Changed, branch: &str, message: &str, scratch: &Path) -> Result<Branch, Failure> {
    let top = Git { top: changed.source.clone(), index: scratch.join("index") }.text(&["rev-parse", "--show-toplevel"], b"")?;
    let git = Git { top: PathBuf::from(&top), index: scratch.join("index") };
    git.text(&["check-ref-format", "--branch", branch], b"")?;
    let reference = format!("refs/heads/{branch}");
    if git.text(&["rev-parse", "--verify", "--quiet", &reference], b"").is_ok() {
        return Err(Failure::new(FAILED, "name_in_use", format!("branch {branch} exists in {top}")).remedy("name another: --branch NAME"));
    }
    let head = git.text(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], b"").ok();
    match &head {
        Some(head) => git.text(&["read-tree", head], b"")?,
        None => git.text(&["read-tree", "--empty"], b"")?,
    };
    let below = changed.source.strip_prefix(&git.top).unwrap_or(Path::new(""));
    let nothing = "0".repeat(git.store(b"")?.len());
    let paths: Vec<PathBuf> = changed.differences.iter().map(|difference| below.join(&difference.path)).collect();
    let submodules = git.submodules(&paths)?;
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for (difference, path) in changed.differences.iter().zip(paths) {
        if path.ancestors().any(|place| submodules.contains(place)) {
            left_out.push(difference.path.clone());
            continue;
        }
        let (mode, object) = match &difference.after {
            None => ("0", nothing.clone()),
            Some(Item::File(bytes, executable)) => (if *executable { "100755" } else { "100644" }, git.store(bytes)?),
            Some(Item::Link(target)) => ("120000", git.store(target.as_os_str().as_bytes())?),
        };
        entries.extend(format!("{mode} {object}\t").into_bytes());
        entries.extend(path.as_os_str().as_bytes());
        entries.push(0);
    }
    git.text(&["update-index", "-z", "--index-info"], &entries)?;
    let tree = git.text(&["write-tree"], b"")?;
    let mut words = Vec::new();
    if git.text(&["config", "user.email"], b"").is_err() {
        words.extend(["-c", "user.name=cofferdam", "-c", "user.email=cofferdam@localhost"]);
    }
    words.extend(["commit-tree", &tree, "-F", "-"]);
    if let Some(head) = &head {
        words.extend(["-p", head]);
    }
    let commit = git.text(&words, message.as_bytes())?;
    // Only if nobody has made it meanwhile.
    git.text(&["update-ref", "-m", "cofferdam apply", &reference, &commit, &nothing], b"")?;
    Ok(Branch { commit, left_out })
}

impl Git {
    fn store(&self, bytes: &[u8]) -> Result<String, Failure> {
        self.text(&["hash-object", "-w", "--stdin", "--no-filters"], bytes)
    }

    /// Which of these paths, and of the directories that they lie in, are submodules in the index.
    fn submodules(&self, paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Failure> {
        /// A command line takes so many.
        const AT_ONCE: usize = 500;
        let places: BTreeSet<&Path> = paths.iter().flat_map(|path| path.ancestors()).filter(|place| *place != Path::new("")).collect();
        let places: Vec<&str> = places.into_iter().filter_map(Path::to_str).collect();
        let mut found = BTreeSet::new();
        let tree = self.text(&["write-tree"], b"")?;
        for some in places.chunks(AT_ONCE) {
            let words = [&["--literal-pathspecs", "ls-tree", "-z", "--full-tree", &tree, "--"], some].concat();
            let listed = self.text(&words, b"")?;
            let links = listed.split('\0').filter_map(|entry| entry.strip_prefix("160000 ")?.split_once('\t'));
            found.extend(links.map(|(_, path)| PathBuf::from(path)));
        }
        Ok(found)
    }

    fn text(&self, words: &[&str], input: &[u8]) -> Result<String, Failure> {
        let failed = |why: String| Failure::new(FAILED, "git", format!("git in {}: {why}", self.top.display()));
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&self.top)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"])
            .args(words);
        for name in ELSEWHERE {
            command.env_remove(name);
        }
        command.env("GIT_INDEX_FILE", &self.index).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(format!("{error}; install git, or use --patch or --tree")))?;
        // One that ends early says why itself.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}: {}", words.first().unwrap_or(&""), said.trim().replace('\n', "; "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
