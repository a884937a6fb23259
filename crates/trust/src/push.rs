//! An image of the store, given to a registry.

use crate::content::{Content, ContentError, ImageRecord};
use crate::oci::{Descriptor, Document, Index, LARGEST_CONFIG, LARGEST_MANIFEST, media};
use crate::registry::{Access, RegistryError, Repository};
use cofferdam_model::image::{Digest, Reference};
use std::fs::File;

const LARGEST_ATTACHED: u64 = 64 << 20;

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
    for attached in &record.attached {
        push_attached(content, &repository, &record.digest, attached)?;
    }
    Ok(())
}

/// What is attached follows its image. A registry that does not keep account of referrers gets the list under the tag that stands in for
/// it (distribution specification 1.1, "Pushing manifests with subject").
fn push_attached(content: &Content, repository: &Repository, subject: &Digest, attached: &Descriptor) -> Result<(), PushError> {
    let manifest = content.read_blob(&attached.digest, LARGEST_MANIFEST)?;
    let blobs = match Document::parse(&manifest, Some(media::MANIFEST)) {
        Ok(Document::Manifest(parsed)) => parsed.layers.iter().chain([&parsed.config]).map(|blob| blob.digest.clone()).collect(),
        _ => Vec::new(),
    };
    for digest in blobs {
        if !repository.has_blob(&digest)? {
            let bytes = content.read_blob(&digest, LARGEST_ATTACHED)?;
            repository.push_blob(&digest, bytes.len() as u64, bytes.as_slice())?;
        }
    }
    if repository.push_manifest(attached.digest.as_str(), &manifest, media::MANIFEST)? {
        return Ok(());
    }
    let tag = subject.as_str().replace(':', "-");
    let mut manifests = match repository.manifest(&tag) {
        Ok(fetched) => match Document::parse(&fetched.bytes, fetched.media_type.as_deref()) {
            Ok(Document::Index(index)) => index.manifests,
            // Whatever stands there is somebody's.
            _ => {
                return Err(PushError::Registry(RegistryError::Wrong {
                    registry: repository.name().to_owned(),
                    what: format!("tag {tag}, which lists what refers to the image"),
                    why: "it is no index; remove the tag, or push to another repository".into(),
                }));
            }
        },
        Err(RegistryError::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if manifests.iter().any(|known| known.digest == attached.digest) {
        return Ok(());
    }
    manifests.push(attached.clone());
    let index =
        Index { schema_version: 2, media_type: Some(media::INDEX.into()), manifests, annotations: std::collections::BTreeMap::new() };
    let bytes = serde_json::to_vec(&index).map_err(|error| RegistryError::Wrong {
        registry: repository.name().to_owned(),
        what: format!("the referrers of {subject}"),
        why: error.to_string(),
    })?;
    repository.push_manifest(&tag, &bytes, media::INDEX)?;
    Ok(())
}
