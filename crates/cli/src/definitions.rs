//! Definitions of images: a directory with `base.yaml` and `lock.json`, a `Dockerfile`, or both. Those of the project are part of the binary.

use crate::exit::{FAILED, Failure};
use cofferdam_model::image::{Base, Reference};
use cofferdam_trust::debian::Lock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a project keeps its own.
const DIRECTORY: &str = "images";

/// The text of a definition's file.
macro_rules! file {
    ($name:literal, $file:literal) => {
        ($file, include_str!(concat!("../../../images/", $name, "/", $file)))
    };
}

/// Those of the project: name, and files.
const OWN: &[(&str, &[(&str, &str)])] = &[
    (
        "desktop",
        &[file!("desktop", "base.yaml"), file!("desktop", "lock.json"), file!("desktop", "Dockerfile"), file!("desktop", "desktop.sh")],
    ),
    ("gate", &[file!("gate", "base.yaml"), file!("gate", "lock.json"), file!("gate", "Dockerfile")]),
    ("multi", &[file!("multi", "base.yaml"), file!("multi", "lock.json"), file!("multi", "Dockerfile")]),
    ("node", &[file!("node", "base.yaml"), file!("node", "lock.json"), file!("node", "Dockerfile")]),
    ("python", &[file!("python", "base.yaml"), file!("python", "lock.json"), file!("python", "Dockerfile")]),
    ("rust", &[file!("rust", "base.yaml"), file!("rust", "lock.json"), file!("rust", "Dockerfile")]),
    ("sandbox", &[file!("sandbox", "base.yaml"), file!("sandbox", "lock.json")]),
    ("server", &[file!("server", "base.yaml"), file!("server", "lock.json"), file!("server", "Dockerfile")]),
    ("web", &[file!("web", "base.yaml"), file!("web", "lock.json"), file!("web", "Caddyfile")]),
];

/// A definition, in a directory.
pub struct Definition {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called; a directory that is built as it stands has none.
    pub name: Option<String>,
    /// Removed when it goes out of use: what came from the binary.
    kept: Option<tempfile::TempDir>,
}

impl Definition {
    /// By what the user said: a directory, or a name.
    pub fn find(said: &Path) -> Result<Self, Failure> {
        if said.is_dir() {
            let whole = said.canonicalize()?;
            let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
            return Ok(Self { path: said.to_owned(), name: name.filter(|_| said.join("base.yaml").is_file()), kept: None });
        }
        let name = said.to_string_lossy().into_owned();
        let here = Path::new(DIRECTORY).join(said);
        if !name.contains('/') && here.is_dir() {
            return Ok(Self { path: here, name: Some(name), kept: None });
        }
        let Some((name, files)) = OWN.iter().find(|(own, _)| *own == name) else {
            let known: Vec<&str> = OWN.iter().map(|(name, _)| *name).collect();
            let message = format!("{name}: no such directory, and no definition of that name");
            return Err(Failure::new(FAILED, "not_found", message)
                .remedy(format!("name a directory with a Dockerfile or base.yaml, or one of {}", known.join(", "))));
        };
        let kept = tempfile::Builder::new().prefix("cofferdam-image-").tempdir()?;
        for (file, text) in *files {
            std::fs::write(kept.path().join(file), text)?;
        }
        Ok(Self { path: kept.path().to_owned(), name: Some((*name).to_owned()), kept: Some(kept) })
    }

    /// Whether it came from the binary.
    pub const fn is_own(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether it says what the image is made of.
    pub fn has_base(&self) -> bool {
        self.path.join("base.yaml").is_file()
    }

    /// Whether something is built on the base.
    pub fn has_dockerfile(&self) -> bool {
        self.path.join("Dockerfile").is_file()
    }

    /// What messages call one of its files.
    pub fn shown(&self, file: &str) -> String {
        match (&self.kept, &self.name) {
            (Some(_), Some(name)) => format!("{DIRECTORY}/{name}/{file}"),
            _ => self.path.join(file).display().to_string(),
        }
    }

    /// What the image is called that nobody gave a name; of the base, if something is built on it.
    pub fn tag(&self, suffix: &str) -> Result<Reference, Failure> {
        let name = self.name.clone().unwrap_or_else(|| "build".into()).to_ascii_lowercase();
        format!("localhost/{name}{suffix}:latest").parse().map_err(|error| Failure::usage(format!("{error}")))
    }

    /// Its base.
    pub fn base(&self) -> Result<Base, Failure> {
        Base::parse(&self.shown("base.yaml"), &self.read("base.yaml")?).map_err(|error| wrong(error.to_string()))
    }

    /// Its lock file; a base without packages needs none.
    pub fn lock(&self, base: &Base) -> Result<Lock, Failure> {
        let shown = self.shown("lock.json");
        if !self.path.join("lock.json").exists() {
            if base.packages.is_empty() {
                return Ok(Lock::empty(base));
            }
            let target = self.name.clone().unwrap_or_else(|| self.path.display().to_string());
            return Err(wrong(format!("{shown} is not there")).remedy(format!("make it: cofferdam image lock --update {target}")));
        }
        Lock::parse(&shown, &self.read("lock.json")?, base).map_err(|error| wrong(error.to_string()))
    }

    /// Contents of the base's `source` files.
    pub fn sources(&self, base: &Base) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let mut sources = BTreeMap::new();
        for name in base.files.iter().filter_map(|file| file.source.as_ref()) {
            let path = self.path.join(name);
            let bytes = std::fs::read(&path).map_err(|error| wrong(format!("{}: {error}", self.shown(name))))?;
            sources.insert(name.clone(), bytes);
        }
        Ok(sources)
    }

    fn read(&self, file: &str) -> Result<String, Failure> {
        std::fs::read_to_string(self.path.join(file)).map_err(|error| wrong(format!("{}: {error}", self.shown(file))))
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(FAILED, "definition", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_the_project_are_whole() {
        for (name, _) in OWN {
            let definition = Definition::find(Path::new(name)).map_err(|failure| failure.message()).expect(name);
            let base = definition.base().map_err(|failure| failure.message()).expect(name);
            let lock = definition.lock(&base).map_err(|failure| failure.message()).expect(name);
            definition.sources(&base).map_err(|failure| failure.message()).expect(name);
            for architecture in cofferdam_trust::debian::ARCHITECTURES.iter().filter(|_| !base.packages.is_empty()) {
                let packages = &lock.packages[*architecture];
                for wanted in &base.packages {
                    let wanted = wanted.split('=').next().unwrap_or(wanted);
                    assert!(packages.iter().any(|package| package.name == wanted), "{name}: {architecture}: {wanted}");
                }
            }
            if definition.has_dockerfile() {
                let text = definition.read("Dockerfile").map_err(|failure| failure.message()).expect(name);
                cofferdam_trust::dockerfile::Dockerfile::parse(name, &text).expect(name);
            }
        }
        assert!(Definition::find(Path::new("no-such")).is_err());
    }
}
