//! Names of images in registries, in Docker's own way of writing them short.
//!
//! `[REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST]`. Without a registry it is Docker Hub's, and there a repository without an
//! owner is `library/`'s; without tag and digest the tag is `latest` (the grammar is that of the distribution project's
//! reference package).

use super::digest::{Digest, DigestError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
pub const HUB: &str = "docker.io";
const HUB_OTHER_NAMES: &[&str] = &["index.docker.io", "registry-1.docker.io"];
const HUB_OWNER: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The registry's host and port.
    #[error("image {text:?}: {registry:?} is no registry: HOST or HOST:PORT is wanted")]
    Registry {
        /// The whole.
        text: String,
        /// The part.
        registry: String,
    },
    /// The repository.
    #[error("image {text:?}: a repository is lower-case letters and digits, parted by . _ __ - or /, such as acme/app")]
    Repository {
        /// The whole.
        text: String,
    },
    /// The tag.
    #[error("image {text:?}: a tag is up to 128 letters, digits, _ . and -, and begins with none of . and -")]
    Tag {
        /// The whole.
        text: String,
    },
    /// The digest.
    #[error("image {text:?}: {source}")]
    Digest {
        /// The whole.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

impl Reference {
    /// Host, with a port if one is said.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is said or implied.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is said.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn version(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag.as_deref().unwrap_or(DEFAULT_TAG), Digest::as_str)
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image by digest alone.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self { digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same repository under a tag.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|source| ReferenceError::Digest { text: shown(text), source })?)),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { text: shown(text) });
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (HUB, name),
        };
        check_registry(registry).ok_or_else(|| ReferenceError::Registry { text: shown(text), registry: shown(registry) })?;
        let registry = if HUB_OTHER_NAMES.contains(&registry) { HUB } else { registry };
        let hub_short = registry == HUB && !repository.contains('/');
        let repository = if hub_short { format!("{HUB_OWNER}{repository}") } else { repository.to_owned() };
        if !is_repository(&repository) {
            return Err(ReferenceError::Repository { text: shown(text) });
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry: registry.to_ascii_lowercase(), repository, tag, digest })
    }
}

fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Docker's rule: what has a dot or a port, or is `localhost`, is a host.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn check_registry(registry: &str) -> Option<()> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_fits = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let v6 =
        || host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (port_fits && host.len() <= 253 && (host.split('.').all(label) || v6())).then_some(())
}

fn is_repository(path: &str) -> bool {
    path.len() <= LONGEST_REPOSITORY && path.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_are_words = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    let parts = component.split(|c: char| c.is_ascii() && word(c as u8)).filter(|part| !part.is_empty());
    ends_are_words && parts.into_iter().all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-';
    !tag.is_empty() && tag.len() <= LONGEST_TAG && tag.bytes().all(plain) && !tag.starts_with(['.', '-'])
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// In full, so that two ways of writing one image print the same.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, full: &str) {
        let reference: Reference = text.parse().expect(text);
        assert_eq!(reference.to_string(), full);
        assert_eq!(full.parse::<Reference>().expect(full), reference, "prints what it reads");
    }

    #[test]
    fn short_names_are_written_out_as_docker_does() {
        check("python", "docker.io/library/python:latest");
        check("python:3.12-slim", "docker.io/library/python:3.12-slim");
        check("acme/app:v1", "docker.io/acme/app:v1");
        check("index.docker.io/library/python", "docker.io/library/python:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x");
        check("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest");
        check("[::1]:5000/app", "[::1]:5000/app:latest");
        check("Registry.Example/app", "registry.example/app:latest");
        check("registry.example.com/team/app__x/a-b--c.d", "registry.example.com/team/app__x/a-b--c.d:latest");
        let digest = format!("sha256:{}", "ab".repeat(32));
        check(&format!("python@{digest}"), &format!("docker.io/library/python@{digest}"));
        check(&format!("python:3@{digest}"), &format!("docker.io/library/python:3@{digest}"));
    }

    #[test]
    fn odd_names_are_refused() {
        let odd = [
            "",
            ":",
            "@",
            "a@",
            "a:",
            "a:-x",
            "a:.x",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a..b",
            "a___b",
            "a-",
            "-a",
            "a._b",
            "a@sha256:00",
            "a.b:99999/x",
            "a.b:0/x",
            "a.b:x/y",
            "-a.b/c",
            "a.b-/c",
            "../../etc",
            "a/../b",
            "a.b/../c",
            "http://a.b/c",
            "a:b:c",
            "ä",
            "M/9",
        ];
        for text in odd {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!("a".repeat(256).parse::<Reference>().is_err());
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
    }
}
