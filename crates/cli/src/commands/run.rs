//! `cofferdam run`: a command in a new sandbox, in the foreground or detached.

use crate::args::{Global, Lifecycle, RunArgs};
use crate::commands::apply::{all_there, branch_of};
use crate::commands::{monitor, owner, request};
use crate::context::{Context, random};
use crate::engines::EngineName;
use crate::exit::{FAILED_TO_RUN, Failure, NOT_FOUND, TIME_LIMIT};
use crate::output::printable;
use crate::repository::{Branch, Changed};
use crate::terminal::{self, Raw};
use crate::toolchain;
use cofferdam_engine_native::Ahead;
use cofferdam_gate::ledger::Verdict;
use cofferdam_lifecycle::control::Command;
use cofferdam_lifecycle::supervisor::{GRACE, Outcome, Streams};
use cofferdam_lifecycle::{Supervisor, task};
use cofferdam_model::{Reason, SandboxId};
use cofferdam_policy::egress::HostName;
use rustix::fs::{FileType, fstat};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Runs it.
pub fn run(global: Global, arguments: RunArgs, ahead: Option<Ahead>) -> Result<ExitCode, Failure> {
    if arguments.lifecycle() != Lifecycle::Call {
        drop(ahead);
        return owner::run(global, &arguments);
    }
    if arguments.detach {
        crate::images::ensure(&global, &arguments.image, &arguments.trust)?;
        return monitor::launch(&global);
    }
    let context = Context::open(global)?;
    let engine = context.engine_named(arguments.engine, ahead, true)?;
    context.say_unenforced(&*engine)?;
    let id = SandboxId::from_random(random());
    if context.global.verbose > 0 {
        let why = if arguments.engine == EngineName::Auto { "this host and user can use it" } else { "it was asked for" };
        crate::output::note!("cofferdam: engine {}: {why}; sandbox {id}", engine.capabilities().name);
    }
    let mut wanted = request::build(&context, &arguments, &engine.capabilities(), id)?;
    let interactive = arguments.tty || terminal::is_interactive();
    if arguments.tty && !terminal::is_interactive() {
        return Err(Failure::usage("-t: standard input and output are no terminal").remedy("leave -t out"));
    }
    if interactive {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".into());
        if !wanted.environment.iter().any(|entry| entry.starts_with(b"TERM=")) {
            wanted.environment.push(format!("TERM={term}").into_bytes());
        }
    }
    wanted.streams = foreground_streams(interactive)?;
    let raw = if interactive { Some(Raw::enter()?) } else { None };
    let program = String::from_utf8_lossy(&wanted.command[0]).into_owned();
    let artifacts = arguments.artifacts.clone();
    let result = context.runtime.block_on(async {
        let (sender, receiver) = unbounded_channel();
        pass_signals(&sender, interactive)?;
        let target = context.data.artifacts().join(id.to_string());
        let supervisor = Supervisor::new(&context.data, &*engine);
        let supervisor = if artifacts.is_empty() {
            supervisor
        } else {
            supervisor.on_end(Box::new(move |sandbox| {
                Box::pin(async move {
                    match task::collect(&*sandbox, &artifacts, &target).await {
                        Ok(report) => crate::output::note!("cofferdam: collected {} files in {}", report.files, target.display()),
                        Err(error) => crate::output::note!("cofferdam: artifacts: {error}"),
                    }
                })
            }))
        };
        supervisor.run(wanted, (sender, receiver)).await.map_err(Failure::from)
    });
    drop(raw);
    let (outcome, records) = result.map_err(|failure| hint(failure, &program))?;
    explain(&context.global, &outcome);
    if arguments.learn {
        crate::output::note!("cofferdam: the policy that would have been enough:\n{}", learned(&outcome));
    }
    if arguments.repo.is_some() {
        bring_back(&context, &outcome, arguments.branch.as_deref())?;
    }
    context.sweep_after(&outcome)?;
    let status = status(&outcome);
    // The process ends here: to take everything apart by the book would cost a checkpoint and some hundred calls.
    std::mem::forget((records, outcome, engine, context));
    Ok(status)
}

/// Says what was changed of the repository and what can be done with it, or does it.
fn bring_back(context: &Context, outcome: &Outcome, branch: Option<&str>) -> Result<(), Failure> {
    let record = &outcome.record;
    if let Some(detail) = &record.detail {
        crate::output::note!("cofferdam: {detail}");
    }
    let changed = Changed::of(context, record)?;
    let (files, id) = (changed.differences.len(), record.id.short());
    match branch {
        _ if files == 0 => crate::output::note!("cofferdam: nothing was changed in {}", changed.source.display()),
        Some(branch) => {
            changed.tell_left_out();
            let Branch { commit, left_out } = branch_of(context, &changed, record, branch, None)?;
            let files = files - left_out.len();
            crate::output::note!("cofferdam: {files} files on branch {branch} ({})", &commit[..12.min(commit.len())]);
            all_there(&left_out)?;
        }
        None => crate::output::note!("cofferdam: {files} files differ: cofferdam diff {id}; cofferdam apply {id} puts them on a branch"),
    }
    Ok(())
}

/// A program that the host has and the sandbox has not deserves a word.
fn hint(failure: Failure, program: &str) -> Failure {
    if failure.status() != NOT_FOUND {
        return failure;
    }
    match toolchain::on_host(program) {
        Some(path) => {
            let directory = path.parent().and_then(std::path::Path::parent).map(|path| path.display().to_string()).unwrap_or_default();
            failure.remedy(format!(
                "the host has it at {}: show it with --toolchain {directory}, or by name (rust, node, python, go)",
                path.display()
            ))
        }
        None => failure.remedy("check the name, or install it on the host"),
    }
}

/// Pipes and the null device are handed in as they are; everything else (a terminal, a file) is copied, so that a
/// workload never holds a descriptor of the host's.
fn foreground_streams(interactive: bool) -> Result<Streams, Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let (out, error) = (io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?);
    let direct = is_pipe(&stdin) && !interactive;
    let (input, feed) = if direct { (Some(stdin), None) } else { (None, Some(stdin)) };
    let feed = feed.filter(|fd| !is_null(fd));
    Ok(Streams { terminal: interactive.then(terminal::size), input, feed, foreground: Some((out, error)) })
}

/// Whether a descriptor is an anonymous or named pipe.
pub fn is_pipe(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn is_null(fd: &OwnedFd) -> bool {
    fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// The first Ctrl-C stops, the second kills; other signals go to the main process; size changes to its terminal.
fn pass_signals(commands: &UnboundedSender<Command>, interactive: bool) -> Result<(), Failure> {
    for (kind, stops) in [(SignalKind::interrupt(), true), (SignalKind::terminate(), true), (SignalKind::hangup(), true)] {
        let mut received = signal(kind)?;
        let commands = commands.clone();
        tokio::spawn(async move {
            let mut stopping = false;
            while received.recv().await.is_some() {
                let command = if stops && !stopping { Command::Stop { grace: GRACE } } else { Command::Kill };
                stopping = true;
                if commands.send(command).is_err() {
                    return;
                }
            }
        });
    }
    for kind in [SignalKind::quit(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
        let mut received = signal(kind)?;
        let commands = commands.clone();
        tokio::spawn(
            async move { while received.recv().await.is_some() && commands.send(Command::Signal(kind.as_raw_value())).is_ok() {} },
        );
    }
    if interactive {
        let mut resized = signal(SignalKind::window_change())?;
        let commands = commands.clone();
        tokio::spawn(async move {
            while resized.recv().await.is_some() {
                let (rows, columns) = terminal::size();
                if commands.send(Command::Resize(rows, columns)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// The exit status of `run`: the command's own, or why there is none.
pub fn status(outcome: &Outcome) -> ExitCode {
    let code = match outcome.record.reason {
        Some(Reason::TimeLimit) => TIME_LIMIT,
        _ => outcome.record.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED_TO_RUN),
    };
    ExitCode::from(code)
}

/// What deserves a word at the end: why it was ended, what was refused, what was dropped.
fn explain(global: &Global, outcome: &Outcome) {
    let record = &outcome.record;
    if let (Some(reason), Some(detail)) = (record.reason, &record.detail) {
        crate::output::note!("cofferdam: {}: {detail}", reason.name().replace('_', " "));
    }
    if global.quiet {
        return;
    }
    let level = outcome.record.network;
    for refused in &outcome.observation.refused {
        let place = place(&refused.host, refused.port);
        let times = times(refused.count);
        crate::output::note!("cofferdam: blocked: {place} ({}{times}): network is {level}, no policy allows it", refused.protocol);
    }
    for seen in &outcome.decisions {
        let decision = &seen.decision;
        let (place, times) = (place(&decision.host, decision.port), times(seen.count));
        let reason = decision.reason.as_deref().unwrap_or("no rule allows it");
        match decision.verdict {
            Verdict::Allowed => {}
            Verdict::Denied => {
                crate::output::note!("cofferdam: blocked: {} ({}{times}): {}", printable(&place), decision.protocol, printable(reason));
            }
            Verdict::Failed => {
                crate::output::note!("cofferdam: not reached: {} ({}{times}): {}", printable(&place), decision.protocol, printable(reason));
            }
        }
    }
    if let Some(entries) = allowable(outcome) {
        crate::output::note!("cofferdam: to allow it: cofferdam run {entries} …");
    }
    if outcome.observation.refused_unnamed > 0 {
        crate::output::note!("cofferdam: blocked: {} more attempts at other destinations", outcome.observation.refused_unnamed);
    }
}

fn place(host: &str, port: u16) -> String {
    match port {
        0 => host.to_owned(),
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    }
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!(", {count} times") }
}

/// The options that would allow the names that were asked for in vain.
fn allowable(outcome: &Outcome) -> Option<String> {
    const MOST: usize = 5;
    let asked = outcome.decisions.iter().filter(|seen| seen.decision.verdict == Verdict::Denied && seen.decision.rule.is_none());
    let gated = asked.map(|seen| (seen.decision.host.clone(), seen.decision.port));
    let isolated = outcome.observation.refused.iter().filter(|refused| refused.protocol == "dns").map(|refused| (refused.host.clone(), 0));
    let mut entries: Vec<String> = gated
        .chain(isolated)
        .filter(|(host, _)| host.parse::<HostName>().is_ok())
        .map(|(host, port)| if port == 0 || port == 443 { format!("--allow {host}") } else { format!("--allow {host}:{port}") })
        .collect();
    entries.dedup();
    entries.truncate(MOST);
    (!entries.is_empty()).then(|| entries.join(" "))
}

/// A policy file that allows what was reached, and nothing else.
fn learned(outcome: &Outcome) -> String {
    let reached = outcome.decisions.iter().filter(|seen| seen.decision.verdict == Verdict::Allowed);
    let mut entries: Vec<String> = reached.map(|seen| place(&seen.decision.host, seen.decision.port)).collect();
    entries.sort_unstable();
    entries.dedup();
    if entries.is_empty() {
        return "version: 1\nnetwork: isolated".into();
    }
    let listed: Vec<String> = entries.iter().map(|entry| format!("  - \"{entry}\"")).collect();
    format!("version: 1\nnetwork: limited_web\nallow:\n{}", listed.join("\n"))
}
