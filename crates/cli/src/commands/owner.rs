//! `cofferdam run --owner`: commands of one owner in a sandbox that is kept for them, and `cofferdam release`.
//!
//! A sandbox is found by a key of its owner and everything that makes it what it is, so two owners never share one, and neither do two ways to
//! see the same files. Who makes one holds a lock: of several that come at once, one makes it and the others use it.

use crate::args::{Global, Lifecycle, ReleaseArgs, RunArgs};
use crate::commands::{exec, monitor, request};
use crate::config;
use crate::context::{Context, random};
use crate::exit::{FAILED_TO_RUN, Failure};
use crate::terminal;
use cofferdam_lifecycle::control::{Client, ClientError, Exec, Request as Asked};
use cofferdam_lifecycle::supervisor::{Kept, Request};
use cofferdam_model::config::Config;
use cofferdam_model::{Limits, SandboxId, SandboxRecord};
use cofferdam_sys::lock;
use cofferdam_trust::content::sha256;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

/// Labels of a sandbox that is kept; no user can give such ones.
const OWNER: &str = "cofferdam.owner";
const LIFECYCLE: &str = "cofferdam.lifecycle";
const KEY: &str = "cofferdam.kept";
const LOCKS: &str = "kept";
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Each time a sandbox may end between being found and being used.
const TRIES: u32 = 5;

/// Runs a command in the owner's sandbox, which is made if there is none.
pub fn run(global: Global, arguments: &RunArgs) -> Result<ExitCode, Failure> {
    check(arguments)?;
    crate::images::ensure(&global, &arguments.image, &arguments.trust)?;
    let context = Context::open(global)?;
    let engine = context.engine_named(arguments.engine, None, true)?;
    context.say_unenforced(&*engine)?;
    let wanted = request::build(&context, arguments, &engine.capabilities(), SandboxId::from_random(random()))?;
    let key = key(arguments, &wanted, engine.capabilities().name, &config::load()?);
    let interactive = arguments.tty || terminal::is_interactive();
    let text = |words: Vec<Vec<u8>>| words.into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect();
    let asked = Asked::Exec(Exec {
        command: text(wanted.command),
        environment: text(wanted.environment),
        directory: Some(wanted.directory),
        user: arguments.user.clone(),
        terminal: interactive.then(terminal::size),
        timeout_ms: arguments.timeout.map(cofferdam_model::Span::millis),
    });
    // A volume is held by those that may use it: that is the sandbox.
    drop(wanted.mounts);
    let (record, held) = acquire(&context, &key)?;
    let done = exec::perform(&context.connect(&record)?, &asked, interactive);
    drop(held);
    done
}

/// What one command would have and the next could not.
fn check(arguments: &RunArgs) -> Result<(), Failure> {
    let given = [
        ("--detach", arguments.detach),
        ("--name", arguments.name.is_some()),
        ("--repo", arguments.repo.is_some()),
        ("--rm", arguments.rm),
        ("--keep", arguments.keep),
        ("--artifact", !arguments.artifacts.is_empty()),
        ("--learn", arguments.learn),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(Failure::usage(format!("{name}: a sandbox that is kept for an owner has none of it")).remedy("leave --owner out"))
        }
        None => Ok(()),
    }
}

/// What makes the sandbox: everything but the command, its environment, directory and time limit.
fn key(arguments: &RunArgs, wanted: &Request, engine: &str, config: &Config) -> String {
    // A tree in another's place is another tree.
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|found| (found.st_dev, found.st_ino)).ok();
    let mounts: Vec<_> = wanted.mounts.iter().map(|mount| (inode(mount.source.fd()), &mount.target, mount.writable)).collect();
    // A file is followed as it changes: what it says at the moment makes no other sandbox.
    let file = wanted.gate.as_ref().and_then(|gate| gate.file.as_ref()).map(|file| &file.path);
    let policy = wanted.gate.as_ref().filter(|_| file.is_none()).map(|gate| &gate.policy);
    let labels: BTreeMap<_, _> = wanted.labels.iter().filter(|(name, _)| !name.starts_with("cofferdam.")).collect();
    let whole = serde_json::json!({
        "owner": arguments.owner,
        "lifecycle": arguments.lifecycle().name(),
        "engine": engine,
        "docker": (engine == "docker").then_some(&config.docker),
        "image": wanted.image.identity(),
        "toolchains": arguments.toolchains,
        "user": (wanted.user.uid, wanted.user.gid),
        "limits": Limits { timeout: None, ..wanted.limits },
        "network": wanted.network,
        "policy": policy,
        "policy_file": (file, &arguments.allow, &arguments.deny),
        "mounts": mounts,
        "volumes": wanted.volumes,
        "publish": arguments.publish,
        "labels": labels,
    });
    sha256(whole.to_string().as_bytes()).hex().to_owned()
}

/// What the monitor of a kept sandbox runs: nothing, with no environment of anybody's command.
pub fn keep(arguments: &RunArgs, wanted: &mut Request, engine: &str) -> Result<(), Failure> {
    let Some(owner) = &arguments.owner else { return Ok(()) };
    let lifecycle = arguments.lifecycle();
    let config = config::load()?;
    let idle = (lifecycle == Lifecycle::Agent).then_some(config.lifecycle.idle.duration());
    let key = key(arguments, wanted, engine, &config);
    let labels = [(OWNER, owner.to_string()), (LIFECYCLE, lifecycle.name().to_owned()), (KEY, key)];
    wanted.labels.extend(labels.map(|(name, value)| (name.to_owned(), value)));
    wanted.kept_for = Some(Kept { idle });
    wanted.command = Vec::new();
    wanted.kept = false;
    Ok(())
}

/// The sandbox with this key, in use until what comes with it is dropped.
fn acquire(context: &Context, key: &str) -> Result<(SandboxRecord, Client), Failure> {
    for _ in 0..TRIES {
        let lock = wait_for_lock(context, key)?;
        if let Some(found) = find(context, key)? {
            return Ok(found);
        }
        let (id, _) = monitor::start()?;
        let record = context.store()?.sandbox_get(id)?;
        drop(lock);
        if let Some(record) = record
            && let Some(held) = begin_use(context, &record)?
        {
            return Ok((record, held));
        }
    }
    Err(Failure::new(FAILED_TO_RUN, "not_kept", "the sandbox ends as soon as it is made: see cofferdam events".to_owned()))
}

fn wait_for_lock(context: &Context, key: &str) -> Result<OwnedFd, Failure> {
    let directory = context.data.path().join(LOCKS);
    std::fs::create_dir_all(&directory)?;
    // As many files as there are pairs of digits.
    let file = lock::open_file(&directory.join(&key[..2])).map_err(|error| error.source)?;
    while !lock::try_lock(&file, true).map_err(|error| error.source)? {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(file)
}

fn find(context: &Context, key: &str) -> Result<Option<(SandboxRecord, Client)>, Failure> {
    for record in context.store()?.sandbox_list_live()? {
        if record.labels.get(KEY).is_some_and(|other| other == key)
            && let Some(held) = begin_use(context, &record)?
        {
            return Ok(Some((record, held)));
        }
    }
    Ok(None)
}

/// None if it has ended, or is ending.
fn begin_use(context: &Context, record: &SandboxRecord) -> Result<Option<Client>, Failure> {
    let client = match Client::connect(&context.data.sandbox(record.id)) {
        Err(ClientError::NotRunning | ClientError::Io(_)) => return Ok(None),
        other => other?,
    };
    match client.ask(&Asked::Use) {
        Ok(_) => Ok(Some(client)),
        Err(ClientError::Ended | ClientError::Io(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Every sandbox of an owner, whatever made it what it is.
pub fn release(global: Global, arguments: &ReleaseArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let grace = config::load()?.lifecycle.grace.millis();
    let own = |record: &SandboxRecord| record.labels.get(OWNER).is_some_and(|owner| *owner == arguments.owner.to_string());
    for record in store.sandbox_list_live()?.into_iter().filter(own) {
        let at_once = arguments.now || record.labels.get(LIFECYCLE).is_some_and(|name| name == Lifecycle::Task.name());
        let asked = Asked::Release { grace_ms: if at_once { 0 } else { grace } };
        let connected = Client::connect(&context.data.sandbox(record.id));
        match connected.and_then(|client| client.ask(&asked)) {
            Ok(_) if !context.global.quiet => println!("{}", record.id),
            // One that ends meanwhile is what was wanted.
            Ok(_) | Err(ClientError::NotRunning | ClientError::Ended | ClientError::Io(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    context.sweep(&mut store)?;
    Ok(ExitCode::SUCCESS)
}
