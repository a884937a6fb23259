//! Removing images, and what no image uses any more.
//!
//! Nobody pulls meanwhile: collecting holds the store's lock alone, pulling holds it shared. A layer that a sandbox runs on is held by
//! that sandbox's supervisor, and stays.

use crate::content::{Content, ContentError, ImageRecord, LayerRecord};
use crate::oci::{Document, LARGEST_MANIFEST};
use crate::removal::remove_tree;
use cofferdam_model::image::{Digest, Reference};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Names.
    pub images: Vec<Reference>,
    /// Blobs.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Layers that a sandbox uses.
    pub in_use: u64,
}

/// How much goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// Names that were last used before this time (seconds since 1970).
    pub unused_since: Option<i64>,
    /// Only say what would go.
    pub dry_run: bool,
}

impl Content {
    /// The store's lock, shared, for who puts something in.
    pub fn enter(&self) -> Result<OwnedFd, ContentError> {
        self.store_lock(FlockOperation::LockShared)
    }

    fn store_lock(&self, how: FlockOperation) -> Result<OwnedFd, ContentError> {
        let path = self.directory("locks")?.join("store");
        let error = |source| ContentError::Io { path: path.clone(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|e| error(e.into()))?;
        flock(&file, how).map_err(|e| error(e.into()))?;
        Ok(file)
    }

    /// Removes names that were not used for long, then everything that no name leads to.
    pub fn collect(&self, what: What) -> Result<Collected, ContentError> {
        let _lock = self.store_lock(FlockOperation::LockExclusive)?;
        let mut done = Collected::default();
        let mut kept = Vec::new();
        for record in self.records() {
            let unused = what.unused_since.is_some_and(|since| self.used_at(&record.reference).is_some_and(|used| used < since));
            if unused && !self.is_used(&record) {
                if !what.dry_run {
                    self.remove_record(&record.reference)?;
                }
                done.images.push(record.reference);
            } else {
                kept.push(record);
            }
        }
        let (blobs, layers) = self.reachable(&kept);
        self.sweep("blobs/sha256", what, &mut done, |name| blobs.contains(name), |done| done.blobs += 1)?;
        self.sweep("layers", what, &mut done, |name| layers.contains(name) || name == "empty", |done| done.layers += 1)?;
        self.sweep("partial", what, &mut done, |_| false, |_| {})?;
        Ok(done)
    }

    /// Removes layers that only a way to another image needed, if nobody else is at work here and no name leads to them; else they stay
    /// for the next collection.
    pub fn discard(&self, layers: &[LayerRecord]) -> Result<(), ContentError> {
        let Ok(_lock) = self.store_lock(FlockOperation::NonBlockingLockExclusive) else { return Ok(()) };
        let (blobs, directories) = self.reachable(&self.records());
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| ContentError::Io { path, source }
        };
        for layer in layers.iter().filter(|layer| !directories.contains(&layer.directory) && !blobs.contains(layer.digest.hex())) {
            let directory = self.path().join("layers").join(&layer.directory);
            if let Some(_claim) = claim(&directory)
                && directory.exists()
            {
                discard(&directory).map_err(error(&directory))?;
            }
            let blob = self.blob_path(&layer.digest);
            match fs::remove_file(&blob) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(&blob)(source)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a sandbox runs on one of its layers.
    fn is_used(&self, record: &ImageRecord) -> bool {
        record.layers.iter().any(|layer| claim(&self.path().join("layers").join(&layer.directory)).is_none())
    }

    fn reachable(&self, records: &[ImageRecord]) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            let own = [Some(&record.digest), record.index.as_ref(), Some(&record.config_digest), record.verified.evidence.as_ref()];
            blobs.extend(own.into_iter().flatten().map(|digest| digest.hex().to_owned()));
            blobs.extend(record.layers.iter().map(|layer| layer.digest.hex().to_owned()));
            layers.extend(record.layers.iter().map(|layer| layer.directory.clone()));
            blobs.extend(self.referred(&record.digest));
            for attached in &record.attached {
                blobs.insert(attached.digest.hex().to_owned());
                blobs.extend(self.referred(&attached.digest));
            }
        }
        (blobs, layers)
    }

    /// Blobs that a manifest names besides.
    fn referred(&self, digest: &Digest) -> Vec<String> {
        let document = self.read_blob(digest, LARGEST_MANIFEST).ok().and_then(|bytes| Document::parse(&bytes, None).ok());
        match document {
            Some(Document::Manifest(manifest)) => {
                manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest.hex().to_owned()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn sweep(
        &self,
        directory: &str,
        what: What,
        done: &mut Collected,
        keep: impl Fn(&str) -> bool,
        count: impl Fn(&mut Collected),
    ) -> Result<(), ContentError> {
        let entries: Vec<fs::DirEntry> = fs::read_dir(self.path().join(directory)).into_iter().flatten().flatten().collect();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if keep(&name) {
                continue;
            }
            let path = entry.path();
            let Some(_claim) = claim(&path) else {
                done.in_use += 1;
                continue;
            };
            done.bytes += size_of(&path);
            count(done);
            if !what.dry_run {
                let removed = if path.is_dir() { discard(&path) } else { fs::remove_file(&path) };
                removed.map_err(|source| ContentError::Io { path, source })?;
            }
        }
        Ok(())
    }
}

/// Takes a layer's directory away from everybody who may want to use it, as long as the result lives; None if a sandbox uses it. What is
/// no layer is anybody's.
fn claim(layer: &Path) -> Option<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(root) = rustix::fs::open(layer.join("root"), flags, Mode::empty()) else { return Some(None) };
    flock(&root, FlockOperation::NonBlockingLockExclusive).ok().map(|()| Some(root))
}

/// Removes a directory that loses its name first: nobody finds half of it.
fn discard(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let place = tempfile::Builder::new().prefix(".making-").tempdir_in(parent)?;
    fs::rename(path, place.path().join("gone"))?;
    remove_tree(place.path())
}

/// Bytes on the disk of a file or tree.
fn size_of(path: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below =
        if metadata.is_dir() { fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size_of(&entry.path())).sum() } else { 0 };
    metadata.blocks() * BLOCK + below
}
