//! `lock.json`: exactly which packages a base is made of, for each architecture. One line a package, so that a change is read easily.

use super::archive::seconds;
use super::resolve::{Package, is_pool};
use crate::content::sha256;
use cofferdam_model::image::{Base, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

const VERSION: u32 = 1;

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// 1.
    pub version: u32,
    /// Digest of what it was resolved from: suite, components, packages, scripts.
    pub definition: Digest,
    /// The releases it was taken from.
    pub suites: Vec<LockedSuite>,
    /// For each architecture, by name.
    pub packages: BTreeMap<String, Vec<LockedPackage>>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSuite {
    /// Its name.
    pub suite: String,
    /// Its version, such as 13.2; updates have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its date, as it gives it.
    pub date: String,
    /// Of its signed file.
    pub digest: Digest,
}

/// A package at its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its path in the archive.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// From the archive of security updates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub security: bool,
}

/// A lock file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Not of its form.
    #[error("{file}: {why}; make it anew: cofferdam image lock --update")]
    Shape {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Of another definition.
    #[error("{file} was made from another base.yaml; see what changes with cofferdam image lock, take it with --update")]
    Stale {
        /// The file.
        file: String,
    },
}

/// What differs between two lock files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// For which machines.
    pub architecture: String,
    /// The package.
    pub name: String,
    /// The version that was.
    pub from: Option<String>,
    /// The version that is.
    pub to: Option<String>,
}

impl LockedPackage {
    pub(super) fn of(package: &Package) -> Option<Self> {
        let digest = format!("sha256:{}", package.sha256).parse().ok()?;
        let Package { name, version, file, size, security, .. } = package.clone();
        Some(Self { name, version, file, size, digest, security })
    }
}

impl Lock {
    /// Of a base without packages.
    pub fn empty(base: &Base) -> Self {
        Self { version: VERSION, definition: definition(base), suites: Vec::new(), packages: BTreeMap::new() }
    }

    /// Reads one, and checks that it was made from this base.
    pub fn parse(file: &str, text: &str, base: &Base) -> Result<Self, LockError> {
        let lock = Self::read(file, text)?;
        if lock.definition == definition(base) { Ok(lock) } else { Err(LockError::Stale { file: file.to_owned() }) }
    }

    /// Reads one.
    pub fn read(file: &str, text: &str) -> Result<Self, LockError> {
        let shape = |why: String| LockError::Shape { file: file.to_owned(), why };
        let lock: Self = serde_json::from_str(text).map_err(|error| shape(error.to_string()))?;
        if lock.version != VERSION {
            return Err(shape(format!("version {} is not known", lock.version)));
        }
        match lock.packages.values().flatten().find(|package| !is_pool(&package.file)) {
            Some(package) => Err(shape(format!("{:?} is no path of an archive", package.file))),
            None => Ok(lock),
        }
    }

    /// As a file.
    pub fn text(&self) -> String {
        let mut text = format!("{{\n  \"version\": {},\n  \"definition\": \"{}\",\n  \"suites\": [", self.version, self.definition);
        lines(&mut text, 4, self.suites.iter().map(line));
        text.push_str("],\n  \"packages\": {");
        for (at, (architecture, packages)) in self.packages.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n    \"{architecture}\": [");
            lines(&mut text, 6, packages.iter().map(line));
            text.push(']');
        }
        text.push_str("\n  }\n}\n");
        text
    }

    /// The latest date of its releases, seconds since 1970: when what it holds was published.
    pub fn epoch(&self) -> Option<i64> {
        self.suites.iter().filter_map(|suite| seconds(&suite.date)).max()
    }

    /// What os-release(5) says of a system of its first release; nothing for a base without packages.
    pub fn os_release(&self) -> Option<String> {
        let release = self.suites.first()?;
        let version = release.version.as_deref().unwrap_or_default();
        let major = version.split('.').next().unwrap_or_default();
        let suite = &release.suite;
        Some(format!(
            "PRETTY_NAME=\"Debian GNU/Linux {major} ({suite})\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"{major}\"\nVERSION_CODENAME={suite}\nID=debian\n"
        ))
    }

    /// What is different in `other`.
    pub fn changes(&self, other: &Self) -> Vec<Change> {
        let versions = |lock: &Self| -> BTreeMap<(String, String), String> {
            let all = lock.packages.iter().flat_map(|(architecture, packages)| packages.iter().map(move |package| (architecture, package)));
            all.map(|(architecture, package)| ((architecture.clone(), package.name.clone()), package.version.clone())).collect()
        };
        let (old, new) = (versions(self), versions(other));
        let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let differ = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        differ
            .map(|key| Change { architecture: key.0.clone(), name: key.1.clone(), from: old.get(key).cloned(), to: new.get(key).cloned() })
            .collect()
    }
}

fn lines(text: &mut String, indent: usize, lines: impl Iterator<Item = String>) {
    let mut any = false;
    for line in lines {
        let comma = if any { "," } else { "" };
        let _ = write!(text, "{comma}\n{:indent$}{line}", "");
        any = true;
    }
    if any {
        let _ = write!(text, "\n{:width$}", "", width = indent - 2);
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What a lock depends on.
pub fn definition(base: &Base) -> Digest {
    let mut packages = base.packages.clone();
    packages.sort();
    let value = serde_json::json!({ "debian": base.debian, "packages": packages, "scripts": base.scripts });
    sha256(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &[(&str, &str)]) -> Lock {
        let base = Base::parse("b", "version: 1\ndebian: {suite: trixie}\npackages: [git]\n").expect("a base");
        let of = |(name, version): &(&str, &str)| LockedPackage {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            file: "pool/x.deb".into(),
            size: 1,
            digest: sha256(name.as_bytes()),
            security: false,
        };
        let suite = LockedSuite {
            suite: "trixie".into(),
            version: Some("13.1".into()),
            date: "Thu, 01 Jan 1970 00:00:05 UTC".into(),
            digest: sha256(b""),
        };
        let mut lock = Lock { suites: vec![suite], ..Lock::empty(&base) };
        lock.packages.insert("amd64".into(), packages.iter().map(of).collect());
        lock
    }

    #[test]
    fn written_and_read_again() {
        let one = lock(&[("git", "1"), ("sh", "2")]);
        assert_eq!(Lock::read("lock.json", &one.text()), Ok(one.clone()));
        assert_eq!(one.text().lines().filter(|line| line.contains("pool/x.deb")).count(), 2);
        assert_eq!(one.epoch(), Some(5));
        let empty = Lock { packages: BTreeMap::new(), suites: Vec::new(), ..one.clone() };
        assert_eq!(Lock::read("lock.json", &empty.text()), Ok(empty));
        let other = Base::parse("b", "version: 1\ndebian: {suite: bookworm}\npackages: [git]\n").expect("a base");
        assert!(matches!(Lock::parse("lock.json", &one.text(), &other), Err(LockError::Stale { .. })));
        let outside = one.text().replace("pool/x.deb", "../../etc/x");
        assert!(matches!(Lock::read("lock.json", &outside), Err(LockError::Shape { .. })));
    }

    #[test]
    fn changes_are_told() {
        let shown: Vec<String> = lock(&[("git", "1"), ("sh", "2")])
            .changes(&lock(&[("git", "3"), ("z", "1")]))
            .iter()
            .map(|change| format!("{} {:?} {:?}", change.name, change.from.as_deref(), change.to.as_deref()))
            .collect();
        assert_eq!(shown, ["git Some(\"1\") Some(\"3\")", "sh Some(\"2\") None", "z None Some(\"1\")"]);
    }
}
