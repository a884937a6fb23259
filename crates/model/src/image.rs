//! What a sandbox starts from, as users name it.

mod base;
mod digest;
mod reference;

pub use base::{Base, BaseError, BaseFile, BaseUser, DebianSource};
pub use digest::{Digest, DigestError};
pub use reference::{HUB, Reference, ReferenceError};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An image as named by a user. Only the crate `trust` turns one into something that an engine takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageRef {
    /// The host's own `/usr`, read-only.
    Host,
    /// A directory: a path with a slash. It holds a root file system, or an OCI image layout.
    Directory(PathBuf),
    /// A reference to a registry, or to an image that was built or loaded here.
    Registry(Reference),
}

/// Text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// Nothing, or control characters.
    #[error("{0:?} is not an image: use host, a directory (./rootfs, /srv/rootfs) or a reference such as python:3.12")]
    NoImage(String),
    /// Not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(ImageRefError::NoImage(text.to_owned()));
        }
        match text {
            "host" => Ok(Self::Host),
            _ if text.starts_with(['/', '.']) => Ok(Self::Directory(PathBuf::from(text))),
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageRefError;

    fn try_from(text: String) -> Result<Self, ImageRefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Registry(reference) => write!(f, "{reference}"),
        }
    }
}
