//! A verified image: where its bytes are and why they may be trusted.

use crate::accounts::{Accounts, User, UserError};
use crate::content::{Content, ImageRecord};
use crate::host;
use crate::oci::RunConfig;
use crate::unpack::{Budget, Found, Lowers, UnpackError, unpack};
use cofferdam_model::ImageRef;
use cofferdam_model::image::{Digest, Reference};
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
    /// The image store. Trusted for the reason that its record gives.
    Store {
        /// Its name.
        reference: Reference,
        /// Its manifest's digest.
        digest: Digest,
    },
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
    config: RunConfig,
    config_digest: Option<Digest>,
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
    /// A layer that is put on top of it.
    #[error(transparent)]
    Layer(#[from] UnpackError),
    /// Not in the store.
    #[error("image {reference} is not here; pull it: cofferdam image pull {reference}")]
    Missing {
        /// The image.
        reference: Reference,
    },
    /// A layer of it is not in the store any more, or not known to be whole after a crash of the host.
    #[error("image {reference}: layer {layer} is not in the store any more; pull the image again: cofferdam image pull {reference}")]
    Incomplete {
        /// The image.
        reference: Reference,
        /// The layer's digest.
        layer: Digest,
    },
}

impl VerifiedImage {
    /// Where it comes from.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Of an image of the store: the digest of its configuration, by which other engines know it.
    pub const fn config_digest(&self) -> Option<&Digest> {
        self.config_digest.as_ref()
    }

    /// What it is, in a word: the digest of an image of the store, else what it comes from.
    pub fn identity(&self) -> String {
        match &self.origin {
            Origin::Host => "host".to_owned(),
            Origin::Directory(path) => path.display().to_string(),
            Origin::Store { digest, .. } => digest.to_string(),
        }
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

    /// How its processes are started, where nothing else is said.
    pub const fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Whether one of its layers has a directory there, no link on the way.
    pub fn has_directory(&self, path: &Path) -> bool {
        let inside = path.strip_prefix("/").unwrap_or(path);
        matches!(Lowers::new(self.layers.clone()).look(inside), Ok(Found::Directory(_)))
    }

    /// Whether there is something at a path that is relative to the root: in a layer, or in a tree of the host that it shows.
    pub fn has(&self, path: &Path) -> bool {
        let there = Lowers::new(self.layers.clone()).look(path).is_ok_and(|found| !matches!(found, Found::Nothing));
        let whole = Path::new("/").join(path);
        there || self.trees.iter().any(|tree| whole.starts_with(&tree.path) && std::fs::symlink_metadata(&whole).is_ok())
    }

    /// A user by name or number, as `NAME[:GROUP]` or `UID[:GID]`; None is the image's own, else the default user. An image that
    /// names none does not get root for it.
    pub fn user(&self, text: Option<&str>) -> Result<User, UserError> {
        let own = Some(self.config.user.as_str()).filter(|user| !user.is_empty());
        self.accounts.resolve(text.or(own))
    }

    /// With one more layer on top: an archive that is unpacked into an empty directory of the host, whose owner keeps it as long as the
    /// result is used. Accounts and configuration stay the image's own, whatever the layer says of them.
    pub fn with_layer(&self, archive: impl std::io::Read, directory: &Path, budget: Budget) -> Result<Self, ImageError> {
        let error = |source| ImageError::Directory { path: directory.to_owned(), source };
        let root = open_directory(directory).map_err(error)?;
        unpack(archive, root.as_fd(), Some(&Lowers::new(self.layers.clone())), budget)?;
        let mut image = self.clone();
        image.layers.insert(0, Arc::new(root));
        Ok(image)
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
        ImageRef::Registry(reference) => {
            let content = Content::of(data);
            let record = content.record(reference).ok_or_else(|| ImageError::Missing { reference: reference.clone() })?;
            stored_image(&content, &record)
        }
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
        config: RunConfig::default(),
        config_digest: None,
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
        config: RunConfig::default(),
        config_digest: None,
    })
}

/// An image of the store. Its layers cannot be collected as long as the result lives.
pub fn stored_image(content: &Content, record: &ImageRecord) -> Result<VerifiedImage, ImageError> {
    let open = |layer: &crate::content::LayerRecord| {
        let gone = || ImageError::Incomplete { reference: record.reference.clone(), layer: layer.digest.clone() };
        content.open_layer(&layer.directory).map(Arc::new).ok_or_else(gone)
    };
    let layers: Vec<Arc<OwnedFd>> = record.layers.iter().rev().map(open).collect::<Result<_, _>>()?;
    let path_value = record.config.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(host::PATH_VALUE).to_owned();
    Ok(VerifiedImage {
        origin: Origin::Store { reference: record.reference.clone(), digest: record.digest.clone() },
        accounts: Accounts::of_layers(&Lowers::new(layers.clone())),
        layers: if layers.is_empty() { vec![Arc::new(empty_layer(content, record)?)] } else { layers },
        trees: Vec::new(),
        path_value,
        config: record.config.clone(),
        config_digest: Some(record.config_digest.clone()),
    })
}

/// An image without layers (`FROM scratch`) still has a root.
fn empty_layer(content: &Content, record: &ImageRecord) -> Result<OwnedFd, ImageError> {
    let path = content.directory("layers").map(|layers| layers.join("empty"));
    let made = path.ok().and_then(|path| {
        let _ = std::fs::create_dir(&path);
        open_directory(&path).ok()
    });
    made.ok_or_else(|| ImageError::Incomplete { reference: record.reference.clone(), layer: record.digest.clone() })
}

fn open_directory(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
