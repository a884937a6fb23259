//! A described base (`base.yaml` and its lock file) becomes an image of one layer.
//!
//! Packages are unpacked by us. Where their scripts are to run, `dpkg` installs them in a sandbox on top of that, without a network, and
//! both layers are made one: nothing of the way there is in the image.

use super::{Build, BuildError, Builder, cache};
use cofferdam_model::image::{Base, Reference};
use cofferdam_model::{Limits, NetworkLevel};
use cofferdam_trust::RunConfig;
use cofferdam_trust::content::{ContentError, ImageRecord, LayerRecord, sha256};
use cofferdam_trust::debian::{Extras, Lock, LockedPackage, accounts, flatten, packages_layer};
use cofferdam_trust::dockerfile::{Dockerfile, Variables};
use cofferdam_trust::layout::{NewImage, NewLayer, compose};
use cofferdam_trust::oci::History;
use cofferdam_trust::pack::EPOCH;
use cofferdam_trust::verify::{Rule, Verification};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Counts what the making of layers changed: layers of an earlier way are made again.
const WAY: &str = "1";

/// Installs every package at once, as `dpkg` does it; what it leaves that depends on the time goes.
const INSTALL: &str = r"#!/bin/sh
set -eu
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
log=/tmp/install.log
if ! dpkg --force-depends --force-unsafe-io --install /run/packages/*.deb < /dev/null > $log 2>&1; then
    grep -v 'pre-depend\|^$\|unpacked, but\|not installed' $log | tail -n 40 >&2
    exit 1
fi
cat /run/packages/passwd >> /etc/passwd
cat /run/packages/group >> /etc/group
rm -f /usr/sbin/policy-rc.d $log /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/cache/ldconfig/aux-cache
rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old /etc/*- /var/log/apt/* /var/log/fontconfig.log
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /tmp/* /run/*.pid
";

/// A base, and how it is built.
pub struct BaseBuild {
    /// What it is.
    pub base: Base,
    /// Its packages.
    pub lock: Lock,
    /// Contents of its `source` files, by name.
    pub sources: BTreeMap<String, Vec<u8>>,
    /// The definition's name, for messages.
    pub file: String,
    /// What the image is called.
    pub tag: Reference,
    /// What scripts may use.
    pub limits: Limits,
    /// Whether the layer of an earlier build is used.
    pub cached: bool,
    /// Who asked for it.
    pub actor: String,
}

impl BaseBuild {
    fn packages(&self, machine: &str) -> Result<&[LockedPackage], BuildError> {
        match self.lock.packages.get(machine) {
            Some(packages) => Ok(packages),
            None if self.base.packages.is_empty() => Ok(&[]),
            None => Err(BuildError::Base { file: self.file.clone(), why: format!("its lock file has no packages for {machine}") }),
        }
    }

    fn epoch(&self) -> i64 {
        self.lock.epoch().unwrap_or(EPOCH)
    }
}

impl Builder<'_> {
    /// Builds it. Its packages are in the store.
    pub async fn base(&self, build: &BaseBuild) -> Result<ImageRecord, BuildError> {
        let lock = self.puller.content.enter()?;
        let machine = self.puller.platform.architecture.clone();
        let packages = build.packages(&machine)?;
        let key = layer_key(build, &machine, packages);
        let content = self.puller.content;
        let kept = if build.cached { cache::find(content, &key).flatten() } else { None };
        (self.tell)(&format!("{} packages{}", packages.len(), if kept.is_some() { "  (cached)" } else { "" }));
        let mut way = Vec::new();
        let layer = match kept {
            Some(layer) => layer,
            None => Box::pin(self.base_layer(build, &machine, packages, &mut way)).await?,
        };
        cache::keep(content, &key, Some(&layer))?;
        let record = self.base_image(build, &layer, build.tag.clone(), true)?;
        drop(lock);
        content.discard(&way)?;
        Ok(record)
    }

    /// `way` gets the layers that only led there.
    async fn base_layer(
        &self,
        build: &BaseBuild,
        machine: &str,
        packages: &[LockedPackage],
        way: &mut Vec<LayerRecord>,
    ) -> Result<NewLayer, BuildError> {
        let content = self.puller.content;
        let wrong = |why: String| BuildError::Base { file: build.file.clone(), why };
        let extras = Extras { base: &build.base, sources: &build.sources, os_release: build.lock.os_release() };
        let plain = if build.base.scripts { None } else { Some(&extras) };
        let lower = packages_layer(content, packages, machine, plain, build.epoch()).map_err(|error| wrong(error.to_string()))?;
        if !build.base.scripts {
            return Ok(lower);
        }
        (self.tell)("installing");
        let name = |what: &str| -> Result<Reference, BuildError> {
            format!("localhost/base-{what}:{}", lower.digest.short()).parse().map_err(|error| wrong(format!("{error}")))
        };
        let (unpacked, installed) = (name("unpacked")?, name("installed")?);
        self.base_image(build, &lower, unpacked.clone(), false)?;
        let made = Box::pin(self.install(build, packages, &unpacked, &installed)).await;
        let upper = made.as_ref().ok().and_then(|record| record.layers.last().cloned());
        way.extend(made.iter().flat_map(|record| record.layers.clone()));
        content.remove_record(&unpacked)?;
        content.remove_record(&installed)?;
        made?;
        let upper = upper.ok_or_else(|| wrong("its packages' scripts left nothing".into()))?;
        let upper = NewLayer { digest: upper.digest, size: upper.size };
        flatten(content, &lower, &upper, &extras, build.epoch()).map_err(|error| wrong(error.to_string()))
    }

    /// `dpkg`, in a sandbox of the image that holds all packages unpacked.
    async fn install(
        &self,
        build: &BaseBuild,
        packages: &[LockedPackage],
        unpacked: &Reference,
        installed: &Reference,
    ) -> Result<ImageRecord, BuildError> {
        let content = self.puller.content;
        let parent = content.directory("partial")?;
        let context = tempfile::Builder::new().prefix("base-").tempdir_in(&parent);
        let context = context.map_err(|source| ContentError::Io { path: parent.clone(), source })?;
        gather(&context.path().join("packages"), build, packages, |package| content.blob_path(&package.digest))
            .map_err(|source| ContentError::Io { path: context.path().to_owned(), source })?;
        let text = format!(
            "FROM {unpacked}\nRUN --network=none --mount=type=bind,source=packages,target=/run/packages <<'INSTALL'\n{INSTALL}INSTALL\n"
        );
        let dockerfile = Dockerfile::parse(&build.file, &text)?;
        let work = Build {
            dockerfile,
            file: build.file.clone(),
            context: context.path().to_owned(),
            tags: vec![installed.clone()],
            arguments: Variables::new(),
            target: None,
            secrets: BTreeMap::new(),
            network: NetworkLevel::Isolated,
            gate: None,
            limits: build.limits,
            cached: false,
            labels: BTreeMap::new(),
            epoch: build.epoch(),
            actor: build.actor.clone(),
        };
        self.build(&work).await
    }

    fn base_image(&self, build: &BaseBuild, layer: &NewLayer, reference: Reference, whole: bool) -> Result<ImageRecord, BuildError> {
        let base = &build.base;
        let mut env: Vec<String> = base.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if !base.env.contains_key("PATH") {
            env.insert(0, format!("PATH={}", cofferdam_trust::PATH_VALUE));
        }
        let config = RunConfig {
            env,
            user: base.user.clone(),
            working_dir: base.workdir.clone(),
            entrypoint: base.entrypoint.clone(),
            cmd: base.cmd.clone(),
            labels: base.labels.clone(),
            ..RunConfig::default()
        };
        let created = cofferdam_model::Timestamp::from_second(build.epoch()).unwrap_or_default().to_string();
        let history = History { created: Some(created.clone()), created_by: Some("base.yaml".into()), empty_layer: false };
        let how = format!("built from {} and its lock file", build.file);
        let image = NewImage {
            reference,
            created: Some(created),
            platform: self.puller.platform.clone(),
            layers: vec![layer.listed()],
            config: if whole { config } else { RunConfig::default() },
            history: vec![history],
            verified: Verification::local(Rule::Built, how, self.puller.now),
        };
        Ok(compose(&self.puller, image)?)
    }
}

/// Everything that the layer is made from.
fn layer_key(build: &BaseBuild, machine: &str, packages: &[LockedPackage]) -> cofferdam_model::image::Digest {
    let packages: Vec<String> = packages.iter().map(|package| package.digest.to_string()).collect();
    let sources: Vec<String> = build.sources.iter().map(|(name, bytes)| format!("{name} {}", sha256(bytes))).collect();
    let said = serde_json::json!({ "users": build.base.users, "files": build.base.files, "scripts": build.base.scripts }).to_string();
    let epoch = build.epoch().to_string();
    cache::key(&sha256(b"base"), &[WAY, machine, &packages.join("\n"), &sources.join("\n"), &said, &epoch, INSTALL])
}

/// Packages under names that sort, and the lines of the accounts.
fn gather(place: &Path, build: &BaseBuild, packages: &[LockedPackage], blob: impl Fn(&LockedPackage) -> PathBuf) -> std::io::Result<()> {
    std::fs::create_dir(place)?;
    for package in packages {
        std::fs::hard_link(blob(package), place.join(format!("{}.deb", package.name)))?;
    }
    let (passwd, group) = accounts(&build.base);
    std::fs::write(place.join("passwd"), passwd)?;
    std::fs::write(place.join("group"), group)
}
