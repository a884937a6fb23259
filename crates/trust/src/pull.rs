//! From a name to an image in the store: resolve, verify, fetch, unpack.
//!
//! The order is the point. The tag is resolved once, to a digest; what is verified is that digest; what is fetched is asked for by
//! digest only. Layers come and are unpacked side by side, each checked while it streams; none has its name before its last byte
//! was right.

mod source;
mod stream;

pub use source::{LayerReader, LayerSource, StoredLayer};

use crate::content::{Content, ContentError, ImageRecord, LayerRecord};
use crate::oci::{Config, Descriptor, Document, DocumentError, LARGEST_CONFIG, LARGEST_MANIFEST, Manifest, Platform, media};
use crate::registry::{Access, Fetched, RegistryError, Repository};
use crate::unpack::{self, Lowers, UnpackError, Unpacked};
use crate::verify::{Verification, Verifier, VerifyError};
use cofferdam_model::image::{Digest, Reference};
use source::FromRegistry;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use stream::unpack_stream;

/// Transfers at a time, as Docker and containerd have it.
const TOGETHER: usize = 4;

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It may not be used.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Its documents are not valid.
    #[error("image {reference}: {source}")]
    Document {
        /// The image.
        reference: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// There is none for this machine.
    #[error("image {reference} is for {offered}; this machine is {wanted}; choose another image, or --platform")]
    Platform {
        /// The image.
        reference: String,
        /// What there is.
        offered: String,
        /// What is wanted.
        wanted: String,
    },
    /// A layer's bytes are not what was promised.
    #[error("layer {digest}: {why}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// What is wrong.
        why: String,
    },
    /// A layer cannot be unpacked.
    #[error("layer {digest}: {source}")]
    Unpack {
        /// The layer.
        digest: Digest,
        /// What is wrong.
        source: UnpackError,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What is told while an image comes.
pub trait Progress: Send + Sync {
    /// The layers that are fetched, with their bytes.
    fn begins(&self, layers: &[(Digest, u64)]) {
        let _ = layers;
    }
    /// More bytes of a layer.
    fn more(&self, layer: &Digest, bytes: u64) {
        let _ = (layer, bytes);
    }
    /// A layer is there.
    fn done(&self, layer: &Digest) {
        let _ = layer;
    }
}

/// Tells nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {}

/// What is needed to pull.
pub struct Puller<'a> {
    /// Where it goes.
    pub content: &'a Content,
    /// How registries are reached.
    pub access: &'a Access,
    /// Who says whether it may be used.
    pub verifier: &'a Verifier,
    /// For which machine.
    pub platform: Platform,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Seconds since 1970.
    pub now: i64,
}

/// A resolved image: what its name stands for now.
#[derive(Debug)]
pub struct Resolved {
    /// The name.
    pub reference: Reference,
    /// The manifest's digest.
    pub digest: Digest,
    /// The index it was chosen from.
    pub index: Option<Digest>,
    /// The manifest.
    pub manifest: Manifest,
    bytes: Vec<u8>,
}

impl Resolved {
    /// An image whose documents are at hand.
    pub fn local(reference: Reference, index: Option<Digest>, manifest: Manifest, bytes: Vec<u8>) -> Self {
        Self { reference, digest: crate::content::sha256(&bytes), index, manifest, bytes }
    }
}

impl Puller<'_> {
    /// Resolves, verifies, fetches and unpacks, and gives the name in the store to the result.
    pub fn pull(&self, reference: &Reference) -> Result<ImageRecord, PullError> {
        let repository = Repository::of(reference, self.access)?;
        let resolved = self.resolve(&repository, reference)?;
        let verified = self.verifier.verify(self.content, &repository, &resolved.reference, &resolved.digest, resolved.index.as_ref())?;
        let source = FromRegistry { repository: &repository, content: self.content, progress: self.progress };
        let config_bytes = if let Ok(bytes) = self.content.read_blob(&resolved.manifest.config.digest, LARGEST_CONFIG) {
            bytes
        } else {
            let config = &resolved.manifest.config;
            repository.small_blob(&config.digest, config.size, LARGEST_CONFIG)?
        };
        self.store(&resolved, &config_bytes, &source, verified)
    }

    /// Unpacks once more what is missing of an image whose bytes are still here: after a crash of the host, the disk may not have all
    /// that it seemed to have.
    pub fn repair(&self, record: &ImageRecord) -> Result<ImageRecord, PullError> {
        let _lock = self.content.enter()?;
        let layers = self.layers(&listed(self.content, record)?, &crate::layout::FromStore { content: self.content })?;
        let repaired = ImageRecord { layers, ..record.clone() };
        self.content.write_record(&repaired)?;
        Ok(repaired)
    }

    /// What a name stands for, for this machine.
    pub fn resolve(&self, repository: &Repository, reference: &Reference) -> Result<Resolved, PullError> {
        let fetched = self.document(repository, reference.version())?;
        let error = |source| PullError::Document { reference: reference.to_string(), source };
        match Document::parse(&fetched.bytes, fetched.media_type.as_deref()).map_err(error)? {
            Document::Manifest(manifest) => {
                let (digest, bytes) = (fetched.digest, fetched.bytes);
                Ok(Resolved { reference: reference.clone(), digest, index: None, manifest: *manifest, bytes })
            }
            Document::Index(index) => {
                let chosen = choose(&index.manifests, &self.platform).ok_or_else(|| self.no_platform(reference, &index.manifests))?;
                let inner = self.document(repository, chosen.digest.as_str())?;
                if inner.bytes.len() as u64 != chosen.size {
                    return Err(PullError::Layer {
                        digest: chosen.digest.clone(),
                        why: "the manifest has another size than the index says".into(),
                    });
                }
                // An index of indexes is nobody's image.
                let Document::Manifest(manifest) = Document::parse(&inner.bytes, Some(&chosen.media_type)).map_err(error)? else {
                    let why = "the index points at another index".into();
                    return Err(error(DocumentError::Shape { what: "the index", why }));
                };
                self.content.write_blob(&fetched.bytes)?;
                let (digest, bytes) = (inner.digest, inner.bytes);
                Ok(Resolved { reference: reference.clone(), digest, index: Some(fetched.digest), manifest: *manifest, bytes })
            }
        }
    }

    /// A document that is named by digest and is here need not be asked for.
    fn document(&self, repository: &Repository, version: &str) -> Result<Fetched, PullError> {
        if let Ok(digest) = version.parse::<Digest>()
            && let Ok(bytes) = self.content.read_blob(&digest, LARGEST_MANIFEST)
        {
            return Ok(Fetched { bytes, digest, media_type: None });
        }
        Ok(repository.manifest(version)?)
    }

    fn no_platform(&self, reference: &Reference, offered: &[Descriptor]) -> PullError {
        let names: Vec<String> = offered.iter().filter_map(|entry| entry.platform.as_ref().map(Platform::to_string)).collect();
        PullError::Platform { reference: reference.to_string(), offered: names.join(", "), wanted: self.platform.to_string() }
    }

    /// Puts an image whose layers come from somewhere into the store, under its name.
    pub fn store(
        &self,
        resolved: &Resolved,
        config_bytes: &[u8],
        source: &dyn LayerSource,
        verified: Verification,
    ) -> Result<ImageRecord, PullError> {
        let reference = resolved.reference.to_string();
        let error = |source| PullError::Document { reference: reference.clone(), source };
        let config = Config::parse(config_bytes, &resolved.manifest).map_err(error)?;
        if !config.platform.runs_on(&self.platform) {
            let offered = config.platform.to_string();
            return Err(PullError::Platform { reference, offered, wanted: self.platform.to_string() });
        }
        let _lock = self.content.enter()?;
        self.content.write_blob(config_bytes)?;
        let listed: Vec<(Descriptor, Digest)> =
            resolved.manifest.layers.iter().cloned().zip(config.rootfs.diff_ids.iter().cloned()).collect();
        let layers = self.layers(&listed, source)?;
        self.content.write_blob(&resolved.bytes)?;
        let record = ImageRecord {
            reference: resolved.reference.clone(),
            digest: resolved.digest.clone(),
            index: resolved.index.clone(),
            platform: config.platform,
            created: config.created,
            pulled_at: self.now,
            layers,
            config_digest: resolved.manifest.config.digest.clone(),
            config: config.config,
            verified,
            attached: Vec::new(),
        };
        self.content.write_record(&record)?;
        Ok(record)
    }

    /// Fetches and unpacks the layers that are not here, lowest first; each with its diff id.
    pub fn layers(&self, listed: &[(Descriptor, Digest)], source: &dyn LayerSource) -> Result<Vec<LayerRecord>, PullError> {
        let wanted: Vec<Wanted<'_>> = listed.iter().map(|(descriptor, diff_id)| Wanted { descriptor, diff_id }).collect();
        let names = names(listed.iter().map(|(_, diff_id)| diff_id));
        let missing: Vec<usize> =
            (0..wanted.len()).filter(|at| names[*at].iter().all(|name| self.content.open_layer(name).is_none())).collect();
        self.progress
            .begins(&missing.iter().map(|at| (wanted[*at].descriptor.digest.clone(), wanted[*at].descriptor.size)).collect::<Vec<_>>());
        let mut made = self.fetch_all(&wanted, &missing, source)?;
        let mut opened: Vec<Arc<OwnedFd>> = Vec::new();
        let mut records = Vec::new();
        for (at, wanted) in wanted.iter().enumerate() {
            let below = Lowers::new(opened.iter().rev().cloned().collect());
            let (directory, fd) = match made.iter().position(|(index, _)| *index == at) {
                Some(position) => self.finish(wanted, &names[at], made.swap_remove(position).1, &below, source)?,
                None => self.present(&names[at], wanted)?,
            };
            opened.push(Arc::new(fd));
            let (digest, diff_id) = (wanted.descriptor.digest.clone(), wanted.diff_id.clone());
            records.push(LayerRecord { digest, diff_id, size: wanted.descriptor.size, directory });
        }
        Ok(records)
    }

    fn present(&self, names: &[String; 2], wanted: &Wanted<'_>) -> Result<(String, OwnedFd), PullError> {
        let found = names.iter().find_map(|name| Some((name.clone(), self.content.open_layer(name)?)));
        let gone = || PullError::Layer { digest: wanted.descriptor.digest.clone(), why: "it went away meanwhile; pull again".into() };
        found.ok_or_else(gone)
    }

    /// Fetches and unpacks, some at a time; the first error stops the others.
    fn fetch_all(&self, wanted: &[Wanted<'_>], missing: &[usize], source: &dyn LayerSource) -> Result<Vec<(usize, Made)>, PullError> {
        let queue: Mutex<VecDeque<usize>> = Mutex::new(missing.iter().copied().collect());
        let (made, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..TOGETHER.min(missing.len()) {
                scope.spawn(|| {
                    while let Some(at) = pop(&queue).filter(|_| !stop.load(Ordering::Relaxed)) {
                        match self.fetch_one(&wanted[at], source, &stop) {
                            Ok(layer) => made.lock().unwrap_or_else(PoisonError::into_inner).push((at, layer)),
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn fetch_one(&self, wanted: &Wanted<'_>, source: &dyn LayerSource, stop: &AtomicBool) -> Result<Made, PullError> {
        // Of two commands that want the same layer, one fetches it. The other then finds it.
        let lock = self.content.lock(&wanted.descriptor.digest)?;
        let making = self.content.begin_layer()?;
        let mut reader = source.open(wanted.descriptor, stop)?;
        let unpacked = unpack_stream(&mut *reader, wanted, making.root(), None);
        let unpacked = match unpacked {
            Err(PullError::Unpack { source: UnpackError::NeedsLower { .. }, .. }) => None,
            // Bytes that were no layer may be bytes that are not this layer's: that is said rather, and nothing of them is kept.
            Err(error) => return Err(reader.explain().or_else(|| reader.finish().err()).unwrap_or(error)),
            Ok(unpacked) => Some(unpacked),
        };
        reader.finish()?;
        self.progress.done(&wanted.descriptor.digest);
        Ok(Made { making, unpacked, _lock: lock })
    }

    /// Gives a layer its name; one that leaves things out takes them from below first.
    fn finish(
        &self,
        wanted: &Wanted<'_>,
        names: &[String; 2],
        made: Made,
        below: &Lowers,
        source: &dyn LayerSource,
    ) -> Result<(String, OwnedFd), PullError> {
        let error = |source| PullError::Unpack { digest: wanted.descriptor.digest.clone(), source };
        let alone = made.unpacked.as_ref().is_some_and(|unpacked| unpacked.implicit.is_empty());
        let name = &names[usize::from(!alone)];
        let complete = match &made.unpacked {
            Some(unpacked) => unpack::complete(made.making.root().as_fd(), &unpacked.implicit, below).map_err(error)?,
            None => false,
        };
        if complete {
            self.content.finish_layer(made.making, name)?;
        } else {
            let making = self.content.begin_layer()?;
            let never = AtomicBool::new(false);
            let mut reader = source.open(wanted.descriptor, &never)?;
            unpack_stream(&mut *reader, wanted, making.root(), Some(below))?;
            reader.finish()?;
            self.content.finish_layer(making, name)?;
        }
        let opened = self.content.open_layer(name);
        let gone = || PullError::Layer { digest: wanted.descriptor.digest.clone(), why: "it went away meanwhile; pull again".into() };
        Ok((name.clone(), opened.ok_or_else(gone)?))
    }
}

fn pop(queue: &Mutex<VecDeque<usize>>) -> Option<usize> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// The layers of an image of the store as its manifest lists them, lowest first, each with its diff id.
pub fn listed(content: &Content, record: &ImageRecord) -> Result<Vec<(Descriptor, Digest)>, PullError> {
    let error = |source| PullError::Document { reference: record.reference.to_string(), source };
    let bytes = content.read_blob(&record.digest, LARGEST_MANIFEST)?;
    let document = Document::parse(&bytes, None).or_else(|_| Document::parse(&bytes, Some(media::MANIFEST)));
    let Document::Manifest(manifest) = document.map_err(error)? else {
        return Err(error(DocumentError::Shape { what: "the manifest", why: "it is an index".into() }));
    };
    let diff_ids = record.layers.iter().map(|layer| layer.diff_id.clone());
    Ok(manifest.layers.into_iter().zip(diff_ids).collect())
}

/// A layer as the manifest and the configuration name it.
struct Wanted<'a> {
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
}

/// A layer that has no name yet. Not unpacked: it has to be, above those below it.
struct Made {
    making: crate::content::MakingLayer,
    unpacked: Option<Unpacked>,
    _lock: OwnedFd,
}

/// The two names that each layer may have in the store: by itself, or with all that is below it (the chain id of the OCI image
/// specification).
fn names<'a>(diff_ids: impl Iterator<Item = &'a Digest>) -> Vec<[String; 2]> {
    let mut chain: Option<Digest> = None;
    let mut names = Vec::new();
    for diff_id in diff_ids {
        let next = match &chain {
            None => diff_id.clone(),
            Some(below) => crate::content::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        names.push([diff_id.hex().to_owned(), format!("chain-{}", next.hex())]);
        chain = Some(next);
    }
    names
}

/// The entry of an index that runs here; the first that fits best.
pub fn choose<'a>(entries: &'a [Descriptor], machine: &Platform) -> Option<&'a Descriptor> {
    entries.iter().find(|entry| entry.platform.as_ref().is_some_and(|platform| platform.runs_on(machine)))
}

fn wrong(digest: &Digest, error: &io::Error) -> PullError {
    PullError::Layer { digest: digest.clone(), why: error.to_string() }
}
