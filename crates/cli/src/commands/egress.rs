//! From `--network`, `--allow`, `--deny` and `--policy` to a compiled policy.

use crate::args::RunArgs;
use crate::config;
use crate::exit::{FAILED, Failure};
use crate::registries;
use cofferdam_gate::protocol::Outside;
use cofferdam_gate::upstream::Upstream;
use cofferdam_lifecycle::gating::{GateRequest, PolicySource};
use cofferdam_model::{NetworkLevel, Task};
use cofferdam_policy::egress::{Allow, Deny, Policy, PolicyFile, Presets, Source};
use std::path::Path;
use std::sync::Arc;

/// What was asked for.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The level, if one was named.
    pub network: Option<NetworkLevel>,
    /// Entries to allow.
    pub allow: &'a [String],
    /// Entries to deny.
    pub deny: &'a [String],
    /// A policy file.
    pub policy: Option<&'a Path>,
}

impl<'a> Wanted<'a> {
    /// From the arguments of `run`.
    pub fn of(arguments: &'a RunArgs) -> Self {
        let network = if arguments.learn { Some(NetworkLevel::FullWeb) } else { arguments.network };
        Self { network, allow: &arguments.allow, deny: &arguments.deny, policy: arguments.policy.as_deref() }
    }

    /// The level, and what the gate is to be told; None for a network that is isolated.
    pub fn compile(&self) -> Result<(NetworkLevel, Option<GateRequest>), Failure> {
        let named = self.policy.is_some() || !self.allow.is_empty() || !self.deny.is_empty();
        if !named && self.network.unwrap_or_default() == NetworkLevel::Isolated {
            return Ok((NetworkLevel::Isolated, None));
        }
        let mut source = match self.policy {
            Some(path) => read(path)?.source().clone(),
            None => Source::default(),
        };
        let default = if self.policy.is_none() && !self.allow.is_empty() { NetworkLevel::LimitedWeb } else { source.level };
        source.level = self.network.unwrap_or(default);
        for text in self.allow {
            source.allow.push(text.parse::<Allow>().map_err(|error| Failure::usage(format!("--allow {error}")))?);
        }
        for text in self.deny {
            source.deny.push(text.parse::<Deny>().map_err(|error| Failure::usage(format!("--deny {error}")))?);
        }
        let presets = presets()?;
        let (policy, warnings) = source.compile(&presets).map_err(|error| match self.policy {
            // A file that is wrong by itself is shown with its line.
            Some(path) => match read(path).and_then(|file| file.compile(&presets).map_err(|e| meaning(&e))) {
                Err(failure) => failure,
                Ok(_) => Failure::new(FAILED, "policy", error.to_string()),
            },
            None => Failure::new(FAILED, "policy", error.to_string()),
        })?;
        for warning in warnings {
            crate::output::note!("cofferdam: warning: {warning}");
        }
        if source.level == NetworkLevel::Isolated {
            return Ok((source.level, None));
        }
        let file = self.policy.map(|path| self.follow(path)).transpose()?;
        Ok((source.level, Some(GateRequest { policy, outside: outside()?, program: std::env::current_exe()?, file })))
    }

    /// The policy file, to be compiled with the same flags again when it changes.
    fn follow(&self, path: &Path) -> Result<PolicySource, Failure> {
        let path = std::path::absolute(path)?;
        let (network, allow, deny, file) = (self.network, self.allow.to_vec(), self.deny.to_vec(), path.clone());
        let compile = move || {
            let wanted = Wanted { network, allow: &allow, deny: &deny, policy: Some(&file) };
            let compiled = wanted.compile().map_err(|failure| failure.message().clone());
            match &compiled {
                Ok(_) => crate::output::note!("cofferdam: {} has changed, and is in force", file.display()),
                Err(why) => crate::output::note!("cofferdam: {} has changed; the old policy stays in force: {why}", file.display()),
            }
            compiled.map(|(_, gate)| gate.map_or_else(Policy::deny_all, |gate| gate.policy))
        };
        Ok(PolicySource { path, compile: Arc::new(compile) })
    }
}

/// A task's file whose list of destinations is followed as it changes.
pub fn follow_task(file: &Path) -> Result<PolicySource, Failure> {
    let path = std::path::absolute(file)?;
    let (file, name) = (path.clone(), path.display().to_string());
    let compile = move || {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
        compile_task(&name, &text).map_err(|failure| failure.message())
    };
    Ok(PolicySource { path, compile: Arc::new(compile) })
}

/// What a task's file permits its agent.
pub fn compile_task(name: &str, text: &str) -> Result<Policy, Failure> {
    let task = Task::parse(name, text).map_err(|error| Failure::new(FAILED, "task", error.to_string()))?;
    let wanted = Wanted { network: Some(task.network), allow: &task.allow, ..Wanted::default() };
    Ok(wanted.compile()?.1.map_or_else(Policy::deny_all, |gate| gate.policy))
}

/// How this host reaches what is outside: the proxy that the environment names, and the name servers of the operator's configuration.
fn outside() -> Result<Outside, Failure> {
    Ok(Outside { upstream: upstream()?, resolver: config::resolver(&config::load()?)?, host: None })
}

/// The proxy that this host's environment names.
fn upstream() -> Result<Option<Upstream>, Failure> {
    let named = ["HTTPS_PROXY", "https_proxy"].iter().find_map(|name| std::env::var(name).ok()).filter(|text| !text.is_empty());
    named.map(|text| text.parse::<Upstream>().map_err(|error| Failure::usage(format!("HTTPS_PROXY: {error}")))).transpose()
}

fn meaning(error: &cofferdam_policy::egress::PolicyFileError) -> Failure {
    Failure::new(FAILED, "policy", error.to_string())
}

/// Presets of the product and of this host.
pub fn presets() -> Result<Presets, Failure> {
    Ok(Presets::with_packages(registries::configured(&config::load()?.registries)))
}

/// Reads a policy file.
pub fn read(path: &Path) -> Result<PolicyFile, Failure> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(FAILED, "policy", format!("{shown}: {error}")))?;
    PolicyFile::parse(&shown, &text).map_err(|error| meaning(&error))
}

/// Reads and compiles a policy file.
pub fn compile_file(path: &Path) -> Result<(Policy, Vec<String>), Failure> {
    read(path)?.compile(&presets()?).map_err(|error| meaning(&error))
}
