//! From what was typed to what is run.

use crate::args::RunArgs;
use crate::commands::egress::Wanted;
use crate::commands::mounts::{MEMORY, Mounts};
use crate::config;
use crate::context::{Context, actor};
use crate::engines::require;
use crate::exit::{FAILED, Failure};
use crate::host::{Machine, home};
use crate::toolchain;
use cofferdam_engine::{Capabilities, Directory, MountSource, View};
use cofferdam_lifecycle::publish::Publish;
use cofferdam_lifecycle::supervisor::{LOG_BYTES, Request, Streams};
use cofferdam_model::task::LimitChanges;
use cofferdam_model::{Limits, SandboxId};
use cofferdam_trust::{RunConfig, User, VerifiedImage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Builds the request. `streams` is filled in by the caller.
pub fn build(context: &Context, arguments: &RunArgs, capabilities: &Capabilities, id: SandboxId) -> Result<Request, Failure> {
    require(arguments.require.iter(), capabilities)?;
    let mut image = crate::images::start_from(context, &arguments.image, &arguments.trust)?;
    let mut environment = BTreeMap::new();
    for name in &arguments.toolchains {
        let (toolchain, variables) = toolchain::find(name)?;
        image.add_toolchain(&toolchain);
        environment.extend(variables);
    }
    let user = image.user(arguments.user.as_deref())?;
    image_environment(&image, &mut environment);
    base_environment(&image, &user, &mut environment);
    let mounts = Mounts::of(context, arguments, &user)?;
    if arguments.memory_volume.is_some() {
        environment.insert("MEMORY_DIR".into(), MEMORY.into());
    }
    user_environment(arguments, &mut environment)?;
    let own = Some(image.config().working_dir.clone()).filter(|directory| !directory.is_empty());
    let repository = arguments.repo.as_ref().map(|_| REPOSITORY.to_owned());
    let directory = arguments.workdir.clone().or(repository).or(own).unwrap_or_else(|| "/workspace".to_owned());
    if !directory.starts_with('/') {
        return Err(Failure::usage(format!("--workdir {directory}: an absolute path inside the sandbox is wanted")));
    }
    let (network, gate) = Wanted::of(arguments).compile()?;
    Ok(Request {
        id,
        name: arguments.name.clone(),
        kept: !arguments.rm && (arguments.keep || arguments.detach || arguments.name.is_some() || arguments.repo.is_some()),
        actor: actor(),
        image_name: arguments.image.clone(),
        command: command(arguments, image.config())?,
        environment: environment.into_iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
        directories: if image.has_directory(Path::new(&directory)) { Vec::new() } else { made_directories(&directory, &user) },
        directory,
        limits: limits(arguments)?,
        network,
        gate,
        publish: arguments.publish.iter().map(|text| publish(text)).collect::<Result<_, _>>()?,
        mounts: mounts.mounts,
        volumes: mounts.volumes,
        view: view(context, arguments)?,
        files: Vec::new(),
        labels: arguments.labels.iter().cloned().collect(),
        log_bytes: LOG_BYTES,
        streams: Streams::detached(),
        health: None,
        kept_for: None,
        unplugged: BTreeSet::new(),
        bare: false,
        user,
        image,
    })
}

/// As Docker puts it together: the image's entry point stands before what is said, its command where nothing is said; another entry
/// point takes away both.
fn command(arguments: &RunArgs, config: &RunConfig) -> Result<Vec<Vec<u8>>, Failure> {
    let words: Vec<String> = match (&arguments.entrypoint, arguments.command.is_empty()) {
        (Some(entrypoint), _) => std::iter::once(entrypoint).filter(|word| !word.is_empty()).chain(&arguments.command).cloned().collect(),
        (None, true) => config.entrypoint.iter().chain(&config.cmd).cloned().collect(),
        (None, false) => config.entrypoint.iter().chain(&arguments.command).cloned().collect(),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(Failure::usage("no command").remedy("name one: cofferdam run -- CMD [ARG...]"));
    }
    Ok(words.into_iter().map(String::into_bytes).collect())
}

/// The working directory is made if it does not exist; `/workspace` is there already.
fn made_directories(directory: &str, user: &User) -> Vec<Directory> {
    let plain = !directory.split('/').any(|part| part == "..") && directory != "/";
    let system = ["/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/tmp", "/workspace"];
    let inside_system = system.iter().any(|root| Path::new(directory).starts_with(root));
    if plain && !inside_system && directory != user.home {
        vec![Directory { path: directory.into(), mode: 0o755, owner: (user.uid, user.gid) }]
    } else {
        Vec::new()
    }
}

/// What the image says, where nothing else does.
pub fn image_environment(image: &VerifiedImage, environment: &mut BTreeMap<String, String>) {
    for (key, value) in image.config().env.iter().filter_map(|entry| entry.split_once('=')) {
        environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// What every process gets.
pub fn base_environment(image: &VerifiedImage, user: &User, environment: &mut BTreeMap<String, String>) {
    let defaults = [("PATH", image.path_value()), ("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name), ("LANG", "C.UTF-8")];
    for (key, value) in defaults {
        environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
}

fn user_environment(arguments: &RunArgs, environment: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    for path in &arguments.env_file {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::new(FAILED, "io", format!("--env-file {}: {error}", path.display())))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            add_variable(line, environment)?;
        }
    }
    arguments.env.iter().try_for_each(|entry| add_variable(entry, environment))
}

/// `K=V`, or `K` for the caller's own value.
pub fn add_variable(entry: &str, environment: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    let (key, value) = match entry.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (entry, std::env::var(entry).ok()),
    };
    if key.is_empty() || key.contains('\0') {
        return Err(Failure::usage(format!("environment entry {entry:?}: KEY=VALUE is wanted")));
    }
    if let Some(value) = value {
        environment.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Explicit limits win over the difficulty's; what the machine has not is refused by name.
fn limits(arguments: &RunArgs) -> Result<Limits, Failure> {
    let machine = Machine::read();
    let config = config::load()?;
    let defaults = || config.bound(machine.defaults());
    let mut base = arguments.difficulty.map_or_else(defaults, cofferdam_model::Difficulty::limits);
    if base.cpus > machine.cpus {
        crate::output::note!("cofferdam: note: {} CPUs of the difficulty are clamped to the machine's {}", base.cpus, machine.cpus);
        base.cpus = machine.cpus;
    }
    let changes = LimitChanges {
        memory: arguments.memory,
        cpus: arguments.cpus,
        disk: arguments.disk,
        pids: arguments.pids,
        timeout: arguments.timeout,
    };
    let limits = changes.over(base);
    crate::config::check(&config, &limits)?;
    check_against_machine(&limits, machine)?;
    Ok(limits)
}

/// Memory is never clamped; CPUs asked for by flag neither.
pub fn check_against_machine(limits: &Limits, machine: Machine) -> Result<(), Failure> {
    const SMALLEST_MEMORY: u64 = 4 << 20;
    if limits.memory > machine.memory {
        let message = format!("memory limit {} is above this machine's {}", limits.memory, machine.memory);
        return Err(Failure::new(FAILED, "limit", message).remedy("ask for less"));
    }
    if limits.memory.get() < SMALLEST_MEMORY {
        return Err(Failure::new(FAILED, "limit", format!("memory limit {} is too small to start a process", limits.memory))
            .remedy("give it 4MiB at least"));
    }
    if limits.cpus > machine.cpus {
        let message = format!("CPU limit {} is above this machine's {}", limits.cpus, machine.cpus);
        return Err(Failure::new(FAILED, "limit", message).remedy("ask for less"));
    }
    Ok(())
}

/// `[ADDRESS:]PORT:PORT`: the host's, then the sandbox's. Only loopback addresses: who wants more puts a proxy in front.
fn publish(text: &str) -> Result<Publish, Failure> {
    let wrong = || Failure::usage(format!("--publish {text}: PORT:PORT or ADDRESS:PORT:PORT is wanted, such as 8080:80"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host_port) = host.rsplit_once(':').unwrap_or(("127.0.0.1", host));
    let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong())?;
    if !address.is_loopback() {
        let message = format!("--publish {text}: {address} is no loopback address");
        return Err(Failure::usage(message).remedy("publish at 127.0.0.1 and put a proxy of yours in front"));
    }
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (host_port, port) = (number(host_port)?, number(port)?);
    if port == 0 {
        return Err(wrong());
    }
    Ok(Publish { host: SocketAddr::from((address, host_port)), port })
}

/// Where a repository is inside.
pub const REPOSITORY: &str = "/workspace/repo";

fn view(context: &Context, arguments: &RunArgs) -> Result<Option<View>, Failure> {
    let open = |path: &PathBuf| {
        let source = MountSource::open(path, home().as_deref(), context.data.path())?;
        if !source.is_directory() {
            return Err(Failure::usage(format!("--repo {}: a directory is wanted", path.display())));
        }
        Ok(View { source, target: REPOSITORY.into() })
    };
    arguments.repo.as_ref().map(open).transpose()
}
