//! A Harbor task directory as a task (`task.toml`, schema 1.4; <https://harborframework.com/docs/tasks>).
//!
//! What is not honoured is refused by name: a task that asks for two containers is not run with one.

mod file;

use super::{Carried, Cleanup, Command, Environment, Form, Harbor, LimitChanges, Metadata, Ready, Task, Verify, Version, Workspace};
use crate::{Bytes, Cpus, Difficulty, ImageRef, Name, NetworkLevel, Span};
use file::{Artifact, File, Health, Mode, Package, Place, VerifierMode};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What Harbor gives a task that says nothing: unbounded there, these here.
const CPUS_MILLIS: u32 = 1000;
const MEMORY_MIB: u64 = 2048;
const STORAGE_MIB: u64 = 10_240;
const AGENT_SECONDS: u64 = 7200;
const PIDS: u32 = 1024;
const MOST_SECONDS: f64 = 86_400.0 * 30.0;
const CONVENTION: &str = "/logs/artifacts";

/// What stands beside `task.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HarborFiles {
    /// The directory's own name.
    pub directory: String,
    /// The text of `instruction.md`.
    pub instruction: String,
    /// Whether there is `environment/Dockerfile`.
    pub dockerfile: bool,
    /// Whether there is `environment/docker-compose.yaml`, or one in `tests`.
    pub compose: bool,
    /// Whether there is `tests/Dockerfile`: the verifier's own image then.
    pub tests_dockerfile: bool,
    /// First line of `tests/test.sh`; None without the file.
    pub test_script: Option<String>,
    /// First line of `solution/solve.sh`; None without the file.
    pub solve_script: Option<String>,
    /// Whether there is `trajectory.json`, which an agent would begin with.
    pub trajectory: bool,
}

/// A Harbor directory that cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HarborError {
    /// It is not of the file's form.
    #[error("{source_name}:{line}:{column}: {message}")]
    Form {
        /// The file.
        source_name: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It asks for what is not honoured.
    #[error("{source_name}: {field} is not supported here: {why}")]
    Unsupported {
        /// The file.
        source_name: String,
        /// What asks for it.
        field: String,
        /// Why, and what to do.
        why: String,
    },
    /// A value that means nothing.
    #[error("{source_name}: {field}: {why}")]
    Value {
        /// The file.
        source_name: String,
        /// Where.
        field: String,
        /// What is wrong.
        why: String,
    },
}

/// A level and what it allows.
type Network = (NetworkLevel, Vec<String>);

impl Task {
    /// Reads a Harbor directory; `source_name` stands in errors.
    pub fn from_harbor(source_name: &str, text: &str, files: &HarborFiles) -> Result<Self, HarborError> {
        let file: File = toml::from_str(text).map_err(|error| form_error(source_name, text, &error))?;
        Reader { source_name, files }.task(file)
    }
}

fn form_error(source_name: &str, text: &str, error: &toml::de::Error) -> HarborError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(1, |rest| rest.chars().count() + 1);
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    HarborError::Form { source_name: source_name.to_owned(), line, column, message }
}

struct Reader<'a> {
    source_name: &'a str,
    files: &'a HarborFiles,
}

impl Reader<'_> {
    fn unsupported<T>(&self, field: &str, why: &str) -> Result<T, HarborError> {
        Err(HarborError::Unsupported { source_name: self.source_name.to_owned(), field: field.to_owned(), why: why.to_owned() })
    }

    fn value(&self, field: &str, why: impl ToString) -> HarborError {
        HarborError::Value { source_name: self.source_name.to_owned(), field: field.to_owned(), why: why.to_string() }
    }

    fn task(&self, file: File) -> Result<Task, HarborError> {
        self.refuse_whole(&file)?;
        let id = self.id(file.task.as_ref())?;
        let base = self.network("environment", &file.environment)?.unwrap_or((NetworkLevel::FullWeb, Vec::new()));
        let agent_network =
            self.phase("agent", file.agent.network_mode, file.agent.allowed_hosts.as_deref())?.unwrap_or_else(|| base.clone());
        let verifier_base = match &file.verifier.environment {
            Some(place) => self.network("verifier.environment", place)?.unwrap_or((NetworkLevel::FullWeb, Vec::new())),
            None => base,
        };
        let verify_network =
            self.phase("verifier", file.verifier.network_mode, file.verifier.allowed_hosts.as_deref())?.unwrap_or(verifier_base);
        let separate = match file.verifier.environment_mode {
            Some(mode) => mode == VerifierMode::Separate,
            None => file.verifier.environment.is_some(),
        };
        if !separate && file.verifier.environment.is_some() {
            return Err(self.value("verifier.environment", "environment_mode shared has no environment of its own"));
        }
        let form = self.form(&file, separate)?;
        let test = self.files.test_script.as_deref();
        if test.is_none() && form.verifier.is_none() {
            return Err(self.value("tests/test.sh", "it is not there; without tests there is no verdict"));
        }
        let difficulty = file.metadata.get("difficulty").and_then(toml::Value::as_str).and_then(|text| text.parse::<Difficulty>().ok());
        let limits = self.limits(&file.environment)?;
        let verify_limits = match &file.verifier.environment {
            Some(place) => self.limits(place)?,
            None => limits.clone(),
        };
        let agent_seconds = file.agent.timeout_sec.unwrap_or(AGENT_SECONDS as f64);
        let verify_seconds = file.verifier.timeout_sec.unwrap_or(600.0);
        Ok(Task {
            version: Version,
            id,
            instruction: self.files.instruction.clone(),
            difficulty: difficulty.unwrap_or_default(),
            image: ImageRef::Host,
            network: agent_network.0,
            allow: agent_network.1,
            policy: None,
            toolchains: Vec::new(),
            workspace: Workspace { src: None, tests: test.map(|_| PathBuf::from("tests")) },
            services: Vec::new(),
            agent: Some(Command { command: Vec::new(), env: BTreeMap::new(), user: file.agent.user.as_ref().map(ToString::to_string) }),
            verify: Verify {
                command: script(test.unwrap_or_default(), "/tests/test.sh"),
                fail_to_pass: Vec::new(),
                pass_to_pass: Vec::new(),
                network: verify_network.0,
                allow: verify_network.1,
                env: self.environment("verifier.env", &file.verifier.env)?,
                user: file.verifier.user.as_ref().map(ToString::to_string),
                limits: LimitChanges { timeout: Some(self.span("verifier.timeout_sec", verify_seconds)?), ..verify_limits },
            },
            solution: self.files.solve_script.as_deref().map(|first| Command {
                command: script(first, "/solution/solve.sh"),
                env: BTreeMap::new(),
                user: file.agent.user.as_ref().map(ToString::to_string),
            }),
            artifacts: self.artifacts(&file.artifacts)?,
            limits: LimitChanges { timeout: Some(self.span("agent.timeout_sec", agent_seconds)?), ..limits },
            cleanup: Cleanup::default(),
            metadata: metadata(&file),
            form: Form::Harbor(Box::new(form)),
        })
    }

    fn refuse_whole(&self, file: &File) -> Result<(), HarborError> {
        if let Some(version) = &file.schema_version
            && version.split('.').next() != Some("1")
        {
            return Err(self.value("schema_version", format!("{version} is not known; this release reads 1.x")));
        }
        if file.steps.as_ref().is_some_and(|steps| !steps.is_empty()) || file.multi_step_reward_strategy.is_some() {
            return self.unsupported("steps", "a task has one step here; split it into tasks");
        }
        if self.files.compose {
            return self
                .unsupported("docker-compose.yaml", "a task is one sandbox here; write the other containers as services of a task.yaml");
        }
        if self.files.trajectory {
            return self.unsupported("trajectory.json", "an agent begins without a prior context here");
        }
        if !file.verifier.collect.is_empty() {
            return self.unsupported("verifier.collect", "let tests/test.sh collect what it needs");
        }
        for (name, place) in [("environment", Some(&file.environment)), ("verifier.environment", file.verifier.environment.as_ref())] {
            let Some(place) = place else { continue };
            let field = |key: &str| format!("{name}.{key}");
            if place.os.as_deref().is_some_and(|os| !os.eq_ignore_ascii_case("linux")) {
                return self.unsupported(&field("os"), "only linux runs here");
            }
            if place.gpus.unwrap_or(0) > 0 || place.gpu_types.as_ref().is_some_and(|types| !types.is_empty()) {
                return self.unsupported(&field("gpus"), "sandboxes of this release have no GPU");
            }
            if place.tpu.is_some() {
                return self.unsupported(&field("tpu"), "sandboxes of this release have no TPU");
            }
            if !place.mcp_servers.is_empty() {
                return self.unsupported(&field("mcp_servers"), "agents are command lines here: let the command start them");
            }
            if place.skills_dir.is_some() {
                return self.unsupported(&field("skills_dir"), "agents are command lines here: let the command find its skills");
            }
        }
        Ok(())
    }

    fn id(&self, package: Option<&Package>) -> Result<Name, HarborError> {
        let whole = package.map_or(self.files.directory.as_str(), |package| package.name.rsplit('/').next().unwrap_or(&package.name));
        let mapped: String = whole.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
        mapped.trim_matches('-').parse().map_err(|error| self.value("task.name", error))
    }

    fn form(&self, file: &File, separate: bool) -> Result<Harbor, HarborError> {
        let own_tests = separate && self.files.tests_dockerfile;
        let verifier = match file.verifier.environment.as_ref().filter(|_| separate) {
            Some(place) if place.docker_image.is_some() => Some(self.environment_of(place, "environment", false)?),
            place if own_tests => Some(self.environment_of(place.unwrap_or(&Place::default()), "tests", true)?),
            _ => None,
        };
        let paths = self.artifacts(&file.artifacts)?.into_iter().chain([CONVENTION.to_owned()]);
        Ok(Harbor {
            environment: self.environment_of(&file.environment, "environment", self.files.dockerfile)?,
            workdir: file.environment.workdir.clone(),
            env: self.environment("environment.env", &file.environment.env)?,
            solution_env: self.environment("solution.env", &file.solution.env)?,
            carried: if separate { Carried::Paths(paths.collect()) } else { Carried::Everything },
            verifier,
            ready: file.environment.healthcheck.as_ref().map(|health| self.ready(health)).transpose()?,
        })
    }

    fn environment_of(&self, place: &Place, directory: &str, dockerfile: bool) -> Result<Environment, HarborError> {
        if let Some(image) = &place.docker_image {
            return Ok(Environment::Image(image.parse().map_err(|error| self.value("environment.docker_image", error))?));
        }
        if !dockerfile {
            return Err(self.value("environment", "it has neither a Dockerfile nor docker_image"));
        }
        let timeout = self.span("environment.build_timeout_sec", place.build_timeout_sec.unwrap_or(600.0))?;
        Ok(Environment::Dockerfile { directory: directory.into(), timeout })
    }

    fn ready(&self, health: &Health) -> Result<Ready, HarborError> {
        let interval = health.interval_sec.unwrap_or(5.0);
        let tries = f64::from(health.retries.unwrap_or(3).max(1));
        let whole = health.start_period_sec.unwrap_or(0.0) + tries * (interval + health.timeout_sec.unwrap_or(30.0));
        Ok(Ready {
            port: None,
            command: vec!["/bin/sh".into(), "-c".into(), health.command.clone()],
            interval: Some(self.span("environment.healthcheck.interval_sec", interval)?),
            timeout: Some(self.span("environment.healthcheck", whole)?),
        })
    }

    fn span(&self, field: &str, seconds: f64) -> Result<Span, HarborError> {
        let valid = seconds.is_finite() && seconds > 0.0 && seconds <= MOST_SECONDS;
        let span = if valid { Span::from_millis((seconds * 1000.0).ceil() as u64) } else { None };
        span.ok_or_else(|| self.value(field, format!("{seconds} is not a time above 0 and below 30 days")))
    }

    fn limits(&self, place: &Place) -> Result<LimitChanges, HarborError> {
        let size = |field: &str, mib: Option<u64>, text: Option<&str>, default: u64| {
            let from_text =
                text.map(|text| legacy_size(text).ok_or_else(|| self.value(field, format!("{text:?} is not a size such as 512M"))));
            let mib = match (mib, from_text.transpose()?) {
                (Some(a), Some(b)) if a != b => return Err(self.value(field, "it is given twice, and differs")),
                (a, b) => a.or(b).unwrap_or(default),
            };
            mib.checked_mul(1 << 20).and_then(Bytes::new).ok_or_else(|| self.value(field, "it is to be above 0"))
        };
        let cpus = match place.cpus {
            Some(cpus) if cpus.is_finite() && cpus > 0.0 && cpus < 1e6 => Cpus::from_millis((cpus * 1000.0) as u32),
            Some(_) => None,
            None => Cpus::from_millis(CPUS_MILLIS),
        };
        Ok(LimitChanges {
            memory: Some(size("environment.memory_mb", place.memory_mb, place.memory.as_deref(), MEMORY_MIB)?),
            cpus: Some(cpus.ok_or_else(|| self.value("environment.cpus", "it is to be above 0"))?),
            disk: Some(size("environment.storage_mb", place.storage_mb, place.storage.as_deref(), STORAGE_MIB)?),
            pids: Some(PIDS),
            timeout: None,
        })
    }

    fn network(&self, name: &str, place: &Place) -> Result<Option<Network>, HarborError> {
        let mode = match (place.network_mode, place.allow_internet) {
            (Some(mode), _) => Some(mode),
            (None, _) if place.allowed_hosts.is_some() => None,
            (None, Some(true)) => Some(Mode::Public),
            (None, Some(false)) => Some(Mode::NoNetwork),
            (None, None) => None,
        };
        self.phase(name, mode, place.allowed_hosts.as_deref())
    }

    fn phase(&self, name: &str, mode: Option<Mode>, hosts: Option<&[String]>) -> Result<Option<Network>, HarborError> {
        let field = format!("{name}.allowed_hosts");
        let hosts = hosts.unwrap_or_default();
        match mode {
            Some(Mode::Allowlist) => {
                if hosts.is_empty() {
                    // Nothing is allowed: nothing can be reached.
                    return Ok(Some((NetworkLevel::Isolated, Vec::new())));
                }
                let mut allow = Vec::new();
                for host in hosts {
                    let plain = host.trim().trim_end_matches('.').to_lowercase();
                    if plain.contains('/') || plain.parse::<std::net::IpAddr>().is_ok() {
                        return self.unsupported(&field, &format!("{host} is an address; a sandbox reaches names only"));
                    }
                    allow.extend([format!("{plain}:443"), format!("{plain}:80")]);
                }
                Ok(Some((NetworkLevel::LimitedWeb, allow)))
            }
            _ if !hosts.is_empty() => Err(self.value(&field, "it is valid with network_mode allowlist only")),
            Some(Mode::NoNetwork) => Ok(Some((NetworkLevel::Isolated, Vec::new()))),
            Some(Mode::Public) => Ok(Some((NetworkLevel::FullWeb, Vec::new()))),
            None => Ok(None),
        }
    }

    /// Values may name variables of the host: those are not handed into a sandbox, a default is.
    fn environment(&self, field: &str, env: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, HarborError> {
        let mut resolved = BTreeMap::new();
        for (key, value) in env {
            let variable = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let text = match variable.map(|inside| (inside, inside.split_once(":-"))) {
                None => value.clone(),
                Some((_, Some((_, default)))) => default.to_owned(),
                Some((inside, None)) => {
                    let why = format!(
                        "{key} asks for the host's variable {inside}, which is not handed into a sandbox; give it a default: ${{{inside}:-…}}"
                    );
                    return self.unsupported(field, &why);
                }
            };
            resolved.insert(key.clone(), text);
        }
        Ok(resolved)
    }

    fn artifacts(&self, list: &[Artifact]) -> Result<Vec<String>, HarborError> {
        let mut paths = Vec::new();
        for artifact in list {
            let source = match artifact {
                Artifact::Path(path) => path,
                Artifact::Entry(entry) => {
                    if entry.service.as_deref().is_some_and(|service| service != "main") {
                        return self.unsupported("artifacts.service", "a task is one sandbox here");
                    }
                    if !entry.exclude.is_empty() || entry.destination.is_some() {
                        return self.unsupported("artifacts.exclude", "artifacts keep their paths here, whole: name what is wanted");
                    }
                    &entry.source
                }
            };
            let normal = source.starts_with('/') && !source.trim_matches('/').is_empty() && !source.split('/').any(|part| part == "..");
            if !normal {
                return Err(self.value("artifacts", format!("{source:?} is to be an absolute path without ..")));
            }
            paths.push(source.clone());
        }
        Ok(paths)
    }
}

fn legacy_size(text: &str) -> Option<u64> {
    let text = text.trim().to_uppercase();
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "G" => 1024.0,
        "M" => 1.0,
        "K" => 1.0 / 1024.0,
        _ => return None,
    };
    Some((number * factor) as u64)
}

/// What runs a script: what its first line says, else `sh`. The file's own mode may not allow executing it.
fn script(first_line: &str, path: &str) -> Vec<String> {
    let words = first_line.strip_prefix("#!").map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let mut command = words.filter(|words| !words.is_empty()).unwrap_or_else(|| vec!["/bin/sh".into()]);
    command.push(path.to_owned());
    command
}

fn metadata(file: &File) -> Metadata {
    let text = |key: &str| file.metadata.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let mut tags = file.task.as_ref().map(|task| task.keywords.clone()).unwrap_or_default();
    let listed = file.metadata.get("tags").and_then(toml::Value::as_array);
    tags.extend(listed.into_iter().flatten().filter_map(|tag| tag.as_str().map(str::to_owned)));
    Metadata {
        repo: text("repo"),
        base_commit: text("base_commit"),
        version: file.task.as_ref().and_then(|task| task.version.clone()),
        language: text("language"),
        created_at: text("created_at"),
        tags,
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests;
