//! The content store: every blob once under its digest, every layer once as a directory that a sandbox can be put on.
//!
//! ```text
//! images/blobs/sha256/HEX     manifests, configurations, compressed layers: exactly the bytes of that digest
//! images/partial/HEX          a blob that is being fetched, or was when its command was killed
//! images/layers/NAME/root     a layer, unpacked; under this name only once it is whole
//! images/layers/NAME/boot     the boot in which it was written, until the disk is known to have it
//! images/names/HEX.json       what a name stands for (HEX: digest of the name)
//! images/locks/HEX            who fetches or unpacks that digest
//! ```
//!
//! A layer appears by rename after everything of it was written. That survives a kill, not a power cut: the disk may have the
//! name and not the bytes. So a layer says in which boot it was written, and one of an earlier boot that was never synced is
//! unpacked again.

use crate::oci::{Platform, RunConfig};
use crate::removal::remove_tree;
use cofferdam_model::image::{Digest, Reference};
use cofferdam_sys::lock;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The content store of an installation.
#[derive(Clone, Debug)]
pub struct Content {
    path: PathBuf,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name.
    pub reference: Reference,
    /// Of its manifest.
    pub digest: Digest,
    /// Of the index it was chosen from.
    pub index: Option<Digest>,
    /// For which machine.
    pub platform: Platform,
    /// When it was made, as its configuration says.
    pub created: Option<String>,
    /// When it came here, seconds since 1970.
    pub pulled_at: i64,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// Digest of its configuration.
    pub config_digest: Digest,
    /// How its processes are started.
    pub config: RunConfig,
    /// Why it may be started.
    pub verified: crate::verify::Verification,
    /// What is attached to it here: signatures, provenance, bills of materials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<crate::oci::Descriptor>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of its bytes as stored.
    pub digest: Digest,
    /// Of its bytes, not compressed.
    pub diff_id: Digest,
    /// Bytes as stored.
    pub size: u64,
    /// Name of its directory in the store.
    pub directory: String,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The kernel refused.
    #[error("image store {path}: {source}{remedy}", path = path.display(), remedy = remedy(source))]
    Io {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The bytes are not those of their name.
    #[error("{path} does not hold the bytes of its name any more; remove it and pull the image again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// More bytes than such a document has.
    #[error("{path} is larger than {most} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        most: u64,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space (cofferdam image gc), then try again",
        _ => "",
    }
}

impl Content {
    /// The store below the data directory; its directories are made (mode 0700) when something is put in.
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("images") }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Where a blob is while it comes.
    pub fn partial_path(&self, digest: &Digest) -> Result<PathBuf, ContentError> {
        Ok(self.directory("partial")?.join(digest.hex()))
    }

    /// A small blob, checked against its digest.
    pub fn read_blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, ContentError> {
        let path = self.blob_path(digest);
        let error = |source| ContentError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        fs::File::open(&path).map_err(error)?.take(most + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > most {
            return Err(ContentError::TooLarge { path, most });
        }
        if sha256(&bytes) == *digest { Ok(bytes) } else { Err(ContentError::Damaged { path }) }
    }

    /// Puts a small blob in, under its own digest.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let digest = sha256(bytes);
        let path = self.directory("blobs/sha256")?.join(digest.hex());
        if !path.is_file() {
            self.write_whole(&path, bytes)?;
        }
        Ok(digest)
    }

    /// Gives a fetched blob its name.
    pub fn adopt_blob(&self, partial: &Path, digest: &Digest) -> Result<(), ContentError> {
        let path = self.directory("blobs/sha256")?.join(digest.hex());
        fs::rename(partial, &path).map_err(|source| ContentError::Io { path, source })
    }

    /// Waits until nobody else fetches or unpacks this digest; held as long as the descriptor.
    pub fn lock(&self, digest: &Digest) -> Result<OwnedFd, ContentError> {
        self.lock_named(digest.hex())
    }

    /// The same for the names.
    pub fn lock_named(&self, name: &str) -> Result<OwnedFd, ContentError> {
        let path = self.directory("locks")?.join(name);
        let error = |source| ContentError::Io { path: path.clone(), source };
        let file = lock::open_file(&path).map_err(|e| error(e.source))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| error(e.into()))?;
        Ok(file)
    }

    /// A directory of the store, made if need be.
    pub fn directory(&self, name: &str) -> Result<PathBuf, ContentError> {
        let path = self.path.join(name);
        if !path.is_dir() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| ContentError::Io { path: path.clone(), source })?;
        }
        Ok(path)
    }

    /// Opens a layer's root, and keeps it from being collected as long as the descriptor is open. None if it is not there, or
    /// not known to be whole.
    pub fn open_layer(&self, name: &str) -> Option<OwnedFd> {
        let directory = self.path.join("layers").join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(directory.join("root"), flags, Mode::empty()).ok()?;
        rustix::fs::flock(&root, rustix::fs::FlockOperation::NonBlockingLockShared).ok()?;
        // Collected between the two calls: then what was opened is not what stands there.
        let (opened, there) = (rustix::fs::fstat(&root).ok()?, rustix::fs::stat(directory.join("root")).ok()?);
        if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino) {
            return None;
        }
        match fs::read_to_string(directory.join("boot")) {
            Ok(boot) if boot == boot_id() => Some(root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(root),
            _ => None,
        }
    }

    /// A new directory for a layer to be unpacked into.
    pub fn begin_layer(&self) -> Result<MakingLayer, ContentError> {
        let layers = self.directory("layers")?;
        let made = tempfile::Builder::new().prefix(".making-").tempdir_in(&layers);
        let directory = made.map_err(|source| ContentError::Io { path: layers.clone(), source })?;
        let error = |source| ContentError::Io { path: directory.path().to_owned(), source };
        fs::DirBuilder::new().mode(0o755).create(directory.path().join("root")).map_err(error)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory.path().join("root"), flags, Mode::empty()).map_err(|e| error(e.into()))?;
        Ok(MakingLayer { directory, root })
    }

    /// Gives an unpacked layer its name. One that is there already under it is replaced only if it was not whole.
    pub fn finish_layer(&self, making: MakingLayer, name: &str) -> Result<(), ContentError> {
        let target = self.path.join("layers").join(name);
        let error = |source| ContentError::Io { path: target.clone(), source };
        fs::write(making.directory.path().join("boot"), boot_id()).map_err(error)?;
        if self.open_layer(name).is_some() {
            return Ok(());
        }
        remove_tree(&target).map_err(error)?;
        fs::rename(making.directory.path(), &target).map_err(error)?;
        let _ = making.directory.keep();
        Ok(())
    }

    /// Once everything written so far is on the disk: says so of every layer of this boot.
    pub fn settle(&self) -> Result<(), ContentError> {
        let layers = self.directory("layers")?;
        let error = |source| ContentError::Io { path: layers.clone(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&layers, flags, Mode::empty()).map_err(|e| error(e.into()))?;
        let boot = boot_id();
        let unsettled = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text == boot);
        let entries = fs::read_dir(&layers).map_err(error)?.flatten();
        let marks: Vec<PathBuf> = entries.map(|entry| entry.path().join("boot")).filter(unsettled).collect();
        if marks.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(&directory).map_err(|e| error(e.into()))?;
        for mark in marks {
            match fs::remove_file(&mark) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What a name stands for, if it is known here.
    pub fn record(&self, reference: &Reference) -> Option<ImageRecord> {
        let bytes = fs::read(self.record_path(reference)).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|record: &ImageRecord| record.reference == *reference)
    }

    /// Every name, sorted.
    pub fn records(&self) -> Vec<ImageRecord> {
        let entries = fs::read_dir(self.path.join("names")).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok();
        let mut records: Vec<ImageRecord> = entries.filter_map(read).collect();
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        records
    }

    /// Says what a name stands for.
    pub fn write_record(&self, record: &ImageRecord) -> Result<(), ContentError> {
        self.directory("names")?;
        let path = self.record_path(&record.reference);
        let bytes = serde_json::to_vec_pretty(record).map_err(|e| ContentError::Io { path: path.clone(), source: e.into() })?;
        self.write_whole(&path, &bytes)
    }

    /// Forgets a name; true if it was known.
    pub fn remove_record(&self, reference: &Reference) -> Result<bool, ContentError> {
        let path = self.record_path(reference);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ContentError::Io { path, source }),
        }
    }

    /// When a name was last used, seconds since 1970.
    pub fn used_at(&self, reference: &Reference) -> Option<i64> {
        use std::os::unix::fs::MetadataExt;
        Some(fs::metadata(self.record_path(reference)).ok()?.mtime())
    }

    /// Notes that a name is used now. That it could not be noted stops nobody.
    pub fn touch(&self, reference: &Reference) {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::utimensat(rustix::fs::CWD, self.record_path(reference), &times, rustix::fs::AtFlags::empty());
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        self.path.join("names").join(format!("{}.json", sha256(reference.to_string().as_bytes()).hex()))
    }

    /// Writes a file that is never seen half-written, and is on the disk before its name is.
    pub fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), ContentError> {
        let error = |source| ContentError::Io { path: path.to_owned(), source };
        let parent = path.parent().unwrap_or(&self.path);
        let mut file = tempfile::Builder::new().prefix(".making-").tempfile_in(parent).map_err(error)?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_data()).map_err(error)?;
        file.persist(path).map_err(|e| error(e.error))?;
        Ok(())
    }
}

/// A layer on its way; removed if it is not finished.
#[derive(Debug)]
pub struct MakingLayer {
    directory: tempfile::TempDir,
    root: OwnedFd,
}

impl MakingLayer {
    /// Where it is unpacked into.
    pub const fn root(&self) -> &OwnedFd {
        &self.root
    }
}

/// The digest of bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// The digest of bytes that come by and by.
pub struct Hasher(aws_lc_rs::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Hasher {
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(&bytes)
    }
}

/// Which boot of this machine this is.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
