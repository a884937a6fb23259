//! An image of the store, given to a registry.

use crate::content::{Content, ContentError, ImageRecord};
use crate::oci::{Document, LARGEST_CONFIG, LARGEST_MANIFEST, media};
use crate::registry::{Access, RegistryError, Repository};
use cofferdam_model::image::Reference;
use std::fs::File;

/// It cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store does not give it.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Gives layers that the registry lacks, the configuration, then the manifest: nobody sees half an image.
pub fn push(content: &Content, access: &Access, record: &ImageRecord, target: &Reference) -> Result<(), PushError> {
    let repository = Repository::of(target, access)?;
    for layer in &record.layers {
        if !repository.has_blob(&layer.digest)? {
            let path = content.blob_path(&layer.digest);
            let error = |source| ContentError::Io { path: path.clone(), source };
            let file = File::open(&path).map_err(error)?;
            let size = file.metadata().map_err(error)?.len();
            repository.push_blob(&layer.digest, size, file)?;
        }
    }
    let config = content.read_blob(&record.config_digest, LARGEST_CONFIG)?;
    if !repository.has_blob(&record.config_digest)? {
        repository.push_blob(&record.config_digest, config.len() as u64, config.as_slice())?;
    }
    let manifest = content.read_blob(&record.digest, LARGEST_MANIFEST)?;
    let stated = match Document::parse(&manifest, Some(media::DOCKER_MANIFEST)) {
        Ok(Document::Manifest(parsed)) => parsed.media_type,
        _ => None,
    };
    let version = target.tag().map_or_else(|| record.digest.to_string(), str::to_owned);
    repository.push_manifest(&version, &manifest, stated.as_deref().unwrap_or(media::MANIFEST))?;
    Ok(())
}
