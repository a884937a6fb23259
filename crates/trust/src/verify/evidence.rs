//! Where signatures are found, and how they are kept.
//!
//! Three places, all looked at: OCI referrers (and the tag that stands in for them) with sigstore bundles; the tags `.sig` and
//! `.att` of cosign's earlier layout; referrers that hold that earlier layout (cosign's `oci-1-1` mode).

use super::VerifyError;
use crate::content::Content;
use crate::oci::{Descriptor, Document, Manifest};
use crate::registry::{Fetched, RegistryError, Repository};
use cofferdam_model::image::Digest;
use serde::{Deserialize, Serialize};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const LARGEST_PIECE: u64 = 5 << 20;
const MOST_PIECES: usize = 64;

/// Something that may vouch for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Evidence {
    /// A sigstore bundle, 0.1 to 0.3.
    Bundle {
        /// Its JSON.
        json: String,
    },
    /// cosign's signature of a "simple signing" payload.
    Simple {
        /// What is signed.
        payload: String,
        /// Base64.
        signature: String,
        /// Who signed, if not a key.
        #[serde(flatten)]
        signer: Signer,
    },
    /// cosign's attestation: a DSSE envelope.
    Attestation {
        /// Its JSON.
        envelope: String,
        /// Who signed, if not a key.
        #[serde(flatten)]
        signer: Signer,
    },
    /// Something that could not be read, and why.
    Broken {
        /// Why.
        why: String,
    },
}

/// What cosign's annotations say about the signer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// PEM.
    pub certificate: Option<String>,
    /// PEM.
    pub chain: Option<String>,
    /// The entry of the transparency log, as cosign writes it.
    pub log_entry: Option<String>,
}

/// Everything that a registry has on these digests.
pub fn fetch(repository: &Repository, subjects: &[&Digest]) -> Result<Vec<Evidence>, RegistryError> {
    let mut found = Vec::new();
    for subject in subjects {
        for referrer in repository.referrers(subject)? {
            if found.len() < MOST_PIECES {
                from_referrer(repository, subject, &referrer, &mut found);
            }
        }
        for suffix in ["sig", "att"] {
            let tag = format!("{}.{suffix}", subject.as_str().replace(':', "-"));
            match repository.manifest(&tag) {
                Ok(fetched) => from_layers(repository, &fetched, None, &mut found),
                Err(RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// What cannot be read is kept as such: it explains why nothing counts.
fn from_referrer(repository: &Repository, subject: &Digest, referrer: &Descriptor, found: &mut Vec<Evidence>) {
    match repository.manifest(referrer.digest.as_str()) {
        Ok(fetched) => from_layers(repository, &fetched, Some(subject), found),
        Err(error) => found.push(Evidence::Broken { why: error.to_string() }),
    }
}

fn from_layers(repository: &Repository, fetched: &Fetched, subject: Option<&Digest>, found: &mut Vec<Evidence>) {
    let manifest = match Document::parse(&fetched.bytes, fetched.media_type.as_deref()) {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return found.push(Evidence::Broken { why: "a referrer is an index".into() }),
        Err(error) => return found.push(Evidence::Broken { why: error.to_string() }),
    };
    if let Some(subject) = subject
        && manifest.subject.as_ref().is_none_or(|of| of.digest != *subject)
    {
        return found.push(Evidence::Broken { why: format!("referrer {} is about another image", fetched.digest) });
    }
    for layer in relevant(&manifest) {
        if found.len() >= MOST_PIECES {
            return;
        }
        let piece = match repository.small_blob(&layer.digest, layer.size, LARGEST_PIECE) {
            Ok(bytes) => of_layer(layer, bytes),
            Err(error) => Evidence::Broken { why: error.to_string() },
        };
        found.push(piece);
    }
}

fn relevant(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    let known = |media_type: &str| media_type.starts_with(BUNDLE) || media_type == SIMPLE_SIGNING || media_type == DSSE;
    manifest.layers.iter().filter(move |layer| known(&layer.media_type))
}

fn of_layer(layer: &Descriptor, bytes: Vec<u8>) -> Evidence {
    let Ok(text) = String::from_utf8(bytes) else { return Evidence::Broken { why: "a signature is no text".into() } };
    let note = |key: &str| layer.annotations.get(key).filter(|value| !value.is_empty()).cloned();
    let signer = Signer { certificate: note(CERTIFICATE), chain: note(CHAIN), log_entry: note(LOG_ENTRY) };
    match layer.media_type.as_str() {
        SIMPLE_SIGNING => match note(SIGNATURE) {
            Some(signature) => Evidence::Simple { payload: text, signature, signer },
            None => Evidence::Broken { why: "a signature's layer has no signature".into() },
        },
        DSSE => Evidence::Attestation { envelope: text, signer },
        _ => Evidence::Bundle { json: text },
    }
}

/// Keeps evidence as a blob.
pub fn keep(content: &Content, evidence: &[Evidence]) -> Result<Digest, VerifyError> {
    let bytes = serde_json::to_vec(evidence)
        .map_err(|error| VerifyError::Configuration { what: "the image's evidence".into(), why: error.to_string() })?;
    Ok(content.write_blob(&bytes)?)
}

/// Reads kept evidence.
pub fn kept(bytes: &[u8]) -> Result<Vec<Evidence>, VerifyError> {
    serde_json::from_slice(bytes)
        .map_err(|error| VerifyError::Configuration { what: "the image's kept evidence".into(), why: error.to_string() })
}
