//! The documents of an image, as the OCI image specification (1.1) and Docker's earlier formats write them.

use cofferdam_model::image::Digest;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Most bytes of a manifest or index: what registries themselves take at most.
pub const LARGEST_MANIFEST: u64 = 4 << 20;
/// Most bytes of a configuration.
pub const LARGEST_CONFIG: u64 = 4 << 20;
/// Most layers of an image. The kernel stacks 500; Docker stops at 127.
pub const MOST_LAYERS: usize = 127;

/// Media types that are understood.
pub mod media {
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker manifest, version 2 schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// The empty configuration of artifacts that are no images.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// Points at bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// Of an index's entry: for which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Of a referrer: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// Elsewhere to fetch them from; refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub urls: Vec<String>,
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: None }
    }

    /// Whether an image for `self` runs on `machine`.
    pub fn runs_on(&self, machine: &Self) -> bool {
        let base = |variant: Option<&str>| variant.is_none_or(|variant| variant == "v8" || variant == "v1" || variant.is_empty());
        self.architecture == machine.architecture && self.os == machine.os && base(self.variant.as_deref())
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// An image of one platform, or an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an artifact: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Of a referrer: what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// Images of several platforms, or referrers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it lists.
    #[serde(deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// For which machine.
    #[serde(flatten)]
    pub platform: Platform,
    /// How its processes are started.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// Its layers, not compressed.
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub history: Vec<History>,
}

/// Digests of the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of each layer, not compressed, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// A step of its making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How an image's processes are started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `USER[:GROUP]`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `PORT/PROTOCOL`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `K=V`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The first words of every command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The further words where none are said.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories whose contents are no part of the image.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Where processes start.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How its health is checked (Docker's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    /// The shell of a Dockerfile's commands (Docker's).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Instructions for images built on this one (Docker's).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// Go writes an empty list or map as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A manifest or an index, told apart by what it holds and what it says it is: both must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

/// A document that is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the right shape.
    #[error("{what} is not valid: {why}")]
    Shape {
        /// Which document.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Of another format.
    #[error("{what} has media type {media_type:?}, which is not supported; push the image again with a current tool")]
    MediaType {
        /// Which document.
        what: &'static str,
        /// Its media type.
        media_type: String,
    },
    /// Too many layers.
    #[error("the image has {0} layers; {MOST_LAYERS} is the most")]
    TooManyLayers(usize),
    /// Layers of manifest and configuration differ.
    #[error("the manifest lists {manifest} layers, the configuration {config}")]
    LayerCount {
        /// Of the manifest.
        manifest: usize,
        /// Of the configuration.
        config: usize,
    },
    /// A layer that is to be fetched from elsewhere.
    #[error("layer {0} is to be fetched from a URL of the manifest's choice; such layers are refused")]
    Foreign(Digest),
}

impl Document {
    /// Reads one. `declared` is the media type that the server or descriptor gave.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Peek {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let shape = |what| move |error: serde_json::Error| DocumentError::Shape { what, why: error.to_string() };
        let peek: Peek = serde_json::from_slice(bytes).map_err(shape("the manifest"))?;
        let media_type = peek.media_type.as_deref().or(declared);
        let unknown =
            || DocumentError::MediaType { what: "the manifest", media_type: media_type.unwrap_or("none").chars().take(100).collect() };
        let conflict = |why: &str| DocumentError::Shape { what: "the manifest", why: why.into() };
        if let (Some(inner), Some(declared)) = (peek.media_type.as_deref(), declared)
            && known(declared)
            && inner != declared
        {
            return Err(conflict(&format!("it says it is {inner:?}, but is served as {declared:?}")));
        }
        match media_type {
            Some(media::MANIFEST | media::DOCKER_MANIFEST) if peek.manifests.is_none() => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(shape("the manifest"))?;
                Ok(Self::Manifest(Box::new(manifest.checked()?)))
            }
            Some(media::INDEX | media::DOCKER_LIST) if peek.layers.is_none() => {
                Ok(Self::Index(serde_json::from_slice(bytes).map_err(shape("the index"))?))
            }
            Some(media_type) if known(media_type) => Err(conflict("it lists both layers and manifests")),
            _ => Err(unknown()),
        }
    }
}

fn known(media_type: &str) -> bool {
    [media::MANIFEST, media::DOCKER_MANIFEST, media::INDEX, media::DOCKER_LIST].contains(&media_type)
}

impl Manifest {
    fn checked(self) -> Result<Self, DocumentError> {
        if self.layers.len() > MOST_LAYERS {
            return Err(DocumentError::TooManyLayers(self.layers.len()));
        }
        match self.layers.iter().find(|layer| !layer.urls.is_empty() || layer.media_type.contains("foreign")) {
            Some(layer) => Err(DocumentError::Foreign(layer.digest.clone())),
            None => Ok(self),
        }
    }

    /// The bytes of the layers as they are stored.
    pub fn layer_bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

impl Config {
    /// Reads one, and checks it against its manifest.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, DocumentError> {
        let shape = |error: serde_json::Error| DocumentError::Shape { what: "the image's configuration", why: error.to_string() };
        if manifest.config.media_type == media::EMPTY {
            return Err(DocumentError::MediaType { what: "the image's configuration", media_type: manifest.config.media_type.clone() });
        }
        let config: Self = serde_json::from_slice(bytes).map_err(shape)?;
        let (of_manifest, of_config) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if of_manifest != of_config {
            return Err(DocumentError::LayerCount { manifest: of_manifest, config: of_config });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn manifest(extra: &str, layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"{DIGEST}","size":2}},"layers":[{layers}]}}"#,
            media::CONFIG
        )
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let layer = format!(r#"{{"mediaType":"{}","digest":"{DIGEST}","size":2}}"#, media::LAYER_GZIP);
        assert!(matches!(Document::parse(manifest("", &layer).as_bytes(), Some(media::MANIFEST)), Ok(Document::Manifest(_))));
        let odd = [
            (manifest(r#""manifests":[],"#, &layer), Some(media::MANIFEST)),
            (manifest(r#""manifests":[],"#, &layer), Some(media::INDEX)),
            (manifest(&format!(r#""mediaType":"{}","#, media::INDEX), &layer), Some(media::MANIFEST)),
            (manifest("", &layer), Some("application/vnd.docker.distribution.manifest.v1+prettyjws")),
            (manifest("", &layer), None),
            (manifest(r#""schemaVersion":2,"#, &layer), Some(media::MANIFEST)),
            (manifest("", &vec![layer.as_str(); MOST_LAYERS + 1].join(",")), Some(media::MANIFEST)),
            (manifest("", &layer.replace("\"size\":2", "\"size\":2,\"urls\":[\"http://a\"]")), Some(media::MANIFEST)),
            (manifest("", &layer.replace(DIGEST, "sha256:../../x")), Some(media::MANIFEST)),
            ("null".into(), Some(media::MANIFEST)),
            ("[[".repeat(100_000), Some(media::MANIFEST)),
        ];
        for (text, declared) in odd {
            assert!(Document::parse(text.as_bytes(), declared).is_err(), "{}", &text[..text.len().min(200)]);
        }
    }

    #[test]
    fn go_writes_nothing_as_null() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Cmd":null,"Volumes":null,"Labels":null,"OnBuild":null,"User":""}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":null}}"#
        );
        let layer = format!(r#"{{"mediaType":"{}","digest":"{DIGEST}","size":2}}"#, media::LAYER_GZIP);
        let Ok(Document::Manifest(manifest)) = Document::parse(manifest("", &layer).as_bytes(), Some(media::MANIFEST)) else {
            panic!("no manifest")
        };
        let config = Config::parse(text.as_bytes(), &manifest).expect("a configuration");
        assert_eq!(config.config, RunConfig::default());
    }
}
