//! What a build says about its image, put beside it as OCI referrers: bills of materials, provenance, a signature.
//!
//! Signed, each is a sigstore bundle 0.3 around a DSSE envelope with an in-toto statement, as cosign writes and reads it. Without a key
//! the documents themselves are attached: found by tools that list them, trusted by nobody.

use crate::content::{Content, ContentError, ImageRecord};
use crate::layout::descriptor;
use crate::oci::{Descriptor, LARGEST_MANIFEST, Manifest, media};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::image::{Digest, Reference};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
/// SLSA provenance (slsa.dev/provenance/v1).
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The ASN.1 in front of the point of a public key on P-256 (RFC 5480).
const P256_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// It cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The key.
    #[error("signing key {path}: {why}", path = path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The signature could not be made.
    #[error("signing failed")]
    Sign,
    /// A document could not be written.
    #[error("a statement cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// A key that signs.
pub struct Signer {
    key: EcdsaKeyPair,
    hint: String,
}

impl Signer {
    /// A key on P-256 in a PEM file, PKCS#8 or SEC 1, without a passphrase.
    pub fn load(path: &Path) -> Result<Self, AttestError> {
        let wrong = |why: String| AttestError::Key { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        if text.contains("ENCRYPTED") {
            let way = "it has a passphrase, which is not asked for here; use a key without one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem";
            return Err(wrong(way.into()));
        }
        let shape =
            || wrong("it is no private key on P-256 (PEM); make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem".into());
        // `openssl ecparam` puts the curve's name in a section of its own before the key.
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| shape())?;
        let key = match &der {
            PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_sec1_der()),
            _ => return Err(shape()),
        };
        let key = key.map_err(|_| shape())?;
        let public = [P256_HEAD, key.public_key().as_ref()].concat();
        let hint = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public));
        Ok(Self { key, hint })
    }

    /// A bundle around a statement.
    fn bundle(&self, statement: &[u8]) -> Result<Value, AttestError> {
        let mut signed = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), statement.len()).into_bytes();
        signed.extend_from_slice(statement);
        let signature = self.key.sign(&SystemRandom::new(), &signed).map_err(|_| AttestError::Sign)?;
        Ok(json!({
            "mediaType": BUNDLE,
            "verificationMaterial": { "publicKey": { "hint": self.hint } },
            "dsseEnvelope": {
                "payload": STANDARD.encode(statement), "payloadType": PAYLOAD,
                "signatures": [{ "sig": STANDARD.encode(signature.as_ref()) }],
            },
        }))
    }
}

/// A document about an image.
pub struct Document {
    /// Type of an in-toto predicate.
    pub predicate: &'static str,
    /// Media type of the document on its own.
    pub media_type: &'static str,
    /// It.
    pub body: Value,
}

/// How an image came to be, as far as its builder knows.
pub struct Build<'a> {
    /// What did it, a URI.
    pub builder: &'a str,
    /// What it was defined by: file and digest.
    pub sources: Vec<(String, Digest)>,
    /// What was asked for besides.
    pub parameters: Value,
    /// Images it was built on.
    pub images: &'a [(Reference, Digest)],
    /// Packages it was made of, as package URLs or paths, with their digests.
    pub packages: Vec<(String, Digest)>,
}

/// SLSA provenance, version 1.
pub fn provenance(build: &Build<'_>) -> Document {
    let resource = |(uri, digest): (String, &Digest)| json!({ "uri": uri, "digest": { "sha256": digest.hex() } });
    let images = build.images.iter().map(|(reference, digest)| (format!("oci:{reference}"), digest));
    let packages = build.packages.iter().map(|(name, digest)| (name.clone(), digest));
    let sources: Vec<Value> = build.sources.iter().map(|(name, digest)| resource((name.clone(), digest))).collect();
    let body = json!({
        "buildDefinition": {
            "buildType": "urn:cofferdam:image-build:v1",
            "externalParameters": { "definition": sources, "parameters": build.parameters },
            "internalParameters": {},
            "resolvedDependencies": images.chain(packages).map(resource).collect::<Vec<_>>(),
        },
        "runDetails": { "builder": { "id": build.builder, "version": { "cofferdam": env!("CARGO_PKG_VERSION") } } },
    });
    Document { predicate: PROVENANCE, media_type: "application/vnd.in-toto+json", body }
}

/// Attaches documents to an image of the store; with a key, signed, and a signature of the image besides.
pub fn attach(content: &Content, record: &mut ImageRecord, documents: Vec<Document>, signer: Option<&Signer>) -> Result<(), AttestError> {
    let mut attached = Vec::new();
    for document in documents {
        let Document { predicate, media_type, body } = document;
        attached.push(if let Some(signer) = signer {
            signed(content, record, signer, predicate, &body)?
        } else {
            let body = if predicate == PROVENANCE { statement(record, predicate, &body) } else { body };
            referrer(content, record, media_type, &serde_json::to_vec(&body)?, BTreeMap::new())?
        });
    }
    if let Some(signer) = signer {
        attached.push(signed(content, record, signer, SIGNATURE, &json!({}))?);
    }
    record.attached = attached;
    Ok(content.write_record(record)?)
}

fn statement(record: &ImageRecord, predicate: &str, body: &Value) -> Value {
    let subject = json!([{ "name": record.reference.name(), "digest": { "sha256": record.digest.hex() } }]);
    json!({ "_type": STATEMENT, "subject": subject, "predicateType": predicate, "predicate": body })
}

fn signed(content: &Content, record: &ImageRecord, signer: &Signer, predicate: &str, body: &Value) -> Result<Descriptor, AttestError> {
    let bundle = signer.bundle(&serde_json::to_vec(&statement(record, predicate, body))?)?;
    let notes = [("dev.sigstore.bundle.content", "dsse-envelope"), ("dev.sigstore.bundle.predicateType", predicate)];
    let notes = notes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    referrer(content, record, BUNDLE, &serde_json::to_vec(&bundle)?, notes)
}

/// Stores an artifact about the image; what an index lists of it.
fn referrer(
    content: &Content,
    record: &ImageRecord,
    kind: &str,
    bytes: &[u8],
    annotations: BTreeMap<String, String>,
) -> Result<Descriptor, AttestError> {
    const EMPTY: &[u8] = b"{}";
    let size = content.read_blob(&record.digest, LARGEST_MANIFEST)?.len() as u64;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        artifact_type: Some(kind.into()),
        config: descriptor(media::EMPTY, content.write_blob(EMPTY)?, EMPTY.len() as u64),
        layers: vec![descriptor(kind, content.write_blob(bytes)?, bytes.len() as u64)],
        subject: Some(descriptor(media::MANIFEST, record.digest.clone(), size)),
        annotations: annotations.clone(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let listed = descriptor(media::MANIFEST, content.write_blob(&manifest)?, manifest.len() as u64);
    Ok(Descriptor { artifact_type: Some(kind.into()), annotations, ..listed })
}
