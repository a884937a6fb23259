//! A verified image: where its bytes are and why they may be trusted.

use crate::accounts::{Accounts, User, UserError};
use crate::host;
use cofferdam_model::ImageRef;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host's own system, read-only. Trusted as the host is.
    Host,
    /// A directory named by the user. Trusted as the user's own files are.
    Directory(PathBuf),
}

/// A tree of the host that the image shows read-only, at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTree {
    /// Absolute path, on the host and inside.
    pub path: PathBuf,
}

/// An image that may be started.
#[derive(Clone, Debug)]
pub struct VerifiedImage {
    origin: Origin,
    layers: Vec<Arc<OwnedFd>>,
    trees: Vec<HostTree>,
    accounts: Accounts,
    path_value: String,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The directory is not there, or cannot be read.
    #[error("image directory {path}: {source}; name a directory that holds a root file system", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A directory without a program in the usual places.
    #[error("image directory {path} holds neither bin nor usr/bin: it is no root file system", path = path.display())]
    NoPrograms {
        /// The directory.
        path: PathBuf,
    },
    /// The private copy of the host's configuration could not be made.
    #[error("cannot prepare image host in {path}: {source}", path = path.display())]
    Host {
        /// Where it is kept.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A registry reference.
    #[error("image {reference}: this release starts sandboxes from host or from a directory; unpack the image and name the directory")]
    Registry {
        /// The reference.
        reference: String,
    },
}

impl VerifiedImage {
    /// Where it comes from.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its layers, topmost first, as open directories.
    pub fn layers(&self) -> &[Arc<OwnedFd>] {
        &self.layers
    }

    /// Trees of the host that it shows read-only.
    pub fn trees(&self) -> &[HostTree] {
        &self.trees
    }

    /// The value of PATH for processes that are not given one.
    pub fn path_value(&self) -> &str {
        &self.path_value
    }

    /// The accounts of its processes.
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// A user by name or number, as `NAME[:GROUP]` or `UID[:GID]`; None is the default user.
    pub fn user(&self, text: Option<&str>) -> Result<User, UserError> {
        self.accounts.resolve(text)
    }

    /// Shows more trees of the host, read-only, with directories put in front of PATH.
    pub fn add_toolchain(&mut self, toolchain: &crate::Toolchain) {
        for path in &toolchain.trees {
            if !self.trees.iter().any(|tree| path.starts_with(&tree.path)) {
                self.trees.push(HostTree { path: path.clone() });
            }
        }
        for directory in toolchain.programs.iter().rev() {
            self.path_value = format!("{}:{}", directory.display(), self.path_value);
        }
    }
}

/// Turns a name into an image that may be started. `data` is the data directory, where the host's private `/etc` is kept.
pub fn resolve(reference: &ImageRef, data: &Path) -> Result<VerifiedImage, ImageError> {
    match reference {
        ImageRef::Host => host_image(data),
        ImageRef::Directory(path) => directory_image(path),
        ImageRef::Registry(reference) => Err(ImageError::Registry { reference: reference.clone() }),
    }
}

fn host_image(data: &Path) -> Result<VerifiedImage, ImageError> {
    let base = data.join("images").join("host");
    let skeleton = host::prepare(&base).map_err(|source| ImageError::Host { path: base.clone(), source })?;
    let layer = open_directory(&skeleton).map_err(|source| ImageError::Host { path: skeleton.clone(), source })?;
    Ok(VerifiedImage {
        origin: Origin::Host,
        layers: vec![Arc::new(layer)],
        trees: host::trees(),
        accounts: Accounts::standard(),
        path_value: host::PATH_VALUE.to_owned(),
    })
}

fn directory_image(path: &Path) -> Result<VerifiedImage, ImageError> {
    let error = |source| ImageError::Directory { path: path.to_owned(), source };
    let layer = open_directory(path).map_err(error)?;
    let has_programs = ["usr/bin", "bin"].iter().any(|place| {
        let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(layer.as_fd(), *place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), flags).is_ok()
    });
    if !has_programs {
        return Err(ImageError::NoPrograms { path: path.to_owned() });
    }
    let canonical = path.canonicalize().map_err(error)?;
    let accounts = Accounts::of_image(layer.as_fd());
    Ok(VerifiedImage {
        origin: Origin::Directory(canonical),
        layers: vec![Arc::new(layer)],
        trees: Vec::new(),
        accounts,
        path_value: host::PATH_VALUE.to_owned(),
    })
}

fn open_directory(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
