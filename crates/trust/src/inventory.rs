//! What packages an image holds, as its package managers recorded it, and bills of materials of that.
//!
//! Read: dpkg (`/var/lib/dpkg/status` and `status.d`) and apk (`/lib/apk/db/installed`). Written: CycloneDX 1.6 (cyclonedx.org) and
//! SPDX 2.3 (spdx.dev), both JSON, and both the same bytes for the same image.

use crate::content::{Content, ContentError, ImageRecord, sha256};
use crate::copying::{CopyError, View};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a bill of materials is called in statements (in-toto predicates).
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";
/// The same for SPDX.
pub const SPDX: &str = "https://spdx.dev/Document";
const LARGEST_DATABASE: u64 = 256 << 20;
const MOST_FILES: usize = 100_000;

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL (purl).
    pub purl: String,
}

/// An inventory that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A layer is not here any more.
    #[error("image {0}: a layer is not in the store any more; pull or build the image again")]
    Incomplete(String),
    /// It cannot be read.
    #[error("image {reference}: {source}")]
    Io {
        /// The image.
        reference: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// The packages of an image, sorted.
pub fn components(content: &Content, record: &ImageRecord) -> Result<Vec<Component>, InventoryError> {
    let reference = record.reference.to_string();
    let opened = record.layers.iter().map(|layer| content.open_layer(&layer.directory).map(Arc::new));
    let layers = opened.collect::<Option<Vec<_>>>().ok_or_else(|| InventoryError::Incomplete(reference.clone()))?;
    let error = |source| InventoryError::Io { reference: reference.clone(), source };
    let view = View::of_layers(content, &layers).map_err(error)?;
    let read = |path: &str| view.text(Path::new(path), LARGEST_DATABASE).map_err(error);
    let distribution = Distribution::of(&match read("etc/os-release")? {
        Some(text) => text,
        None => read("usr/lib/os-release")?.unwrap_or_default(),
    });
    let mut found = Vec::new();
    found.extend(dpkg(&read("var/lib/dpkg/status")?.unwrap_or_default(), &distribution));
    let parts = match view.names(Path::new("var/lib/dpkg/status.d")) {
        Err(CopyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|e| error(io::Error::other(e)))?,
    };
    for name in parts.iter().take(MOST_FILES) {
        let path = format!("var/lib/dpkg/status.d/{}", name.to_string_lossy());
        found.extend(dpkg(&read(&path)?.unwrap_or_default(), &distribution));
    }
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        found.extend(apk(&read(path)?.unwrap_or_default(), &distribution));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What an image says it is (os-release(5)).
struct Distribution {
    id: String,
    version: String,
}

impl Distribution {
    fn of(text: &str) -> Self {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        Self { id: field("ID"), version: field("VERSION_ID") }
    }

    fn purl(&self, kind: &str, fallback: &str, name: &str, version: &str, architecture: &str) -> String {
        let id = if self.id.is_empty() { fallback } else { &self.id };
        let mut purl = format!("pkg:{kind}/{}/{}@{}?arch={}", escape(id), escape(name), escape(version), escape(architecture));
        if !self.version.is_empty() {
            purl = format!("{purl}&distro={}-{}", escape(id), escape(&self.version));
        }
        purl
    }
}

/// Percent-encoding of package URLs.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn dpkg(text: &str, distribution: &Distribution) -> Vec<Component> {
    let paragraph = |text: &str| {
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(|value| value.trim().to_owned());
        // What was removed and left its configuration is no part of the image.
        if field("Status").is_some_and(|status| !status.ends_with(" installed")) {
            return None;
        }
        let (name, version) = (field("Package")?, field("Version")?);
        let purl = distribution.purl("deb", "debian", &name, &version, &field("Architecture").unwrap_or_default());
        Some(Component { name, version, purl })
    };
    text.split("\n\n").filter_map(paragraph).collect()
}

fn apk(text: &str, distribution: &Distribution) -> Vec<Component> {
    let paragraph = |text: &str| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let (name, version) = (field("P:")?, field("V:")?);
        let purl = distribution.purl("apk", "alpine", &name, &version, &field("A:").unwrap_or_default());
        Some(Component { name, version, purl })
    };
    text.split("\n\n").filter_map(paragraph).collect()
}

fn created(record: &ImageRecord) -> String {
    record.created.clone().unwrap_or_else(|| "1980-01-01T00:00:00Z".into())
}

/// CycloneDX 1.6.
pub fn cyclonedx(record: &ImageRecord, components: &[Component]) -> Value {
    let listed: Vec<Value> = components
        .iter()
        .map(|part| json!({ "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl }))
        .collect();
    let itself = json!({
        "type": "container", "bom-ref": record.digest, "name": record.reference.name(), "version": record.digest,
    });
    let tool = json!({ "type": "application", "name": "cofferdam", "version": env!("CARGO_PKG_VERSION") });
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "timestamp": created(record), "tools": { "components": [tool] }, "component": itself },
        "components": listed,
        "dependencies": [{ "ref": record.digest, "dependsOn": components.iter().map(|part| &part.purl).collect::<Vec<_>>() }],
    })
}

/// SPDX 2.3.
pub fn spdx(record: &ImageRecord, components: &[Component]) -> Value {
    const NONE: &str = "NOASSERTION";
    const IMAGE: &str = "SPDXRef-image";
    let package = |id: &str, name: &str, version: &str, purpose: &str, reference: Option<&str>| {
        let references: Vec<Value> = reference
            .map(|purl| json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }))
            .into_iter()
            .collect();
        json!({
            "SPDXID": id, "name": name, "versionInfo": version, "downloadLocation": NONE, "filesAnalyzed": false,
            "licenseConcluded": NONE, "licenseDeclared": NONE, "copyrightText": NONE, "primaryPackagePurpose": purpose,
            "externalRefs": references,
        })
    };
    let id = |part: &Component| format!("SPDXRef-package-{}", sha256(part.purl.as_bytes()).short());
    let mut packages = vec![package(IMAGE, &record.reference.name(), record.digest.as_str(), "CONTAINER", None)];
    packages.extend(components.iter().map(|part| package(&id(part), &part.name, &part.version, "LIBRARY", Some(&part.purl))));
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    relations.extend(components.iter().map(|part| relation(IMAGE, "CONTAINS", &id(part))));
    json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": record.reference.name(),
        "documentNamespace": format!("urn:cofferdam:image:{}", record.digest),
        "creationInfo": { "created": created(record), "creators": [concat!("Tool: cofferdam-", env!("CARGO_PKG_VERSION"))] },
        "packages": packages, "relationships": relations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let debian = Distribution::of("ID=debian\nVERSION_ID=\"13\"\n");
        let status = "Package: g++\nStatus: install ok installed\nVersion: 4:14.2.0-1\nArchitecture: amd64\nDescription: x\n Package: no\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: tz\nVersion: 2026a-0+deb13u1\nArchitecture: all\n";
        let purls: Vec<String> = dpkg(status, &debian).into_iter().map(|part| part.purl).collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/g%2B%2B@4:14.2.0-1?arch=amd64&distro=debian-13",
                "pkg:deb/debian/tz@2026a-0%2Bdeb13u1?arch=all&distro=debian-13"
            ]
        );
        let alpine = Distribution::of("ID=alpine\nVERSION_ID=3.22.1\n");
        let purls: Vec<String> = apk("C:Q1\nP:musl\nV:1.2.5-r10\nA:x86_64\nL:MIT\n\n", &alpine).into_iter().map(|part| part.purl).collect();
        assert_eq!(purls, ["pkg:apk/alpine/musl@1.2.5-r10?arch=x86_64&distro=alpine-3.22.1"]);
    }
}
