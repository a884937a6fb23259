//! Contexts of the command `docker`: names for daemons, kept in files of the user's. Format: the package `cli/context/store` of the
//! command's source.

use cofferdam_engine::EngineError;
use cofferdam_trust::content::sha256;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The context that the environment describes.
const DEFAULT: &str = "default";

/// A daemon that a context names.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// Its address; empty is the system's socket.
    pub host: String,
    /// Where `ca.pem`, `cert.pem` and `key.pem` are, if there are any.
    pub certificates: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default, rename = "currentContext")]
    current_context: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: String,
    #[serde(rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// The daemon of the context in use, unless that is the default one. `chosen`: by `DOCKER_CONTEXT`. `directory`: of the command's files (`DOCKER_CONFIG`).
pub fn in_use(chosen: Option<String>, directory: &Path) -> Result<Option<Named>, EngineError> {
    let current = || {
        let text = fs::read(directory.join("config.json")).ok()?;
        Some(serde_json::from_slice::<Config>(&text).ok()?.current_context)
    };
    let name = chosen.or_else(current).filter(|name| !name.is_empty() && name != DEFAULT);
    name.map(|name| named(&name, directory)).transpose()
}

fn named(name: &str, directory: &Path) -> Result<Named, EngineError> {
    let refused = |why: String, remedy: &str| {
        Err(EngineError::Unsupported { what: format!("the context {name} of the command docker"), why, remedy: remedy.into() })
    };
    let contexts = directory.join("contexts");
    let digest = sha256(name.as_bytes());
    let id = digest.hex();
    let path = contexts.join("meta").join(id).join("meta.json");
    let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<Meta>(&text)?));
    let meta = match read {
        Ok(meta) => meta,
        Err(error) => return refused(format!("{}: {error}", path.display()), "see docker context ls, or name the daemon in DOCKER_HOST"),
    };
    let endpoint = meta.endpoints.docker.unwrap_or_default();
    if endpoint.skip_tls_verify {
        return refused("it says that its daemon is not to be verified".into(), "make it anew without skip-tls-verify");
    }
    let certificates = contexts.join("tls").join(id).join("docker");
    Ok(Named { host: endpoint.host, certificates: certificates.is_dir().then_some(certificates) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_use_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("one")).expect("made");
            fs::write(path, text).expect("written");
        };
        let chosen = |name: &str| in_use(Some(name.to_owned()), directory.path());
        assert_eq!(in_use(None, directory.path()).expect("none"), None, "no file at all");
        // The names of the directories are those that the command makes: printf NAME | sha256sum
        assert_eq!(sha256(b"there").hex(), "e244f187f696561d5fd7e00f618e7ba641dc52e3c137380f6fa23a854b773aac");
        let of = |name: &str, file: &str| format!("contexts/{}", file.replace("ID", sha256(name.as_bytes()).hex()));
        write("config.json", "{\"auths\": {}, \"currentContext\": \"there\"}");
        write(
            &of("there", "meta/ID/meta.json"),
            "{\"Name\":\"there\",\"Metadata\":{},\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\",\"SkipTLSVerify\":false}}}",
        );
        write(&of("tls", "meta/ID/meta.json"), "{\"Name\":\"tls\",\"Endpoints\":{\"docker\":{\"Host\":\"tcp://127.0.0.1:1\"}}}");
        write(&of("tls", "tls/ID/docker/ca.pem"), "");
        write(
            &of("loose", "meta/ID/meta.json"),
            "{\"Name\":\"loose\",\"Endpoints\":{\"docker\":{\"Host\":\"tcp://127.0.0.1:1\",\"SkipTLSVerify\":true}}}",
        );
        let there = Some(Named { host: "unix:///x".into(), certificates: None });
        assert_eq!(in_use(None, directory.path()).expect("there"), there);
        assert_eq!(chosen("there").expect("there"), there);
        assert_eq!(chosen("default").expect("the environment's"), None);
        let tls = chosen("tls").expect("there").expect("one");
        assert!(tls.certificates.is_some_and(|place| place.join("ca.pem").exists()), "{}", tls.host);
        for (name, word) in [("none", "docker context ls"), ("loose", "not to be verified")] {
            let error = chosen(name).expect_err(name).to_string();
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
    }
}
