//! `trust.yaml`: whose images may be started, and how registries are reached.

use crate::registry::RegistryOptions;
use cofferdam_model::image::{HUB, Reference};
use cofferdam_model::yaml::{self, YamlError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How an image is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The digest that was seen first.
    Pin,
    /// A signature by one of these keys.
    Keyed,
    /// A signature by this identity, recorded in the transparency log.
    Keyless,
    /// Signed provenance: who built it, from what.
    Provenance,
    /// Never.
    Deny,
    /// Not at all: `--skip-verify`.
    Skipped,
    /// Built here.
    Built,
    /// Loaded or imported from a file here.
    Loaded,
}

impl Rule {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Keyed => "keyed",
            Self::Keyless => "keyless",
            Self::Provenance => "provenance",
            Self::Deny => "deny",
            Self::Skipped => "skipped",
            Self::Built => "built",
            Self::Loaded => "loaded",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An entry: for which images, and what they need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// A registry, or a repository, or the first parts of one; `*` is every image.
    #[serde(rename = "match")]
    pub prefix: String,
    /// How they are judged.
    pub rule: Rule,
    /// Files of public keys (PEM); relative to `trust.yaml`.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    /// With keys: the signature must stand in the transparency log.
    #[serde(default)]
    pub transparency_log: bool,
    /// Who vouched for the identity, exactly.
    pub issuer: Option<String>,
    /// The certificate's subject alternative name, whole; `*` stands for anything but `/`.
    pub identity: Option<String>,
    /// The repository that it was built from, as the certificate says.
    pub source_repository: Option<String>,
    /// The same by its number, which no rename changes.
    pub source_repository_id: Option<String>,
    /// Such as `github-hosted`.
    pub runner_environment: Option<String>,
    /// Of provenance: who built it.
    pub builder: Option<String>,
    /// Of provenance: what it was built from.
    pub source: Option<String>,
    /// A signature that was made for another repository's name counts too.
    #[serde(default)]
    pub any_repository: bool,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustFile {
    /// Where it is; relative paths are relative to its directory.
    pub path: PathBuf,
    /// Entries; the longest prefix wins.
    pub images: Vec<RuleEntry>,
    /// How registries are reached.
    pub registries: Vec<RegistryOptions>,
    /// A sigstore trust root (JSON) instead of the public one.
    pub trust_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    images: Vec<RuleEntry>,
    #[serde(default)]
    registries: Vec<RegistryOptions>,
    trust_root: Option<PathBuf>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its form.
    #[error(transparent)]
    Form(#[from] YamlError),
    /// Its meaning.
    #[error("{path}: {entry}: {why}", path = path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl TrustFile {
    /// Reads it; one that does not exist is empty.
    pub fn load(path: &Path) -> Result<Self, TrustFileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self { path: path.to_owned(), ..Self::default() }),
            Err(source) => Err(TrustFileError::Io { path: path.to_owned(), source }),
        }
    }

    /// The same from its text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, TrustFileError> {
        let document: Document = yaml::parse(&path.display().to_string(), text)?;
        let wrong = |entry: &str, why| TrustFileError::Meaning { path: path.to_owned(), entry: entry.to_owned(), why };
        if document.version != 1 {
            return Err(wrong("version", "this release knows version 1"));
        }
        for entry in &document.images {
            entry.check().map_err(|why| wrong(&entry.shown(), why))?;
        }
        for (at, entry) in document.images.iter().enumerate() {
            if document.images[..at].iter().any(|other| other.prefix() == entry.prefix()) {
                return Err(wrong(&entry.shown(), "there are two entries for the same images"));
            }
        }
        let Document { images, registries, trust_root, .. } = document;
        Ok(Self { path: path.to_owned(), images, registries, trust_root })
    }

    /// The entry for an image: the longest prefix that it has.
    pub fn entry_for(&self, reference: &Reference) -> Option<&RuleEntry> {
        let fitting = self.images.iter().filter(|entry| entry.covers(reference));
        fitting.max_by_key(|entry| entry.prefix().len())
    }

    /// A path as the file means it.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

impl RuleEntry {
    /// As messages name it.
    pub fn shown(&self) -> String {
        format!("match: {}, rule: {}", self.prefix, self.rule)
    }

    /// Whether it says what the image must have been built by or from.
    pub const fn asks_for_provenance(&self) -> bool {
        self.builder.is_some() || self.source.is_some()
    }

    /// Docker Hub's short forms are written out; `*` is nothing, which every name begins with.
    fn prefix(&self) -> String {
        let text = self.prefix.trim_end_matches('/');
        match text {
            "*" => String::new(),
            _ => match text.parse::<Reference>() {
                Ok(reference) if text.contains('/') || reference.registry() != HUB => {
                    if text.split('/').next() == Some(reference.registry()) { text.to_owned() } else { reference.name() }
                }
                _ => text.to_owned(),
            },
        }
    }

    fn covers(&self, reference: &Reference) -> bool {
        let (prefix, name) = (self.prefix(), reference.name());
        prefix.is_empty() || name == prefix || name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/'))
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.prefix.is_empty() {
            return Err("match is empty: name a registry, a repository, or * for every image");
        }
        let keyless = self.issuer.is_some() && self.identity.is_some();
        let of_keyless = [&self.issuer, &self.identity, &self.source_repository, &self.source_repository_id, &self.runner_environment];
        if self.issuer.is_some() != self.identity.is_some() {
            return Err("issuer and identity belong together");
        }
        if self.identity.as_deref().is_some_and(|identity| identity.trim_matches('*').is_empty()) {
            return Err("identity must say more than *");
        }
        if !keyless && of_keyless.iter().any(|field| field.is_some()) {
            return Err("what a certificate must say needs issuer and identity too");
        }
        match self.rule {
            Rule::Keyed if self.keys.is_empty() => Err("rule keyed needs keys"),
            Rule::Keyed if keyless => Err("rule keyed takes keys, not an identity"),
            Rule::Keyless if !keyless => Err("rule keyless needs issuer and identity"),
            Rule::Keyless if !self.keys.is_empty() => Err("rule keyless takes an identity, not keys"),
            Rule::Provenance if self.keys.is_empty() != keyless => Err("rule provenance needs either keys, or issuer and identity"),
            Rule::Provenance if !self.asks_for_provenance() => Err("rule provenance needs builder or source"),
            Rule::Pin | Rule::Deny if keyless || !self.keys.is_empty() || self.asks_for_provenance() => {
                Err("this rule looks at no signature: leave keys, identity, builder and source out, or choose another rule")
            }
            Rule::Skipped | Rule::Built | Rule::Loaded => Err("the rules are pin, keyed, keyless, provenance, deny"),
            _ => Ok(()),
        }
    }
}

/// Whether a name is what a pattern says, from end to end; `*` stands for anything but `/`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            let Some(rest) = name.strip_prefix(head) else { return false };
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(images: &str) -> Result<TrustFile, TrustFileError> {
        TrustFile::parse(Path::new("trust.yaml"), &format!("version: 1\nimages:\n{images}"))
    }

    #[test]
    fn the_longest_prefix_wins_at_its_borders() {
        let file = file(
            "- {match: '*', rule: deny}\n- {match: a.example, rule: pin}\n- {match: a.example/team, rule: deny}\n- {match: library/python, rule: pin}",
        )
        .expect("a file");
        let prefix = |text: &str| file.entry_for(&text.parse().expect("a reference")).map(|entry| entry.prefix.as_str());
        assert_eq!(prefix("a.example/app"), Some("a.example"));
        assert_eq!(prefix("a.example/team/app:1"), Some("a.example/team"));
        assert_eq!(prefix("a.example/teams/app"), Some("a.example"));
        assert_eq!(prefix("a.example.evil/app"), Some("*"));
        assert_eq!(prefix("a.example:5000/app"), Some("*"));
        assert_eq!(prefix("python:3.12"), Some("library/python"));
    }

    #[test]
    fn entries_that_protect_nothing_are_refused() {
        let odd = [
            "- {match: a.example, rule: keyed}",
            "- {match: a.example, rule: keyless}",
            "- {match: a.example, rule: keyless, issuer: x}",
            "- {match: a.example, rule: keyless, issuer: x, identity: '*'}",
            "- {match: a.example, rule: provenance, keys: [k]}",
            "- {match: a.example, rule: pin, keys: [k]}",
            "- {match: a.example, rule: skipped}",
            "- {match: a.example, rule: keyed, keys: [k], runner_environment: x}",
            "- {match: a.example, rule: pin}\n- {match: a.example, rule: deny}",
            "- {match: '', rule: pin}",
            "- {match: a.example, rule: pin, colour: red}",
        ];
        for text in odd {
            assert!(file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_are_anchored() {
        let workflow = "https://git.example/acme/*/.ci/release.yml@refs/tags/*";
        assert!(matches(workflow, "https://git.example/acme/app/.ci/release.yml@refs/tags/v1.2"));
        for other in [
            "https://git.example/acme/a/b/.ci/release.yml@refs/tags/v1",
            "https://git.example/evil/.ci/release.yml@refs/tags/v1",
            "x https://git.example/acme/app/.ci/release.yml@refs/tags/v1",
            "https://git.example/acme/app/.ci/release.yml@refs/tags/v1/x",
            "https://git.example/acme/app/.ci/release.yml@refs/heads/main",
        ] {
            assert!(!matches(workflow, other), "{other}");
        }
        assert!(!matches("abc", "abcd") && !matches("abc", "xabc") && matches("a*c", "ac"));
    }
}
