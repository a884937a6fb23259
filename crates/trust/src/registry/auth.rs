//! Who we are to a registry: credentials as `docker login` left them, and tokens for them.
//!
//! Files: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; then podman's `auth.json`. Credential helpers are programs
//! `docker-credential-NAME` that take the registry on stdin at `get`. Tokens: the distribution project's token specification.

use super::RegistryError;
use super::http::Http;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::image::HUB;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;

/// Docker Hub's name in credential files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const LARGEST_TOKEN: u64 = 1 << 20;
/// What helpers answer for a user when the password is a refresh token.
const TOKEN_USER: &str = "<token>";

/// Where credentials are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Files, first wins.
    pub files: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Who we are.
#[derive(Clone)]
struct Login {
    user: String,
    password: String,
}

impl Credentials {
    /// Those of the user who runs this.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = variable("HOME");
        let docker = variable("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let mut files: Vec<PathBuf> = docker.map(|directory| directory.join("config.json")).into_iter().collect();
        files.extend(variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")));
        files.extend(home.map(|home| home.join(".config/containers/auth.json")));
        Self { files }
    }

    fn login(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        let wrong = |why: String| RegistryError::Credentials { registry: registry.to_owned(), why };
        for path in &self.files {
            let Ok(bytes) = std::fs::read(path) else { continue };
            let file: File = serde_json::from_slice(&bytes).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            let key = if registry == HUB { HUB_KEY } else { registry };
            let helper = file.cred_helpers.get(registry).or_else(|| file.cred_helpers.get(key)).or(file.creds_store.as_ref());
            if let Some(helper) = helper
                && let Some(login) = ask_helper(helper, key).map_err(&wrong)?
            {
                return Ok(Some(login));
            }
            let spellings = [key.to_owned(), registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
            let entry = spellings.iter().find_map(|spelling| file.auths.get(spelling));
            if let Some(login) = entry.map(|auth| auth.login().map_err(&wrong)).transpose()?.flatten() {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl Auth {
    fn login(&self) -> Result<Option<Login>, String> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Login { user: TOKEN_USER.into(), password: token.clone() }));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Login { user: user.clone(), password: password.clone() }));
        }
        let Some(encoded) = self.auth.as_ref().filter(|encoded| !encoded.is_empty()) else { return Ok(None) };
        let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or("the entry is not base64 of user:password")?;
        Ok(Some(Login { user: pair.0.to_owned(), password: pair.1.trim_end_matches('\0').to_owned() }))
    }
}

/// None: it has none for this registry.
fn ask_helper(name: &str, registry: &str) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let started = Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("{program}: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read is one that fails: its status says so.
        let _ = input.write_all(registry.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let none = said.contains("credentials not found");
        return if none { Ok(None) } else { Err(format!("{program} failed: {}", said.trim().chars().take(200).collect::<String>())) };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|error| format!("{program}: {error}"))?;
    Ok(Some(Login { user: answer.username, password: answer.secret }))
}

/// What a registry is shown.
pub struct Tokens {
    registry: String,
    repository: String,
    credentials: Credentials,
    /// The header for pulling, and for pushing.
    headers: Mutex<[Option<String>; 2]>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({}/{})", self.registry, self.repository)
    }
}

impl Tokens {
    /// None yet.
    pub fn new(registry: &str, repository: &str, credentials: Credentials) -> Self {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Self { registry, repository, credentials, headers: Mutex::default() }
    }

    /// The header to send, if there is one yet.
    pub fn header(&self, push: bool) -> Option<String> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(push)].clone()
    }

    /// Gets what a challenge asks for.
    pub fn answer(&self, http: &Http, challenge: &str, push: bool) -> Result<(), RegistryError> {
        let login = self.credentials.login(&self.registry)?;
        let (scheme, parameters) = parse_challenge(challenge);
        let header = if scheme.eq_ignore_ascii_case("bearer") {
            let realm = parameters.get("realm").ok_or_else(|| self.wrong("its challenge names no token service".into()))?;
            let actions = if push { "pull,push" } else { "pull" };
            let scope = format!("repository:{}:{actions}", self.repository);
            let mut url = format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, escape(&scope));
            if let Some(service) = parameters.get("service") {
                url = format!("{url}&service={}", escape(service));
            }
            Some(format!("Bearer {}", self.token(http, &url, login.as_ref())?))
        } else if scheme.eq_ignore_ascii_case("basic") {
            login.as_ref().map(basic)
        } else {
            None
        };
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(push)] = header;
        Ok(())
    }

    fn token(&self, http: &Http, url: &str, login: Option<&Login>) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let authorization = login.map(|login| match login.user.as_str() {
            TOKEN_USER => format!("Bearer {}", login.password),
            _ => basic(login),
        });
        let response = http.foreign(url, authorization.as_deref())?;
        let status = response.status;
        if !(200..300).contains(&status) {
            let what = format!("a token for {}", self.repository);
            return Err(RegistryError::Unauthorized { registry: self.registry.clone(), what, status });
        }
        let mut bytes = Vec::new();
        response.into_reader().take(LARGEST_TOKEN).read_to_end(&mut bytes).map_err(|error| self.wrong(error.to_string()))?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| self.wrong(format!("the token service's answer: {error}")))?;
        answer.token.or(answer.access_token).ok_or_else(|| self.wrong("the token service's answer holds no token".into()))
    }

    fn wrong(&self, why: String) -> RegistryError {
        RegistryError::Credentials { registry: self.registry.clone(), why }
    }
}

fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password)))
}

/// `SCHEME key="value",key="value"` (RFC 9110, section 11.6.1), as registries write it.
fn parse_challenge(text: &str) -> (&str, BTreeMap<String, String>) {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut parameters = BTreeMap::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(key, value.to_owned());
        rest = left;
    }
    (scheme, parameters)
}

fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let text = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let (scheme, parameters) = parse_challenge(text);
        assert_eq!(scheme, "Bearer");
        assert_eq!(parameters["realm"], "https://auth.example/token");
        assert_eq!(parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(parse_challenge("Basic realm=x").1["realm"], "x");
        assert!(parse_challenge("").1.is_empty());
    }

    #[test]
    fn logins_are_found_as_docker_writes_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"},"r.example:5000":{"auth":"YTpiOmM="},"t.example":{"identitytoken":"tok"}}}"#;
        std::fs::write(&path, text).expect("written");
        let credentials = Credentials { files: vec![directory.path().join("none"), path.clone()] };
        let login = |registry: &str| credentials.login(registry).expect("readable").map(|login| (login.user, login.password));
        assert_eq!(login(HUB), Some(("user".into(), "pass".into())));
        assert_eq!(login("r.example:5000"), Some(("a".into(), "b:c".into())));
        assert_eq!(login("t.example"), Some((TOKEN_USER.into(), "tok".into())));
        assert_eq!(login("other.example"), None);
        std::fs::write(&path, "{").expect("written");
        assert!(credentials.login(HUB).is_err(), "a broken file is told, not passed over");
        std::fs::write(&path, r#"{"credsStore":"../../evil"}"#).expect("written");
        assert!(credentials.login(HUB).is_err());
    }
}
