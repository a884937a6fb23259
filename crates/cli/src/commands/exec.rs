//! `cofferdam exec`: one more command in a running sandbox.

use crate::args::{ExecArgs, Global};
use crate::commands::request::add_variable;
use crate::commands::run::is_pipe;
use crate::context::Context;
use crate::exit::{FAILED_TO_RUN, Failure, TIME_LIMIT};
use crate::terminal::{self, Raw};
use cofferdam_lifecycle::control::{Client, ClientError, Exec, Incoming, Reply, Request};
use cofferdam_lifecycle::{pump, supervisor};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::thread::JoinHandle;

/// Runs it.
pub fn run(global: Global, arguments: ExecArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = Context::find(&mut store, &arguments.sandbox)?;
    let client = context.connect(&record)?;
    let mut environment = BTreeMap::new();
    for entry in &arguments.env {
        add_variable(entry, &mut environment)?;
    }
    let interactive = arguments.tty || terminal::is_interactive();
    if interactive && !environment.contains_key("TERM") {
        environment.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "xterm".into()));
    }
    let request = Request::Exec(Exec {
        command: arguments.command,
        environment: environment.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
        directory: arguments.workdir,
        user: arguments.user,
        terminal: interactive.then(terminal::size),
        timeout_ms: arguments.timeout.map(cofferdam_model::Span::millis),
    });
    let code = perform(&client, &request, interactive)?;
    std::mem::forget(store);
    Ok(code)
}

/// Has a process started on the connection, and its streams connected with ours, until it ends.
pub fn perform(client: &Client, request: &Request, interactive: bool) -> Result<ExitCode, Failure> {
    if interactive { with_terminal(client, request) } else { with_pipes(client, request) }
}

fn with_terminal(client: &Client, request: &Request) -> Result<ExitCode, Failure> {
    client.send(request, &[])?;
    let master = match client.receive()? {
        Incoming::Reply(Reply::Started, mut fds) if fds.len() == 1 => fds.remove(0),
        other => return Err(Failure::new(FAILED_TO_RUN, "protocol", format!("unexpected answer {other:?}"))),
    };
    let _raw = Raw::enter()?;
    let (stdin, stdout) = (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
    let output = copy(master.try_clone()?, stdout)?;
    pump::into_sandbox(stdin, master.try_clone()?)?;
    std::thread::Builder::new().name("resize".into()).spawn(move || follow_size(&master))?;
    let code = exit_status(client)?;
    let _ = output.join();
    Ok(code)
}

/// Follows the caller's window: twice a second is enough for an eye and needs no signal handler.
fn follow_size(master: &OwnedFd) {
    let mut known = terminal::size();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let size = terminal::size();
        if size != known {
            known = size;
            supervisor::resize(master.as_fd(), size.0, size.1);
        }
    }
}

fn with_pipes(client: &Client, request: &Request) -> Result<ExitCode, Failure> {
    let (mut handed, mut outputs) = (Vec::new(), Vec::new());
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    if is_pipe(&stdin) {
        handed.push(stdin);
    } else {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        pump::into_sandbox(stdin, write)?;
        handed.push(read);
    }
    for fd in [io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?] {
        if is_pipe(&fd) {
            handed.push(fd);
        } else {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
            outputs.push(copy(read, fd)?);
            handed.push(write);
        }
    }
    let fds: Vec<BorrowedFd<'_>> = handed.iter().map(AsFd::as_fd).collect();
    client.send(request, &fds)?;
    drop(handed);
    match client.receive()? {
        Incoming::Reply(Reply::Started, _) => {}
        other => return Err(Failure::new(FAILED_TO_RUN, "protocol", format!("unexpected answer {other:?}"))),
    }
    let code = exit_status(client)?;
    for output in outputs {
        let _ = output.join();
    }
    Ok(code)
}

fn exit_status(client: &Client) -> Result<ExitCode, Failure> {
    match client.receive() {
        Ok(Incoming::Reply(Reply::Exited { timed_out: true, .. }, _)) => {
            crate::output::note!("cofferdam: time limit: the command and everything it started were killed");
            Ok(ExitCode::from(TIME_LIMIT))
        }
        Ok(Incoming::Reply(Reply::Exited { code, .. }, _)) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(FAILED_TO_RUN))),
        // The sandbox ended and took the process along.
        Err(ClientError::Ended) => Ok(ExitCode::from(137)),
        Ok(other) => Err(Failure::new(FAILED_TO_RUN, "protocol", format!("unexpected answer {other:?}"))),
        Err(error) => Err(error.into()),
    }
}

fn copy(from: OwnedFd, to: OwnedFd) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
        // EIO ends a terminal, EPIPE an output: both are ends like another.
        let _ = io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to));
    })
}
