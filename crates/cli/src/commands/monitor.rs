//! `run -d`: a process of its own supervises the sandbox; the caller waits until it is ready.

use crate::args::{Global, MonitorArgs};
use crate::commands::{owner, request};
use crate::context::{Context, random};
use crate::exit::{FAILED, FAILED_TO_RUN, Failure};
use cofferdam_engine_native::Ahead;
use cofferdam_lifecycle::Supervisor;
use cofferdam_lifecycle::supervisor::Streams;
use cofferdam_model::SandboxId;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use tokio::sync::mpsc::unbounded_channel;

const READY: &str = "ready";

/// Starts the monitor, and prints the sandbox's id.
pub fn launch(global: &Global) -> Result<ExitCode, Failure> {
    let (id, warnings) = start()?;
    if global.output == crate::args::Form::Json {
        println!("{}", serde_json::json!({ "id": id, "warnings": warnings }));
    } else {
        println!("{id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the monitor with the arguments of this process, and waits for its word: the sandbox, and what else it said.
pub fn start() -> Result<(SandboxId, String), Failure> {
    let id = SandboxId::from_random(random());
    let own: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let verb = own.iter().position(|word| word == "run").ok_or_else(|| Failure::usage("run is not among the arguments"))?;
    let mut child = Command::new("/proc/self/exe")
        .args(&own[..verb])
        .args(["monitor", "--id", &id.to_string()])
        .args(&own[verb + 1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut word = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut word)?;
    }
    if let Some(rest) = word.strip_prefix(READY) {
        return Ok((id, rest.trim().to_owned()));
    }
    let status = child.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED_TO_RUN);
    let message = word.trim().trim_start_matches("cofferdam: ").to_owned();
    let message = if message.is_empty() { "the monitor ended without a word".to_owned() } else { message };
    Err(Failure::new(status.max(FAILED), "not_started", message))
}

/// The monitor: everything that can go wrong before the main process runs is said on standard output, which is then
/// given up.
pub fn run(global: Global, arguments: MonitorArgs, ahead: Option<Ahead>) -> Result<ExitCode, Failure> {
    let _ = rustix::process::setsid();
    match supervise(global, &arguments, ahead) {
        Ok(code) => Ok(code),
        Err(failure) => {
            let failure = failure.while_running();
            println!("{}", failure.message());
            Ok(ExitCode::from(failure.status()))
        }
    }
}

fn supervise(global: Global, arguments: &MonitorArgs, ahead: Option<Ahead>) -> Result<ExitCode, Failure> {
    let id: SandboxId = arguments.id.parse().map_err(|_| Failure::usage("--id: an id is wanted"))?;
    let context = Context::open(global)?;
    let engine = context.engine_named(arguments.run.engine, ahead, true)?;
    let mut run = arguments.run.clone();
    run.detach = true;
    if run.owner.is_some() {
        // What is one command's alone.
        (run.env, run.env_file, run.timeout, run.tty) = (Vec::new(), Vec::new(), None, false);
    }
    let mut wanted = request::build(&context, &run, &engine.capabilities(), id)?;
    owner::keep(&run, &mut wanted, engine.capabilities().name)?;
    wanted.streams = Streams { terminal: run.tty.then_some((24, 80)), ..Streams::detached() };
    std::env::set_current_dir("/")?;
    let (outcome, _records) = context.runtime.block_on(async {
        let (sender, receiver) = unbounded_channel();
        Supervisor::new(&context.data, &*engine).on_ready(say_ready).run(wanted, (sender, receiver)).await.map_err(Failure::from)
    })?;
    context.sweep_after(&outcome)?;
    Ok(super::run::status(&outcome))
}

/// Says so, and lets go of the caller's streams.
fn say_ready() {
    let mut out = std::io::stdout();
    let _ = write!(out, "{READY}").and_then(|()| out.flush());
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
        let _ = rustix::stdio::dup2_stderr(null.as_fd());
    }
}
