//! A client of registries: the OCI distribution specification (1.1), as far as pulling, pushing and referrers go.
//!
//! Blocking, a thread a transfer. What a registry says is not believed: documents are bounded, bytes are checked against the
//! digest they were asked by, redirects never leave HTTPS and never carry credentials to another host.

mod auth;
pub(crate) mod http;
mod push;

pub use auth::Credentials;

use crate::content::sha256;
use crate::oci::{Descriptor, Index, LARGEST_MANIFEST, media};
use auth::Tokens;
use cofferdam_model::image::{Digest, HUB, Reference};
use http::{Http, Method, Response};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Where Docker Hub's registry answers.
const HUB_ENDPOINT: &str = "registry-1.docker.io";
const MOST_REFERRERS: usize = 1000;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For each registry: what to do otherwise than usual.
    pub registries: Vec<RegistryOptions>,
    /// Where credentials are.
    pub credentials: Credentials,
}

/// What is different for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryOptions {
    /// Host, with its port if it has one.
    pub host: String,
    /// Asked first, in this order: hosts, with ports.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// A file of certificates (PEM) to trust besides the host's own.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Speak plain HTTP.
    #[serde(default)]
    pub plain_http: bool,
}

/// A registry does not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("registry {registry} cannot be reached: {why}; check the name, the network and the proxy variables")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What went wrong.
        why: String,
    },
    /// The connection broke: it may work another time.
    #[error("registry {registry}: the connection broke: {why}; try again")]
    Broken {
        /// The registry.
        registry: String,
        /// What went wrong.
        why: String,
    },
    /// Its certificate is not trusted.
    #[error("registry {registry}: its certificate is not trusted: {why}; name the certificate authority in trust.yaml (registries: ca)")]
    Certificate {
        /// The registry.
        registry: String,
        /// What is wrong with it.
        why: String,
    },
    /// It wants credentials, or others.
    #[error(
        "registry {registry} refuses {what}: {status}; log in to it (docker login {registry}, podman login {registry}), or check the name"
    )]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said.
        status: u16,
    },
    /// It has no such thing.
    #[error("registry {registry} has no {what}; check the name and the tag")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// It asks to come back later.
    #[error("registry {registry} limits how much may be pulled (429); log in to it, use a mirror, or try again later")]
    TooMany {
        /// The registry.
        registry: String,
    },
    /// It answers otherwise.
    #[error("registry {registry} answers {status} to {what}")]
    Status {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said.
        status: u16,
    },
    /// What it sent is not what was asked for.
    #[error("registry {registry}: {what}: {why}")]
    Wrong {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("registry {registry} redirects to {target}, which is refused: {why}")]
    Redirect {
        /// The registry.
        registry: String,
        /// Where to.
        target: String,
        /// Why not.
        why: &'static str,
    },
    /// Credentials cannot be read.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What is wrong.
        why: String,
    },
}

/// A manifest or index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What the registry says they are.
    pub media_type: Option<String>,
}

/// One repository of a registry.
#[derive(Debug)]
pub struct Repository {
    /// Tried one after the other: mirrors, then the registry itself.
    endpoints: Vec<Endpoint>,
    path: String,
}

#[derive(Debug)]
struct Endpoint {
    name: String,
    http: Http,
    tokens: Tokens,
}

impl Repository {
    /// The repository of a reference.
    pub fn of(reference: &Reference, access: &Access) -> Result<Self, RegistryError> {
        let options = |host: &str| access.registries.iter().find(|options| options.host == host).cloned().unwrap_or_default();
        let own = options(reference.registry());
        let mut endpoints = Vec::new();
        for host in own.mirrors.iter().map(String::as_str).chain([reference.registry()]) {
            let name = if host == HUB { HUB_ENDPOINT } else { host };
            let tokens = Tokens::new(host, reference.repository(), access.credentials.clone());
            endpoints.push(Endpoint { name: name.to_owned(), http: Http::new(name, &options(host))?, tokens });
        }
        Ok(Self { endpoints, path: reference.repository().to_owned() })
    }

    /// A manifest or index, by tag or digest.
    pub fn manifest(&self, version: &str) -> Result<Fetched, RegistryError> {
        let what = format!("image {}:{version}", self.path);
        let (endpoint, response) = self.get(&format!("manifests/{version}"), &what, &[("accept", ACCEPT)])?;
        let media_type = response.header("content-type").map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        let bytes = read_bounded(&endpoint.name, &what, response, LARGEST_MANIFEST)?;
        let digest = sha256(&bytes);
        let wrong = |why: String| RegistryError::Wrong { registry: endpoint.name.clone(), what: what.clone(), why };
        if let Ok(wanted) = version.parse::<Digest>()
            && wanted != digest
        {
            return Err(wrong(format!("it sent bytes with digest {digest}")));
        }
        Ok(Fetched { bytes, digest, media_type })
    }

    /// A small blob, checked.
    pub fn small_blob(&self, digest: &Digest, size: u64, most: u64) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {digest}");
        if size > most {
            let why = format!("it is {size} bytes, {most} is the most");
            return Err(RegistryError::Wrong { registry: self.name().to_owned(), what, why });
        }
        let (endpoint, response) = self.get(&format!("blobs/{digest}"), &what, &[])?;
        let bytes = read_bounded(&endpoint.name, &what, response, most)?;
        if sha256(&bytes) == *digest && bytes.len() as u64 == size {
            return Ok(bytes);
        }
        Err(RegistryError::Wrong { registry: endpoint.name.clone(), what, why: "it sent other bytes".into() })
    }

    /// A blob from an offset on. The offset it really begins at is told: registries may ignore it.
    pub fn blob(&self, digest: &Digest, offset: u64) -> Result<(impl Read + Send + use<>, u64), RegistryError> {
        let what = format!("blob {digest}");
        let range = format!("bytes={offset}-");
        let headers: &[(&str, &str)] = if offset > 0 { &[("range", &range)] } else { &[] };
        let (_, response) = self.get(&format!("blobs/{digest}"), &what, headers)?;
        let begins = if response.status == 206 { offset } else { 0 };
        Ok((response.into_reader(), begins))
    }

    /// What refers to a manifest: from the referrers API, else from the tag that stands in for it.
    pub fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let accept = [("accept", media::INDEX)];
        let what = format!("the referrers of {digest}");
        let (endpoint, response) = match self.get(&format!("referrers/{digest}"), &what, &accept) {
            Ok(found) => found,
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => {
                let tag = digest.as_str().replace(':', "-");
                match self.get(&format!("manifests/{tag}"), &what, &accept) {
                    Ok(found) => found,
                    Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let bytes = read_bounded(&endpoint.name, &what, response, LARGEST_MANIFEST)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Wrong {
            registry: endpoint.name.clone(),
            what,
            why: error.to_string(),
        })?;
        Ok(index.manifests.into_iter().take(MOST_REFERRERS).collect())
    }

    /// The registry's own name, as messages give it.
    pub fn name(&self) -> &str {
        self.endpoints.last().map_or("", |endpoint| &endpoint.name)
    }

    /// From the first endpoint that has it.
    fn get(&self, path: &str, what: &str, headers: &[(&str, &str)]) -> Result<(&Endpoint, Response), RegistryError> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match endpoint.request(Method::Get, &format!("/v2/{}/{path}", self.path), what, headers) {
                Ok(response) => return Ok((endpoint, response)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Unreachable { registry: String::new(), why: "no registry".into() }))
    }
}

impl Endpoint {
    /// Asks, and asks again: with credentials if they are wanted, a little later if the registry is not well.
    fn request(&self, method: Method<'_>, path: &str, what: &str, headers: &[(&str, &str)]) -> Result<Response, RegistryError> {
        const TRIES: u32 = 5;
        let push = !matches!(method, Method::Get | Method::Head);
        let mut wait = Duration::from_millis(250);
        let mut authorized = false;
        let mut tries = 0;
        loop {
            let authorization = self.tokens.header(push);
            let response = self.http.request(&method, path, headers, authorization.as_deref());
            let again = match &response {
                Ok(response) if response.status == 401 && !authorized => {
                    authorized = true;
                    let challenge = response.header("www-authenticate").unwrap_or_default().to_owned();
                    self.tokens.answer(&self.http, &challenge, push)?;
                    continue;
                }
                Ok(response) if matches!(response.status, 429 | 500 | 502..=504) => response.retry_after().or(Some(wait)),
                Err(RegistryError::Broken { .. }) => Some(wait),
                _ => None,
            };
            tries += 1;
            if let Some(pause) = again.filter(|_| tries < TRIES && method.is_repeatable()) {
                std::thread::sleep(pause);
                wait = (wait * 2).min(Duration::from_secs(10));
                continue;
            }
            return self.checked(response?, what);
        }
    }

    fn checked(&self, response: Response, what: &str) -> Result<Response, RegistryError> {
        let (registry, what, status) = (self.name.clone(), what.to_owned(), response.status);
        match status {
            200..=299 => Ok(response),
            401 | 403 => Err(RegistryError::Unauthorized { registry, what, status }),
            404 => Err(RegistryError::NotFound { registry, what }),
            429 => Err(RegistryError::TooMany { registry }),
            _ => Err(RegistryError::Status { registry, what, status }),
        }
    }
}

fn read_bounded(registry: &str, what: &str, response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
    let wrong = |why: String| RegistryError::Wrong { registry: registry.to_owned(), what: what.to_owned(), why };
    let declared = response.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let mut bytes = Vec::new();
    response.into_reader().take(most + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(wrong(format!("it is larger than {most} bytes")));
    }
    if declared.is_some_and(|declared| declared != bytes.len() as u64) {
        return Err(wrong("it has not the length that was announced".into()));
    }
    Ok(bytes)
}
