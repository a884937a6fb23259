//! Giving images to a registry.

use super::http::Method;
use super::{Endpoint, RegistryError, Repository};
use cofferdam_model::image::Digest;
use std::cell::RefCell;
use std::io::Read;

impl Repository {
    /// Whether the registry has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.own()?;
        match endpoint.request(Method::Head, &format!("/v2/{}/blobs/{digest}", self.path), &format!("blob {digest}"), &[]) {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives it a blob.
    pub fn push_blob<'a>(&self, digest: &Digest, size: u64, data: impl Read + 'a) -> Result<(), RegistryError> {
        let endpoint = self.own()?;
        let what = format!("blob {digest}");
        let begun = endpoint.request(Method::Post, &format!("/v2/{}/blobs/uploads/", self.path), &what, &[])?;
        let location = begun.header("location").ok_or_else(|| RegistryError::Wrong {
            registry: endpoint.name.clone(),
            what: what.clone(),
            why: "it does not say where to put the bytes".into(),
        })?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let location = format!("{location}{separator}digest={}", digest.as_str().replace(':', "%3A"));
        let stream = Method::Stream(RefCell::new(Some(Box::new(data))), size);
        let response = endpoint.http.upload(&stream, &location, endpoint.tokens.header(true).as_deref())?;
        endpoint.checked(response, &what).map(|_| ())
    }

    /// Gives it a manifest under a tag or its digest; whether it keeps account of what the manifest is about.
    pub fn push_manifest(&self, version: &str, bytes: &[u8], media_type: &str) -> Result<bool, RegistryError> {
        let endpoint = self.own()?;
        let path = format!("/v2/{}/manifests/{version}", self.path);
        endpoint
            .request(Method::Put(bytes, media_type), &path, &format!("manifest {version}"), &[])
            .map(|answer| answer.header("oci-subject").is_some())
    }

    fn own(&self) -> Result<&Endpoint, RegistryError> {
        self.endpoints.last().ok_or_else(|| RegistryError::Unreachable { registry: String::new(), why: "no registry".into() })
    }
}
