//! The standard streams of a sandbox's main process.

use super::{Request, SupervisorError};
use crate::log::Stream;
use crate::pump::{self, Output, Source};
use cofferdam_engine::{Process, ProcessSpec, Sandbox, Stdio};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Threads that copy output.
pub(super) type Pumps = Vec<JoinHandle<()>>;

/// Where the standard streams of the main process come from and go to.
#[derive(Debug)]
pub struct Streams {
    /// Rows and columns of a terminal of its own.
    pub terminal: Option<(u16, u16)>,
    /// Handed to the process as it is: a pipe, or the null device.
    pub input: Option<OwnedFd>,
    /// Copied into the process's input as it comes.
    pub feed: Option<OwnedFd>,
    /// The caller's output and error output.
    pub foreground: Option<(OwnedFd, OwnedFd)>,
}

impl Streams {
    /// No input, output to the log only.
    pub const fn detached() -> Self {
        Self { terminal: None, input: None, feed: None, foreground: None }
    }
}

/// Starts the main process with its streams connected.
pub(super) async fn start(sandbox: &dyn Sandbox, request: &mut Request, output: &Arc<Output>) -> Result<(Process, Pumps), SupervisorError> {
    let io = |what| move |source: std::io::Error| SupervisorError::Io { what, source };
    let spec = ProcessSpec {
        command: request.command.clone(),
        environment: request.environment.clone(),
        directory: request.directory.clone(),
        user: request.user.clone(),
        terminal: request.streams.terminal,
    };
    let streams = &mut request.streams;
    if streams.terminal.is_some() {
        let mut process = sandbox.start(spec, Stdio::Terminal).await?;
        let Some(master) = process.terminal.take() else { return Ok((process, Vec::new())) };
        let copy = master.try_clone().map_err(io("duplicate the terminal"))?;
        process.terminal = Some(master.try_clone().map_err(io("duplicate the terminal"))?);
        let foreground = streams.foreground.take().map(|(out, _)| out);
        let source = Source { from: copy, stream: Stream::Out, foreground };
        let pumps = vec![pump::from_sandbox(vec![source], Arc::clone(output)).map_err(io("start a thread"))?];
        if let Some(feed) = streams.feed.take() {
            // It ends with the process: nobody waits for a keyboard.
            pump::into_sandbox(feed, master).map_err(io("start a thread"))?;
        }
        return Ok((process, pumps));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io("make a pipe")(e.into()));
    let ((out_read, out_write), (error_read, error_write)) = (pipe()?, pipe()?);
    let (input, feed) = match (streams.input.take(), streams.feed.take()) {
        (Some(input), _) => (input, None),
        (None, Some(feed)) => {
            let (read, write) = pipe()?;
            (read, Some((feed, write)))
        }
        (None, None) => (std::fs::File::open("/dev/null").map_err(io("open /dev/null"))?.into(), None),
    };
    let process = sandbox.start(spec, Stdio::Fds([input, out_write, error_write])).await?;
    if let Some((feed, write)) = feed {
        pump::into_sandbox(feed, write).map_err(io("start a thread"))?;
    }
    let (out, error) = streams.foreground.take().map_or((None, None), |(out, error)| (Some(out), Some(error)));
    let sources = vec![
        Source { from: out_read, stream: Stream::Out, foreground: out },
        Source { from: error_read, stream: Stream::Err, foreground: error },
    ];
    let pump = pump::from_sandbox(sources, Arc::clone(output)).map_err(io("start a thread"))?;
    Ok((process, vec![pump]))
}
