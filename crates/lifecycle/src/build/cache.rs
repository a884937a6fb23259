//! Layers of earlier builds, by what they were made from.

use cofferdam_model::image::Digest;
use cofferdam_trust::content::{Content, ContentError, sha256};
use cofferdam_trust::layout::NewLayer;
use serde::{Deserialize, Serialize};

/// A remembered layer. None: the step changed nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    layer: Option<(Digest, u64)>,
}

/// The key of a step: of what is below it and of everything it is made from.
pub fn key(below: &Digest, parts: &[&str]) -> Digest {
    let mut text = below.to_string();
    for part in parts {
        text = text + "\n" + &part.len().to_string() + ":" + part;
    }
    sha256(text.as_bytes())
}

/// The layer of an earlier build, if it is still there.
pub fn find(content: &Content, key: &Digest) -> Option<Option<NewLayer>> {
    let bytes = std::fs::read(content.path().join("build-cache").join(key.hex())).ok()?;
    let entry: Entry = serde_json::from_slice(&bytes).ok()?;
    match entry.layer {
        None => Some(None),
        Some((digest, size)) => content.has_blob(&digest).then_some(Some(NewLayer { digest, size })),
    }
}

/// Remembers a layer.
pub fn keep(content: &Content, key: &Digest, layer: Option<&NewLayer>) -> Result<(), ContentError> {
    let path = content.directory("build-cache")?.join(key.hex());
    let entry = Entry { layer: layer.map(|layer| (layer.digest.clone(), layer.size)) };
    let bytes = serde_json::to_vec(&entry).map_err(|e| ContentError::Io { path: path.clone(), source: e.into() })?;
    content.write_whole(&path, &bytes)
}
