//! Manifests, indexes, configurations, trust.yaml: no input brings them down, and what is accepted is within its bounds.
#![no_main]

use cofferdam_trust::oci::{Config, Document, MOST_LAYERS, media};
use cofferdam_trust::verify::TrustFile;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    for declared in [None, Some(media::MANIFEST), Some(media::INDEX), Some(media::DOCKER_MANIFEST)] {
        if let Ok(Document::Manifest(manifest)) = Document::parse(data, declared) {
            assert!(manifest.layers.len() <= MOST_LAYERS);
            assert!(manifest.layers.iter().all(|layer| layer.urls.is_empty()));
            let _ = Config::parse(data, &manifest);
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = TrustFile::parse(Path::new("trust.yaml"), text);
    }
});
