//! What a sandbox starts from, as users name it.

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
    /// A directory that holds a root file system: a path with a slash.
    Directory(PathBuf),
    /// A reference to a registry.
    Registry(String),
}

/// Text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an image: use host, a directory (./rootfs, /srv/rootfs) or a registry reference")]
pub struct ImageRefError(String);

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let plain = !text.is_empty() && text.chars().all(|c| !c.is_control());
        match text {
            _ if !plain => Err(ImageRefError(text.to_owned())),
            "host" => Ok(Self::Host),
            _ if text.starts_with(['/', '.']) => Ok(Self::Directory(PathBuf::from(text))),
            _ if text.chars().all(|c| c.is_ascii_alphanumeric() || "./:@_-".contains(c)) => Ok(Self::Registry(text.to_owned())),
            _ => Err(ImageRefError(text.to_owned())),
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
            Self::Registry(reference) => f.write_str(reference),
        }
    }
}
