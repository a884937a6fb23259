//! `run --repo`, `diff`, `apply`: a repository is worked on in a copy, and what was changed comes back as its user wants.

use cofferdam_tests::{Ended, Home, ended};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A repository with three files and one commit.
fn repository(home: &Home) -> PathBuf {
    let path = home.path("repo");
    fs::create_dir_all(path.join("src")).expect("made");
    fs::write(path.join("src/a.txt"), "one\ntwo\nthree\n").expect("written");
    fs::write(path.join("gone.txt"), "gone\n").expect("written");
    fs::write(path.join("kept.bin"), [0, 1, 2]).expect("written");
    for words in [&["init", "-q", "-b", "main"][..], &["add", "."], &["commit", "-q", "-m", "first"]] {
        assert_eq!(git(home, words).code, 0, "{words:?}");
    }
    path
}

fn git(home: &Home, words: &[&str]) -> Ended {
    let mut command = Command::new("git");
    command.arg("-C").arg(home.path("repo")).args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]).args(words);
    ended(command.env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null()))
}

const WORK: &str = "set -e; cd /workspace/repo; sed -i s/two/2/ src/a.txt; rm gone.txt; mkdir -p new/deep; echo hello > new/deep/b; \
                    chmod +x new/deep/b; ln -s ../src/a.txt new/link; printf '\\0\\377' > new/picture; id -u; stat -c %u src/a.txt";
const HOSTILE: &str = "cd /workspace/repo; mkdir -p .git/hooks sub/.GIT/hooks; echo evil > .git/hooks/pre-commit; echo evil > .git/config; \
                       echo evil > sub/.GIT/config; ln -s /etc out; mkfifo pipe; rm -rf src; ln -s /tmp src; echo ok > fine";

fn run(home: &Home, name: &str, script: &str) -> Ended {
    let repo = repository(home);
    let words = ["run", "--name", name, "--repo", &repo.display().to_string(), "--", "sh", "-c", script];
    home.run(&words)
}

#[test]
pub fn a_branch_a_patch_and_the_tree() {
    let home = Home::new();
    let ran = run(&home, "work", WORK);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(ran.code == 0 && lines[0] == lines[1] && ran.err.contains("5 files differ"), "the tree's owner is its user: {ran:?}");
    assert_eq!(git(&home, &["status", "--porcelain"]).out, "", "nothing happened outside");
    let diff = home.ok(&["diff", "work"]);
    assert!(diff.contains("-two\n+2\n") && diff.contains("deleted file mode 100644\n--- a/gone.txt"), "{diff}");
    assert!(diff.contains("new file mode 100755\n--- /dev/null\n+++ b/new/deep/b") && diff.contains("new file mode 120000"), "{diff}");
    // On a branch.
    home.ok(&["apply", "work", "-m", "from inside"]);
    assert_eq!(git(&home, &["status", "--porcelain"]).out, "", "neither index nor tree");
    let names = git(&home, &["diff", "--name-status", "main", "cofferdam/work"]).out;
    assert_eq!(names, "D\tgone.txt\nA\tnew/deep/b\nA\tnew/link\nA\tnew/picture\nM\tsrc/a.txt\n");
    assert_eq!(git(&home, &["log", "-1", "--format=%s", "cofferdam/work"]).out, "from inside\n");
    let again = home.run(&["apply", "work"]);
    assert!(again.code == 1 && again.err.contains("branch cofferdam/work exists"), "{again:?}");
    // As a patch, which git takes.
    let patch = home.path("patch");
    let written = home.run(&["apply", "work", "--patch", "-"]);
    assert!(written.code == 1 && written.err.contains("new/picture"), "{written:?}");
    fs::write(&patch, written.out.split("diff --git a/new/picture").next().expect("text").to_owned() + rest(&written.out))
        .expect("written");
    let checked = git(&home, &["apply", "--check", &patch.display().to_string()]);
    assert_eq!(checked.code, 0, "{checked:?}");
    // Into the tree: not over what was changed meanwhile.
    fs::write(home.path("repo/src/a.txt"), "mine\n").expect("written");
    let refused = home.run(&["apply", "work", "--tree"]);
    assert!(refused.code == 1 && refused.err.contains("src/a.txt") && home.path("repo/gone.txt").exists(), "{refused:?}");
    home.ok(&["apply", "work", "--tree", "--force"]);
    assert_eq!(git(&home, &["diff", "--cached", "cofferdam/work"]).code, 0);
    assert_eq!(git(&home, &["add", "-A"]).code, 0);
    assert_eq!(git(&home, &["diff", "--cached", "--stat", "cofferdam/work"]).out, "", "the tree is the branch's");
    home.ok(&["rm", "work"]);
}

/// What follows a file that is no text.
fn rest(patch: &str) -> &str {
    let after = patch.split_once("diff --git a/new/picture").map_or("", |(_, after)| after);
    after.find("diff --git").map_or("", |at| &after[at..])
}

#[test]
pub fn what_is_written_inside_does_nothing_outside() {
    let home = Home::new();
    let ran = run(&home, "bad", HOSTILE);
    assert_eq!(ran.code, 0, "{ran:?}");
    fs::write(home.path("repo/.git/hooks/reference-transaction"), format!("#!/bin/sh\ntouch {}\n", home.path("hooked").display()))
        .expect("written");
    let applied = home.run(&["apply", "bad"]);
    assert!(applied.code == 0 && applied.err.contains("sub/.GIT") && applied.err.contains("git's own"), "{applied:?}");
    let names = git(&home, &["diff", "--name-status", "main", "cofferdam/bad"]).out;
    assert_eq!(names, "A\tfine\nA\tout\nA\tsrc\nD\tsrc/a.txt\n");
    home.ok(&["apply", "bad", "--tree"]);
    assert!(!home.path("repo/.git/hooks/pre-commit").exists() && !home.path("repo/sub").exists() && !home.path("repo/pipe").exists());
    assert_eq!(fs::read_link(home.path("repo/src")).expect("a link"), PathBuf::from("/tmp"));
    // A second sandbox's file below that link is not written through it.
    let config = fs::read_to_string(home.path("repo/.git/config")).expect("there");
    assert!(!config.contains("evil") && !home.path("hooked").exists());
    home.ok(&["rm", "bad"]);
}

#[test]
pub fn links_of_the_tree_are_not_followed() {
    let home = Home::new();
    let ran = run(&home, "deep", "mkdir -p /workspace/repo/d && echo in > /workspace/repo/d/f");
    assert_eq!(ran.code, 0, "{ran:?}");
    let outside = home.path("outside");
    fs::create_dir(&outside).expect("made");
    std::os::unix::fs::symlink(&outside, home.path("repo/d")).expect("a link");
    let applied = home.run(&["apply", "deep", "--tree", "--force"]);
    assert!(applied.code != 0 || !outside.join("f").exists(), "{applied:?}");
    assert!(!outside.join("f").exists());
    // Nor is one that took the tree's own place.
    fs::rename(home.path("repo"), home.path("moved")).expect("renamed");
    std::os::unix::fs::symlink(&outside, home.path("repo")).expect("a link");
    let applied = home.run(&["apply", "deep", "--tree", "--force"]);
    assert!(applied.code == 1 && fs::read_dir(&outside).expect("a directory").next().is_none(), "{applied:?}");
    home.ok(&["rm", "deep"]);
}

#[test]
pub fn a_running_sandbox_a_branch_at_the_end_and_errors() {
    let home = Home::new();
    let repo = repository(&home).display().to_string();
    home.ok(&["run", "-d", "--name", "live", "--repo", &repo, "--", "sh", "-c", "echo x > /workspace/repo/live; sleep 60"]);
    cofferdam_tests::eventually("its change is seen", || home.ok(&["diff", "live"]).contains("+++ b/live"));
    home.ok(&["rm", "-f", "live"]);
    let ran = home.run(&["run", "--repo", &repo, "--branch", "topic", "--", "sh", "-c", "echo y > by-branch"]);
    assert!(ran.code == 0 && ran.err.contains("1 files on branch topic"), "{ran:?}");
    assert_eq!(git(&home, &["show", "topic:by-branch"]).out, "y\n");
    // A directory that moves is all of its files.
    home.ok(&["run", "--name", "moved", "--repo", &repo, "--", "mv", "src", "lib"]);
    let moved: serde_json::Value = serde_json::from_str(&home.ok(&["diff", "moved", "-o", "json"])).expect("JSON");
    assert_eq!(moved, serde_json::json!([{ "kind": "A", "path": "lib/a.txt" }, { "kind": "D", "path": "src/a.txt" }]));
    let nothing = home.run(&["run", "--repo", &repo, "--", "true"]);
    assert!(nothing.err.contains("nothing was changed"), "{nothing:?}");
    // No repository of git's: a patch and the tree still work.
    let plain = home.path("plain");
    fs::create_dir(&plain).expect("made");
    home.ok(&["run", "--name", "plain", "--repo", &plain.display().to_string(), "--", "sh", "-c", "echo z > f"]);
    let refused = home.run(&["apply", "plain"]);
    assert!(refused.code == 1 && refused.err.contains("not a git repository"), "{refused:?}");
    home.ok(&["apply", "plain", "--tree"]);
    assert_eq!(fs::read_to_string(plain.join("f")).expect("there"), "z\n");
    home.ok(&["run", "--name", "none", "--", "true"]);
    assert!(home.run(&["apply", "none"]).err.contains("--repo DIR"));
    assert_eq!(home.run(&["run", "--repo", "/no/such", "--", "true"]).code, 125);
    for id in home.ok(&["ps", "-aq"]).lines() {
        home.ok(&["rm", id]);
    }
}

/// A submodule stays what it is on a branch; what was changed in it comes back into the tree and as a patch, and is named.
#[test]
fn submodules_stay_what_they_are() {
    let home = Home::new();
    let repo = repository(&home);
    let made = ended(Command::new("sh").current_dir(home.path("")).env("GIT_CONFIG_GLOBAL", "/dev/null").args([
        "-c",
        "set -e; g() { git -c user.name=a -c user.email=a@b -c protocol.file.allow=always -c safe.directory='*' \"$@\"; }; git init -q -b main lib; \
         echo lib > lib/l; g -C lib add .; g -C lib commit -qm lib; g -C repo submodule --quiet add ../lib sub; g -C repo commit -qm sub",
    ]));
    assert_eq!(made.code, 0, "{made:?}");
    let words = ["run", "--name", "work", "--repo", &repo.display().to_string(), "--", "sh", "-c"];
    home.ok(&[&words[..], &["cd /workspace/repo; echo more >> sub/l; echo new > sub/n; echo new > subject"]].concat());
    let applied = home.run(&["apply", "work"]);
    assert!(
        applied.code == 1 && applied.out.starts_with("1 files on branch") && applied.err.contains("not on the branch: sub/l, sub/n"),
        "{applied:?}"
    );
    assert_eq!(git(&home, &["diff", "--name-status", "main", "cofferdam/work"]).out, "A\tsubject\n");
    assert!(git(&home, &["ls-tree", "cofferdam/work", "sub"]).out.starts_with("160000 commit"));
    home.ok(&["apply", "work", "--tree"]);
    assert_eq!(fs::read_to_string(repo.join("sub/l")).expect("there"), "lib\nmore\n");
    home.ok(&["rm", "work"]);
}

/// A repository whose objects have names of 64 digits.
#[test]
fn a_repository_of_long_names() {
    let home = Home::new();
    let path = home.path("repo");
    fs::create_dir_all(&path).expect("made");
    for name in ["a", "gone"] {
        fs::write(path.join(name), "text\n").expect("written");
    }
    for words in [&["init", "-q", "-b", "main", "--object-format=sha256"][..], &["add", "."], &["commit", "-q", "-m", "first"]] {
        assert_eq!(git(&home, words).code, 0, "{words:?}");
    }
    home.ok(&["run", "--name", "work", "--repo", &path.display().to_string(), "--", "sh", "-c", "cd /workspace/repo; rm gone; echo x > a"]);
    home.ok(&["apply", "work"]);
    assert_eq!(git(&home, &["diff", "--name-status", "main", "cofferdam/work"]).out, "M\ta\nD\tgone\n");
    home.ok(&["rm", "work"]);
}
