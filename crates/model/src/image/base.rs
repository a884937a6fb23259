//! `base.yaml`: an image that is described, not scripted. Debian packages, files, users, and how its processes are started.

use crate::yaml::{self, YamlError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// The version of the format.
pub const VERSION: u32 = 1;

/// A described image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// 1.
    pub version: u32,
    /// Where packages come from; needed where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<DebianSource>,
    /// Debian packages: `NAME` or `NAME=VERSION`. What they depend on comes along.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether the packages' own scripts run, as `dpkg` runs them, in a sandbox. Without, packages are unpacked and no more: smaller, and
    /// with no package manager inside.
    #[serde(default)]
    pub scripts: bool,
    /// Accounts besides root and nobody.
    #[serde(default)]
    pub users: Vec<BaseUser>,
    /// Files besides those of packages; they replace what packages put there.
    #[serde(default)]
    pub files: Vec<BaseFile>,
    /// Environment of its processes.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Who its processes are: a name or number, with or without `:GROUP`.
    #[serde(default)]
    pub user: String,
    /// Where its processes start.
    #[serde(default)]
    pub workdir: String,
    /// The first words of every command.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The further words where none are said.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A release of Debian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebianSource {
    /// Its code name, such as `trixie`. Its security updates come too.
    pub suite: String,
    /// Parts of the archive.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
}

fn main_component() -> Vec<String> {
    vec!["main".to_owned()]
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseUser {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group's number [default: the same].
    #[serde(default)]
    pub gid: Option<u32>,
    /// Its directory, which is made [default: `/home/NAME`].
    #[serde(default)]
    pub home: Option<String>,
    /// Its shell [default: `/bin/sh`].
    #[serde(default)]
    pub shell: Option<String>,
}

/// A file: exactly one of `text`, `source`, `link` and `directory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// Where it is, absolute.
    pub path: String,
    /// What it holds.
    #[serde(default)]
    pub text: Option<String>,
    /// A file beside `base.yaml` that it is a copy of.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the symbolic link leads.
    #[serde(default)]
    pub link: Option<String>,
    /// It is a directory.
    #[serde(default)]
    pub directory: bool,
    /// Octal, such as "0755" [default: 0644; of a directory 0755].
    #[serde(default)]
    pub mode: Option<String>,
    /// `UID[:GID]` [default: 0:0].
    #[serde(default)]
    pub owner: Option<String>,
}

/// A base that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// Its YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// What it says.
    #[error("{file}: {why}")]
    Meaning {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
}

impl Base {
    /// Reads one; `file` stands in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, BaseError> {
        let base: Self = yaml::parse(file, text)?;
        base.check().map_err(|why| BaseError::Meaning { file: file.to_owned(), why })?;
        Ok(base)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("version {} is not known; {VERSION} is", self.version));
        }
        match &self.debian {
            None if !self.packages.is_empty() => return Err("packages: needs debian: {suite: NAME}".into()),
            None if self.scripts => return Err("scripts: needs packages".into()),
            Some(source) if !is_word(&source.suite) || !source.components.iter().all(|part| is_word(part)) => {
                return Err(format!("debian: {:?} names no suite such as trixie", source.suite));
            }
            _ => {}
        }
        let mut names = BTreeSet::new();
        for package in &self.packages {
            let (name, version) = package.split_once('=').unwrap_or((package, "1"));
            if !is_word(name) || name.len() < 2 || !version.chars().all(is_version) || version.is_empty() {
                return Err(format!("packages: {package:?} is not NAME or NAME=VERSION"));
            }
            if !names.insert(name) {
                return Err(format!("packages: {name} is listed twice"));
            }
        }
        self.check_users()?;
        let mut paths = BTreeSet::new();
        for file in &self.files {
            file.check().map_err(|why| format!("files: {}: {why}", file.path))?;
            if !paths.insert(file.inside()) {
                return Err(format!("files: {} is listed twice", file.path));
            }
        }
        if !self.workdir.is_empty() && !is_plain(&self.workdir) {
            return Err(format!("workdir: {:?} is no absolute path", self.workdir));
        }
        match self.env.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
            Some((key, _)) => Err(format!("env: {key:?} is no name of a variable")),
            None => Ok(()),
        }
    }

    fn check_users(&self) -> Result<(), String> {
        let (mut names, mut numbers) = (BTreeSet::from(["root", "nobody"]), BTreeSet::from([0]));
        for user in &self.users {
            if !is_word(&user.name) || !names.insert(&user.name) {
                return Err(format!("users: {:?} is no new name of small letters and digits", user.name));
            }
            if !numbers.insert(user.uid) {
                return Err(format!("users: {} has the number of another", user.name));
            }
            for (what, path) in [("home", &user.home), ("shell", &user.shell)] {
                if path.as_deref().is_some_and(|path| !is_plain(path) || path.contains(':')) {
                    return Err(format!("users: {}: its {what} is no absolute path", user.name));
                }
            }
        }
        Ok(())
    }
}

impl BaseUser {
    /// Its directory.
    pub fn home(&self) -> String {
        self.home.clone().unwrap_or_else(|| format!("/home/{}", self.name))
    }

    /// Its group's number.
    pub fn gid(&self) -> u32 {
        self.gid.unwrap_or(self.uid)
    }
}

impl BaseFile {
    /// Its path below the root.
    pub fn inside(&self) -> &Path {
        Path::new(self.path.trim_start_matches('/'))
    }

    /// Its permission bits.
    pub fn mode_bits(&self) -> u32 {
        let default = if self.directory { 0o755 } else { 0o644 };
        self.mode.as_deref().and_then(octal).unwrap_or(default)
    }

    /// Its owner and group.
    pub fn owner_ids(&self) -> (u32, u32) {
        self.owner.as_deref().and_then(ids).unwrap_or((0, 0))
    }

    fn check(&self) -> Result<(), String> {
        if !is_plain(&self.path) || self.path.trim_matches('/').is_empty() {
            return Err("no absolute path, or one with . or ..".into());
        }
        let kinds = [self.text.is_some(), self.source.is_some(), self.link.is_some(), self.directory];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            return Err("exactly one of text, source, link and directory: true is wanted".into());
        }
        if let Some(source) = &self.source
            && !Path::new(source).components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(format!("source {source:?} is no file beside base.yaml"));
        }
        if self.mode.as_deref().is_some_and(|mode| octal(mode).is_none()) {
            return Err("mode is octal, such as \"0755\"".into());
        }
        if self.owner.as_deref().is_some_and(|owner| ids(owner).is_none()) {
            return Err("owner is UID or UID:GID, in numbers".into());
        }
        Ok(())
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn ids(text: &str) -> Option<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Names of packages, suites and users (Debian policy 5.6.1).
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

fn is_version(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.~:".contains(c)
}

fn is_plain(path: &str) -> bool {
    let no_control = !path.chars().any(char::is_control);
    path.starts_with('/')
        && no_control
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("version: 2\n", "version 2"),
            ("version: 1\npackages: [git]\n", "needs debian"),
            ("version: 1\ndebian: {suite: '../x'}\n", "no suite"),
            ("version: 1\ndebian: {suite: trixie}\npackages: ['git; rm']\n", "NAME or NAME=VERSION"),
            ("version: 1\ndebian: {suite: trixie}\npackages: [git, git]\n", "listed twice"),
            ("version: 1\nusers: [{name: root, uid: 5}]\n", "no new name"),
            ("version: 1\nusers: [{name: a, uid: 0}]\n", "number of another"),
            ("version: 1\nfiles: [{path: x, text: ''}]\n", "no absolute path"),
            ("version: 1\nfiles: [{path: /a/../b, text: ''}]\n", "no absolute path"),
            ("version: 1\nfiles: [{path: /a}]\n", "exactly one"),
            ("version: 1\nfiles: [{path: /a, text: x, link: y}]\n", "exactly one"),
            ("version: 1\nfiles: [{path: /a, source: ../../etc/shadow}]\n", "beside base.yaml"),
            ("version: 1\nfiles: [{path: /a, text: '', mode: '99'}]\n", "octal"),
            ("version: 1\nfiles: [{path: /a, text: '', owner: root}]\n", "numbers"),
            ("version: 1\npackges: []\n", "did you mean \"packages\""),
            ("version: 1\nworkdir: here\n", "workdir"),
        ];
        for (text, message) in cases {
            let error = Base::parse("base.yaml", text).expect_err(text).to_string();
            assert!(error.starts_with("base.yaml") && error.contains(message), "{text}: {error}");
        }
        let text = "version: 1\ndebian: {suite: trixie}\npackages: [git, 'g++=4:14.2.0-1']\nusers: [{name: web, uid: 7}]\nfiles: [{path: /a, directory: true, owner: '7:8', mode: '1777'}]\n";
        let base = Base::parse("base.yaml", text).expect("a base");
        assert_eq!((base.files[0].owner_ids(), base.files[0].mode_bits()), ((7, 8), 0o1777));
    }
}
