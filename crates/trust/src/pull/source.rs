//! Where layers come from: a registry, or the store.

use super::{Progress, PullError, wrong};
use crate::content::{Content, ContentError, Hasher};
use crate::oci::Descriptor;
use crate::registry::Repository;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RESUMES: u32 = 5;

/// Where layers come from.
pub trait LayerSource: Sync {
    /// Opens one.
    fn open<'a>(&'a self, descriptor: &'a Descriptor, stop: &'a AtomicBool) -> Result<Box<dyn LayerReader + 'a>, PullError>;
}

/// A layer's bytes as stored.
pub trait LayerReader: Read {
    /// Called when everything was read and used: are they the promised ones?
    fn finish(&mut self) -> Result<(), PullError>;
    /// Why reading failed, if it did.
    fn explain(&mut self) -> Option<PullError>;
}

/// Layers of a registry, kept in the store while they come.
pub struct FromRegistry<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The store.
    pub content: &'a Content,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

impl LayerSource for FromRegistry<'_> {
    fn open<'a>(&'a self, descriptor: &'a Descriptor, stop: &'a AtomicBool) -> Result<Box<dyn LayerReader + 'a>, PullError> {
        if self.content.has_blob(&descriptor.digest) {
            return StoredLayer::open(self.content, descriptor);
        }
        let path = self.content.partial_path(&descriptor.digest)?;
        let error = |e: rustix::io::Errno| ContentError::Io { path: path.clone(), source: e.into() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(error)?);
        let reader = Fetching {
            source: self,
            descriptor,
            stop,
            path,
            file,
            position: 0,
            hasher: Some(Hasher::default()),
            network: None,
            resumes: 0,
            failure: None,
        };
        Ok(Box::new(reader))
    }
}

/// A layer that is here already.
pub struct StoredLayer<'a> {
    file: File,
    hasher: Option<Hasher>,
    descriptor: &'a Descriptor,
}

impl<'a> StoredLayer<'a> {
    /// Opens it.
    pub fn open(content: &Content, descriptor: &'a Descriptor) -> Result<Box<dyn LayerReader + 'a>, PullError> {
        let path = content.blob_path(&descriptor.digest);
        let file = File::open(&path).map_err(|source| ContentError::Io { path, source })?;
        Ok(Box::new(Self { file, hasher: Some(Hasher::default()), descriptor }))
    }
}

impl Read for StoredLayer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

impl LayerReader for StoredLayer<'_> {
    fn finish(&mut self) -> Result<(), PullError> {
        let digest = &self.descriptor.digest;
        io::copy(self, &mut io::sink()).map_err(|error| wrong(digest, &error))?;
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found == *digest => Ok(()),
            _ => Err(PullError::Layer {
                digest: digest.clone(),
                why: "the stored bytes are damaged; remove the image and pull it again".into(),
            }),
        }
    }

    fn explain(&mut self) -> Option<PullError> {
        None
    }
}

/// A layer on its way: what was fetched earlier is read from the disk, the rest from the registry, from where it broke off.
struct Fetching<'a> {
    source: &'a FromRegistry<'a>,
    descriptor: &'a Descriptor,
    stop: &'a AtomicBool,
    path: std::path::PathBuf,
    file: File,
    position: u64,
    hasher: Option<Hasher>,
    network: Option<Box<dyn Read + Send + 'a>>,
    resumes: u32,
    failure: Option<PullError>,
}

impl Fetching<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, PullError> {
        let wrong = |why: &str| PullError::Layer { digest: self.descriptor.digest.clone(), why: why.into() };
        let disk = |source| ContentError::Io { path: self.path.clone(), source };
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(wrong("another layer failed"));
            }
            if self.network.is_none() {
                let read = self.file.read(buffer).map_err(disk)?;
                if read > 0 {
                    return Ok(read);
                }
                if self.position >= self.descriptor.size {
                    return Ok(0);
                }
                let (network, begins) = self.source.repository.blob(&self.descriptor.digest, self.position)?;
                let mut network: Box<dyn Read + Send> = Box::new(network);
                if begins < self.position {
                    let skipped = io::copy(&mut (&mut network).take(self.position), &mut io::sink());
                    skipped.map_err(|error| wrong(&error.to_string()))?;
                }
                self.network = Some(network);
            }
            let Some(network) = &mut self.network else { continue };
            let left = usize::try_from(self.descriptor.size - self.position).unwrap_or(usize::MAX);
            match network.read(buffer) {
                Ok(0) if left == 0 => return Ok(0),
                Ok(read) if read > left => return Err(wrong("the registry sends more bytes than the manifest says")),
                Ok(read) if read > 0 => {
                    self.file.write_all(&buffer[..read]).map_err(disk)?;
                    self.source.progress.more(&self.descriptor.digest, read as u64);
                    return Ok(read);
                }
                broken => {
                    self.network = None;
                    self.resumes += 1;
                    if self.resumes > RESUMES {
                        let why =
                            broken.err().map_or_else(|| "the registry sends fewer bytes than the manifest says".into(), |e| e.to_string());
                        return Err(wrong(&why));
                    }
                    std::thread::sleep(Duration::from_millis(100) * 2u32.pow(self.resumes));
                }
            }
        }
    }
}

impl Read for Fetching<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.next(buffer) {
            Ok(read) => {
                self.position += read as u64;
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&buffer[..read]);
                }
                Ok(read)
            }
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(text))
            }
        }
    }
}

impl LayerReader for Fetching<'_> {
    fn finish(&mut self) -> Result<(), PullError> {
        let digest = self.descriptor.digest.clone();
        let drained = io::copy(self, &mut io::sink());
        if let Err(error) = drained {
            return Err(self.failure.take().unwrap_or_else(|| wrong(&digest, &error)));
        }
        if self.hasher.take().map(Hasher::finish).as_ref() == Some(&digest) {
            self.source.content.adopt_blob(&self.path, &digest)?;
            return Ok(());
        }
        // What was kept from an earlier try may be what is wrong.
        let _ = self.file.rewind();
        let _ = std::fs::remove_file(&self.path);
        Err(PullError::Layer { digest, why: "the registry sent other bytes than the manifest says".into() })
    }

    fn explain(&mut self) -> Option<PullError> {
        self.failure.take()
    }
}
