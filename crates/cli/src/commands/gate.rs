//! The hidden `cofferdam gate`: the process that every connection of a sandbox goes through.

mod sidecar;

use crate::args::{Form, GateArgs, Global};
use crate::context::data_path;
use crate::exit::{Failure, UNHEALTHY};
use cofferdam_gate::attempts::{self, Attempt};
use cofferdam_gate::confine::confine;
use cofferdam_gate::server;
use cofferdam_lifecycle::gating::{READY, gate_socket};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long it stays without a sandbox.
const IDLE: Duration = Duration::from_secs(30);
/// A user id that nothing else on the host has: below the ranges of sandboxes, above those of people and services.
const GATE_USER: u32 = 0x6fff_0001;

/// The gate, or one of its other forms.
pub fn run(global: &Global, arguments: &GateArgs) -> Result<ExitCode, Failure> {
    match arguments {
        GateArgs { attempts: true, .. } => attempt(),
        GateArgs { healthy: Some(socket), .. } => sidecar::is_healthy(socket),
        GateArgs { sidecar: true, .. } => sidecar::run(arguments),
        _ => serve(global),
    }
}

/// Serves until there has been no sandbox for a while.
fn serve(global: &Global) -> Result<ExitCode, Failure> {
    let _ = rustix::process::setsid();
    cofferdam_sys::process::raise_open_files();
    let socket = gate_socket(&data_path(global));
    // A socket's address holds 108 bytes, a data directory may be deeper.
    std::env::set_current_dir(socket.parent().unwrap_or(Path::new("/")))?;
    let listener = server::bind_at(Path::new(socket.file_name().unwrap_or_default()))?;
    std::env::set_current_dir("/")?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    confine(user(), None)?;
    let served = runtime()?.block_on(async {
        say_ready(&null)?;
        server::run(listener, IDLE, None).await
    });
    served?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(64).thread_stack_size(256 << 10).build()
}

/// Tries what the gate must not be able to do, confined as it is: `doctor` and tests ask.
fn attempt() -> Result<ExitCode, Failure> {
    let landlock = cofferdam_sys::process::landlock_version().is_some();
    confine(user(), None)?;
    let made = attempts::all(landlock);
    crate::output::one(Form::Json, &made, |_| Ok(()))?;
    Ok(if made.iter().all(Attempt::is_as_wanted) { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
}

fn user() -> Option<u32> {
    cofferdam_sys::outer::is_host_root().then_some(GATE_USER)
}

/// Says so, and lets go of the caller's stream.
fn say_ready(null: &std::fs::File) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").and_then(|()| out.flush())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    Ok(())
}
