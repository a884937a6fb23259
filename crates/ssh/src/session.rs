//! One session: a process inside, or its files.

use crate::Inside;
use crate::sftp::{self, Files};
use crate::stream::{Reading, Writing};
use cofferdam_engine::{Control, EngineError, ErrorKind, Process, ProcessSpec, Root, Sandbox, Stdio};
use cofferdam_trust::User;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PIECE: usize = 32 << 10;
/// `SSH_EXTENDED_DATA_STDERR` of RFC 4254.
const STDERR: u32 = 1;
const SHELL: &str = "/bin/sh";
/// What a terminal still holds when its process has ended comes at once.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A terminal that a client asked for.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// As `TERM` says it.
    pub kind: String,
    /// Rows and columns.
    pub size: (u16, u16),
}

/// A session's process.
#[derive(Debug)]
pub struct Running {
    /// Its number in the sandbox.
    pub process: u32,
    /// Its terminal's other side.
    pub terminal: Option<OwnedFd>,
}

/// Our ends of a process's streams.
#[derive(Debug)]
pub struct Pipes {
    input: OwnedFd,
    output: OwnedFd,
    /// None behind a terminal.
    errors: Option<OwnedFd>,
}

/// Whether it can stand in an environment.
pub fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

/// The process that a session is for.
pub fn describe(
    inside: &Inside,
    user: User,
    command: Option<&[u8]>,
    wanted: Vec<(String, String)>,
    terminal: Option<Terminal>,
) -> ProcessSpec {
    let shell = shell_of(inside.accounts.passwd(), &user.name);
    let mut environment: Vec<Vec<u8>> = Vec::new();
    let mut add = |entry: Vec<u8>| {
        let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
        if !environment.iter().any(|known| name(known) == name(&entry)) {
            environment.push(entry);
        }
    };
    if let Some(terminal) = &terminal {
        add(format!("TERM={}", terminal.kind.replace('\0', "")).into_bytes());
    }
    for (name, value) in wanted {
        add(format!("{name}={value}").into_bytes());
    }
    if user.uid != inside.user.uid {
        for (name, value) in [("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name)] {
            add(format!("{name}={value}").into_bytes());
        }
    }
    inside.environment.iter().for_each(|entry| add(entry.clone()));
    add(format!("SHELL={shell}").into_bytes());
    let words = match command {
        Some(command) => vec![shell.as_bytes().to_vec(), b"-c".to_vec(), command.to_vec()],
        None => vec![shell.as_bytes().to_vec(), b"-l".to_vec()],
    };
    ProcessSpec { command: words, environment, directory: inside.directory.clone(), user, terminal: terminal.map(|terminal| terminal.size) }
}

/// The shell of an account; one that lets nobody in is not meant here.
fn shell_of<'a>(passwd: &'a str, name: &str) -> &'a str {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name));
    let shell = line.and_then(|line| line.split(':').nth(6)).filter(|shell| shell.starts_with('/'));
    shell.filter(|shell| !shell.ends_with("/nologin") && !shell.ends_with("/false")).unwrap_or(SHELL)
}

/// Starts it.
pub async fn start(sandbox: &dyn Sandbox, spec: ProcessSpec) -> Result<(Arc<Running>, Process, Pipes), EngineError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| EngineError::host("pipe", error));
    let duplicate = |fd: &OwnedFd| fd.try_clone().map_err(|error| EngineError::host("duplicate a descriptor", error));
    if spec.terminal.is_some() {
        let mut process = sandbox.exec(spec, Stdio::Terminal).await?;
        let ends = process.terminal.take().ok_or(EngineError::Gone).and_then(|terminal| {
            let pipes = Pipes { input: duplicate(&terminal)?, output: duplicate(&terminal)?, errors: None };
            Ok((terminal, pipes))
        });
        let (terminal, pipes) = match ends {
            Ok(ends) => ends,
            Err(error) => {
                // Nobody would ever end it.
                let _ = sandbox.control(Control::End { process: process.id }).await;
                return Err(error);
            }
        };
        return Ok((Arc::new(Running { process: process.id, terminal: Some(terminal) }), process, pipes));
    }
    let (input, output, errors) = (pipe()?, pipe()?, pipe()?);
    let process = sandbox.exec(spec, Stdio::Fds([input.0, output.1, errors.1])).await?;
    let pipes = Pipes { input: input.1, output: output.0, errors: Some(errors.0) };
    Ok((Arc::new(Running { process: process.id, terminal: None }), process, pipes))
}

/// Says why it could not be started, and the exit status that `exec` would have.
pub async fn refuse(channel: Channel<Msg>, error: EngineError) {
    let status = match &error {
        EngineError::NotFound { .. } => 127,
        other if other.kind() == ErrorKind::Program => 126,
        _ => 125,
    };
    // A client that has gone is told nothing.
    let _ = channel.extended_data_bytes(STDERR, format!("cofferdam: {error}\r\n").into_bytes()).await;
    let _ = finish(&channel.split().1, status).await;
}

async fn finish(channel: &ChannelWriteHalf<Msg>, status: u32) -> Result<(), russh::Error> {
    channel.eof().await?;
    channel.exit_status(status).await?;
    channel.close().await
}

/// Between client and process until one of them ends; true if the process is left running.
pub async fn run(channel: Channel<Msg>, running: &Running, mut process: Process, pipes: Pipes) -> bool {
    let (from_client, to_client) = channel.split();
    let Pipes { input, output, errors } = pipes;
    let behind_terminal = running.terminal.is_some();
    let ended = async {
        let outputs = async { tokio::join!(copy_out(output, &to_client, None), copy_errors(errors, &to_client)) };
        let status = if behind_terminal {
            tokio::pin!(outputs);
            tokio::select! {
                status = process.wait() => {
                    // Whoever else has the terminal open does not hold the session up.
                    let _ = timeout(LAST_WORDS, outputs).await;
                    status
                }
                _ = &mut outputs => process.wait().await,
            }
        } else {
            tokio::join!(process.wait(), outputs).0
        };
        let _ = finish(&to_client, u32::try_from(status.shell_code()).unwrap_or(255)).await;
    };
    tokio::select! {
        () = ended => false,
        () = copy_in(from_client, input) => true,
    }
}

async fn copy_errors(errors: Option<OwnedFd>, channel: &ChannelWriteHalf<Msg>) {
    if let Some(errors) = errors {
        copy_out(errors, channel, Some(STDERR)).await;
    }
}

/// Until the other end is closed, or the client takes no more.
async fn copy_out(from: OwnedFd, channel: &ChannelWriteHalf<Msg>, kind: Option<u32>) {
    let Ok(mut from) = Reading::new(from) else { return };
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let piece = buffer[..length].to_vec();
        let sent = match kind {
            Some(kind) => channel.extended_data_bytes(kind, piece).await,
            None => channel.data_bytes(piece).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Until the client closes the channel. What the process does not want is dropped, so that it holds nobody up.
async fn copy_in(mut channel: ChannelReadHalf, to: OwnedFd) {
    let mut to = Writing::new(to).ok();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(input) = &mut to
                    && input.write_all(&data).await.is_err()
                {
                    to = None;
                }
            }
            ChannelMsg::Eof => to = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// Serves the sandbox's files over a channel.
pub async fn serve_files(channel: Channel<Msg>, root: Root, user: User, directory: String) {
    let (from_client, to_client) = channel.split();
    let (Ok(requests), Ok(answers)) = (pipe_with(PipeFlags::CLOEXEC), pipe_with(PipeFlags::CLOEXEC)) else {
        // The client is not left waiting.
        let _ = finish(&to_client, 1).await;
        return;
    };
    let (input, output) = (File::from(requests.0), File::from(answers.1));
    let served = in_thread(move || {
        let files = Files::enter(root, user, directory).map_err(|error| error.source)?;
        sftp::serve(BufReader::with_capacity(PIECE, input), BufWriter::with_capacity(PIECE, output), files)
    });
    let ended = async {
        let (served, ()) = tokio::join!(served, copy_out(answers.0, &to_client, None));
        let status = u32::from(!matches!(served, Ok(Ok(()))));
        let _ = finish(&to_client, status).await;
    };
    tokio::select! {
        () = ended => {}
        () = copy_in(from_client, requests.1) => {}
    }
}

/// Does blocking work in a thread of its own.
pub async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("ssh-files".into()).stack_size(256 << 10).spawn(move || sender.send(work()))?;
    receiver.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_of_accounts() {
        let passwd = "root:x:0:0::/root:/bin/bash\nagent:x:1:1::/:/usr/sbin/nologin\nodd:x:2:2::/:\nshort:x\n";
        for (name, shell) in [("root", "/bin/bash"), ("agent", SHELL), ("odd", SHELL), ("short", SHELL), ("nobody", SHELL)] {
            assert_eq!(shell_of(passwd, name), shell, "{name}");
        }
    }
}
