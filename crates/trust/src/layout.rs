//! Images in files: OCI image layouts (a directory, or a tar of one) and what `docker save` writes.

use crate::content::{Content, ContentError, Hasher, ImageRecord, sha256};
use crate::oci::{
    Config, Descriptor, Document, History, Index, LARGEST_CONFIG, LARGEST_MANIFEST, Manifest, Platform, RootFs, RunConfig, media,
};
use crate::pull::{LayerReader, LayerSource, PullError, Puller, Resolved, StoredLayer, choose};
use crate::verify::{Rule, Verification};
use cofferdam_model::image::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";
const MOST_FILES: usize = 10_000;

/// A file that holds no image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The kernel refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} holds no image: {why}", path = path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nobody says what the image is called.
    #[error("the image in {path} has no name; give it one: --name REFERENCE", path = path.display())]
    NoName {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be put into the store.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What `docker save` lists.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether a directory is an OCI image layout.
pub fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file()
}

/// Puts every image of a layout or archive into the store. `name` is what the only one is to be called.
pub fn load(puller: &Puller<'_>, path: &Path, name: Option<&Reference>) -> Result<Vec<ImageRecord>, LayoutError> {
    if path.is_dir() {
        return Loading { puller, path, root: path, name }.all();
    }
    let parent = puller.content.directory("partial")?;
    let directory = tempfile::Builder::new().prefix("load-").tempdir_in(&parent);
    let directory = directory.map_err(|source| LayoutError::Io { path: parent.clone(), source })?;
    extract(path, directory.path())?;
    Loading { puller, path, root: directory.path(), name }.all()
}

struct Loading<'a> {
    puller: &'a Puller<'a>,
    /// As the user named it.
    path: &'a Path,
    root: &'a Path,
    name: Option<&'a Reference>,
}

impl Loading<'_> {
    fn all(&self) -> Result<Vec<ImageRecord>, LayoutError> {
        if self.root.join("index.json").is_file() && is_layout(self.root) {
            return self.layout();
        }
        if self.root.join("manifest.json").is_file() {
            return self.docker();
        }
        Err(self.no_image("it has neither index.json with oci-layout nor manifest.json"))
    }

    fn layout(&self) -> Result<Vec<ImageRecord>, LayoutError> {
        let index: Index = self.json("index.json")?;
        let mut records = Vec::new();
        for entry in &index.manifests {
            let noted = entry.annotations.get(FULL_NAME).or_else(|| entry.annotations.get(REF_NAME));
            let reference = match (self.name, noted) {
                (Some(name), _) if index.manifests.len() == 1 => name.clone(),
                (_, Some(noted)) => noted.parse().map_err(|error| self.no_image(&format!("{error}")))?,
                _ => return Err(LayoutError::NoName { path: self.path.to_owned() }),
            };
            records.push(self.entry(entry, reference, None)?);
        }
        if records.is_empty() { Err(self.no_image("its index is empty")) } else { Ok(records) }
    }

    fn entry(&self, entry: &Descriptor, reference: Reference, index: Option<Digest>) -> Result<ImageRecord, LayoutError> {
        let bytes = self.blob(&entry.digest, LARGEST_MANIFEST)?;
        let wrong = |source| LayoutError::Pull(PullError::Document { reference: reference.to_string(), source });
        match Document::parse(&bytes, Some(&entry.media_type)).map_err(wrong)? {
            Document::Index(_) if index.is_some() => Err(self.no_image("an index points at another index")),
            Document::Index(inner) => {
                let here = &self.puller.platform;
                let chosen = choose(&inner.manifests, here).ok_or_else(|| self.no_image(&format!("it has no image for {here}")))?;
                self.puller.content.write_blob(&bytes)?;
                self.entry(chosen, reference, Some(entry.digest.clone()))
            }
            Document::Manifest(manifest) => {
                let config = self.blob(&manifest.config.digest, LARGEST_CONFIG)?;
                for layer in &manifest.layers {
                    self.adopt(&self.blob_path(&layer.digest), Some(&layer.digest))?;
                }
                self.store(Resolved::local(reference, index, *manifest, bytes), &config)
            }
        }
    }

    fn docker(&self) -> Result<Vec<ImageRecord>, LayoutError> {
        let saved: Vec<Saved> = self.json("manifest.json")?;
        let mut records = Vec::new();
        for image in &saved {
            let config = self.small(&self.inside(&image.config)?, LARGEST_CONFIG)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let path = self.inside(layer)?;
                let (digest, size) = self.adopt(&path, None)?;
                layers.push(descriptor(media::LAYER, digest, size));
            }
            let described = descriptor(media::CONFIG, sha256(&config), config.len() as u64);
            let (manifest, bytes) = manifest_of(described, layers).map_err(|error| self.no_image(&error.to_string()))?;
            let tags = image.repo_tags.clone().unwrap_or_default();
            let names = match self.name {
                Some(name) if saved.len() == 1 => vec![name.clone()],
                _ => {
                    let parsed: Result<Vec<Reference>, _> = tags.iter().map(|tag| tag.parse()).collect();
                    parsed.map_err(|error| self.no_image(&format!("{error}")))?
                }
            };
            if names.is_empty() {
                return Err(LayoutError::NoName { path: self.path.to_owned() });
            }
            for name in names {
                records.push(self.store(Resolved::local(name, None, manifest.clone(), bytes.clone()), &config)?);
            }
        }
        if records.is_empty() { Err(self.no_image("its manifest.json is empty")) } else { Ok(records) }
    }

    fn store(&self, resolved: Resolved, config: &[u8]) -> Result<ImageRecord, LayoutError> {
        let how = format!("loaded from {}", self.path.display());
        let verified = Verification::local(Rule::Loaded, how, self.puller.now);
        Ok(self.puller.store(&resolved, config, &FromStore { content: self.puller.content }, verified)?)
    }

    /// Copies a file into the store under its digest.
    fn adopt(&self, path: &Path, wanted: Option<&Digest>) -> Result<(Digest, u64), LayoutError> {
        let content = self.puller.content;
        if let Some(digest) = wanted
            && content.has_blob(digest)
        {
            return Ok((digest.clone(), 0));
        }
        let (digest, size) = copy_in(content, path)?;
        if wanted.is_some_and(|wanted| *wanted != digest) {
            return Err(self.no_image(&format!("{} is not what its name says", path.display())));
        }
        Ok((digest, size))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, LayoutError> {
        let bytes = self.small(&self.blob_path(digest), most)?;
        if sha256(&bytes) == *digest { Ok(bytes) } else { Err(self.no_image(&format!("blob {digest} holds other bytes"))) }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, LayoutError> {
        let bytes = self.small(&self.root.join(name), LARGEST_MANIFEST)?;
        serde_json::from_slice(&bytes).map_err(|error| self.no_image(&format!("{name}: {error}")))
    }

    fn small(&self, path: &Path, most: u64) -> Result<Vec<u8>, LayoutError> {
        let io = |source| LayoutError::Io { path: path.to_owned(), source };
        let metadata = fs::symlink_metadata(path).map_err(io)?;
        if !metadata.is_file() || metadata.len() > most {
            return Err(self.no_image(&format!("{} is no file of at most {most} bytes", path.display())));
        }
        fs::read(path).map_err(io)
    }

    /// A path that a document names, inside.
    fn inside(&self, name: &str) -> Result<PathBuf, LayoutError> {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let path = self.root.join(name);
        let file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if plain && file { Ok(path) } else { Err(self.no_image(&format!("{name:?} is no file in it"))) }
    }

    fn no_image(&self, why: &str) -> LayoutError {
        LayoutError::NoImage { path: self.path.to_owned(), why: why.to_owned() }
    }
}

/// Copies a file into the store under its own digest.
pub fn copy_in(content: &Content, path: &Path) -> Result<(Digest, u64), LayoutError> {
    let io = |source| LayoutError::Io { path: path.to_owned(), source };
    let mut source = fs::File::open(path).map_err(io)?;
    let parent = content.directory("partial")?;
    let mut target = tempfile::Builder::new().prefix("copy-").tempfile_in(&parent).map_err(io)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::default(), 0, vec![0; 256 << 10]);
    loop {
        let read = source.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(io)?;
        size += read as u64;
    }
    let digest = hasher.finish();
    let path = target.into_temp_path().keep().map_err(|error| io(error.error))?;
    content.adopt_blob(&path, &digest)?;
    Ok((digest, size))
}

/// Layers that are in the store already.
#[derive(Debug)]
pub struct FromStore<'a> {
    /// The store.
    pub content: &'a Content,
}

impl LayerSource for FromStore<'_> {
    fn open<'a>(&'a self, descriptor: &'a Descriptor, _: &'a AtomicBool) -> Result<Box<dyn LayerReader + 'a>, PullError> {
        StoredLayer::open(self.content, descriptor)
    }
}

/// The regular files of an archive, by their plain names; docker's links between layers are followed by copying.
fn extract(path: &Path, target: &Path) -> Result<(), LayoutError> {
    let io_error = |source| LayoutError::Io { path: path.to_owned(), source };
    let no_image = |why: &str| LayoutError::NoImage { path: path.to_owned(), why: why.to_owned() };
    let file = fs::File::open(path).map_err(io_error)?;
    let mut archive = tar::Archive::new(plain(file).map_err(io_error)?);
    for (count, entry) in archive.entries().map_err(|error| no_image(&error.to_string()))?.enumerate() {
        let mut entry = entry.map_err(|error| no_image(&error.to_string()))?;
        if count >= MOST_FILES {
            return Err(no_image("it has too many entries"));
        }
        let name = entry.path().map_err(|error| no_image(&error.to_string()))?.into_owned();
        let name: PathBuf = name.components().filter(|part| *part != Component::CurDir).collect();
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(no_image(&format!("entry {} leaves it", name.display())));
        }
        let place = target.join(&name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(io_error)?;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut out = fs::OpenOptions::new().write(true).create_new(true).open(&place).map_err(io_error)?;
                io::copy(&mut entry, &mut out).map_err(io_error)?;
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name().ok().flatten().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let source = normal(&name.parent().unwrap_or(Path::new("")).join(link)).ok_or_else(|| no_image("a link leaves it"))?;
                fs::hard_link(target.join(source), &place).map_err(io_error)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A path without `.` and `..`; None if it leaves its root.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(out)
}

/// How an xz file begins.
pub const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Memory that decompressing xz may take: twice what `xz -9` asks for.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// Decompresses xz.
pub(crate) fn xz<R: Read>(packed: R) -> lzma_rust2::XzReader<R> {
    lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)
}

/// Decompresses if need be.
pub fn plain(mut file: fs::File) -> io::Result<Box<dyn Read>> {
    use std::io::Seek;
    let mut magic = [0; 6];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    Ok(match &magic[..read] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(file)?),
        magic if magic == XZ => Box::new(xz(io::BufReader::new(file))),
        _ => Box::new(io::BufReader::new(file)),
    })
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let media_type = media_type.to_owned();
    Descriptor { media_type, digest, size, platform: None, artifact_type: None, annotations: BTreeMap::new(), urls: Vec::new() }
}

fn manifest_of(config: Descriptor, layers: Vec<Descriptor>) -> serde_json::Result<(Manifest, Vec<u8>)> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)?;
    Ok((manifest, bytes))
}

/// A layer of an image that is made here: in the store, not compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLayer {
    /// Digest of its bytes, which is its diff id too.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// An image that is made here.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// What it is called.
    pub reference: Reference,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// For which machine.
    pub platform: Platform,
    /// Its layers, lowest first: those of another image as it has them, and new ones.
    pub layers: Vec<(Descriptor, Digest)>,
    /// How its processes are started.
    pub config: RunConfig,
    /// How it was made.
    pub history: Vec<History>,
    /// Why it may be started.
    pub verified: Verification,
}

impl NewLayer {
    /// As a manifest lists it, with its diff id.
    pub fn listed(&self) -> (Descriptor, Digest) {
        (descriptor(media::LAYER, self.digest.clone(), self.size), self.digest.clone())
    }
}

/// Puts an image together whose layers are in the store, and gives it its name.
pub fn compose(puller: &Puller<'_>, image: NewImage) -> Result<ImageRecord, LayoutError> {
    let NewImage { reference, created, platform, layers, config, history, verified } = image;
    let (layers, diff_ids): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let rootfs = RootFs { kind: "layers".into(), diff_ids };
    let wrong = |error: serde_json::Error| LayoutError::NoImage { path: PathBuf::from(reference.to_string()), why: error.to_string() };
    let config = serde_json::to_vec(&Config { created, platform, config, rootfs, history }).map_err(wrong)?;
    let described = descriptor(media::CONFIG, sha256(&config), config.len() as u64);
    let (manifest, bytes) = manifest_of(described, layers).map_err(wrong)?;
    let resolved = Resolved::local(reference.clone(), None, manifest, bytes);
    Ok(puller.store(&resolved, &config, &FromStore { content: puller.content }, verified)?)
}

/// Writes an image as an archive that Docker, podman, skopeo and Cofferdam load: an OCI layout with a `manifest.json` beside it.
pub fn save(content: &Content, record: &ImageRecord, out: impl Write) -> Result<(), LayoutError> {
    let path = PathBuf::from(record.reference.to_string());
    let io = |source| LayoutError::Io { path: path.clone(), source };
    let manifest = content.read_blob(&record.digest, LARGEST_MANIFEST)?;
    let config = content.read_blob(&record.config_digest, LARGEST_CONFIG)?;
    let mut listed = descriptor(media::MANIFEST, record.digest.clone(), manifest.len() as u64);
    if let Ok(Document::Manifest(parsed)) = Document::parse(&manifest, Some(media::DOCKER_MANIFEST))
        && parsed.media_type.as_deref() == Some(media::DOCKER_MANIFEST)
    {
        listed.media_type = media::DOCKER_MANIFEST.into();
    }
    listed.annotations =
        BTreeMap::from([(FULL_NAME.to_owned(), record.reference.to_string()), (REF_NAME.to_owned(), record.reference.to_string())]);
    let index = Index { schema_version: 2, media_type: Some(media::INDEX.into()), manifests: vec![listed], annotations: BTreeMap::new() };
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<String> = record.layers.iter().map(|layer| blob(&layer.digest)).collect();
    let docker = serde_json::json!([{
        "Config": blob(&record.config_digest), "RepoTags": [record.reference.to_string()], "Layers": layers,
    }]);
    let mut archive = tar::Builder::new(out);
    add(&mut archive, "oci-layout", LAYOUT.as_bytes()).map_err(io)?;
    add(&mut archive, "index.json", &serde_json::to_vec(&index).map_err(|e| io(e.into()))?).map_err(io)?;
    add(&mut archive, "manifest.json", &serde_json::to_vec(&docker).map_err(|e| io(e.into()))?).map_err(io)?;
    add(&mut archive, &blob(&record.config_digest), &config).map_err(io)?;
    add(&mut archive, &blob(&record.digest), &manifest).map_err(io)?;
    let mut written = std::collections::BTreeSet::new();
    for layer in record.layers.iter().filter(|layer| written.insert(layer.digest.clone())) {
        let file = fs::File::open(content.blob_path(&layer.digest)).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut header = plain_header(size);
        archive.append_data(&mut header, blob(&layer.digest), file).map_err(io)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(io)
}

fn add(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut plain_header(bytes.len() as u64), name, bytes)
}

fn plain_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}
