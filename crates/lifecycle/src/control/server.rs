//! The supervisor's side.

use super::short_path::short_path;
use super::{Command, Exec, LARGEST_MESSAGE, PIECE_ERROR, PIECE_INPUT, PIECE_OUTPUT, Reply, Request, SOCKET_NAME};
use crate::gating::Gating;
use crate::log::Stream;
use crate::pump::{Output, Piece};
use crate::usage::Usage;
use cofferdam_engine::{Changes, Control, EngineError, ErrorKind, Process, ProcessSpec, Sandbox, Stdio};
use cofferdam_policy::egress::Policy;
use cofferdam_ssh::{HostKey, Inside};
use cofferdam_sys::{channel, readiness};
use cofferdam_trust::{User, UserError};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use std::io;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

const BACKLOG: i32 = 64;
const CLIENT_PIECES: usize = 64;

/// What every connection needs.
struct Shared {
    sandbox: Arc<dyn Sandbox>,
    gating: Option<Arc<Gating>>,
    output: Arc<Output>,
    commands: UnboundedSender<Command>,
    defaults: Defaults,
    main: tokio::sync::Mutex<MainProcess>,
    usage: Option<Arc<Usage>>,
}

struct MainProcess {
    wait: Process,
    terminal: Option<OwnedFd>,
}

/// What an exec'd process gets where the request does not say.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The image's and sandbox's environment.
    pub environment: Vec<Vec<u8>>,
    /// Working directory.
    pub directory: String,
    /// User.
    pub user: User,
    /// Finds other users.
    pub accounts: cofferdam_trust::Accounts,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Server {
    task: AbortHandle,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What requests are about.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where the socket is.
    pub directory: &'a Path,
    /// The sandbox.
    pub sandbox: &'a Arc<dyn Sandbox>,
    /// Its connection to the gate.
    pub gating: Option<&'a Arc<Gating>>,
    /// Its main process.
    pub main: &'a Process,
    /// Its output.
    pub output: &'a Arc<Output>,
    /// Who uses it, if it is kept for one owner.
    pub usage: Option<&'a Arc<Usage>>,
}

/// Opens the control socket of a sandbox.
pub fn serve(around: Surroundings<'_>, defaults: Defaults, commands: UnboundedSender<Command>) -> io::Result<Server> {
    let Surroundings { directory, sandbox, gating, main, output, usage } = around;
    let path = directory.join(SOCKET_NAME);
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let short = short_path(&path)?;
    bind(&socket, &SocketAddrUnix::new(short.path())?)?;
    listen(&socket, BACKLOG)?;
    let terminal = main.terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
    let main = tokio::sync::Mutex::new(MainProcess { wait: main.watch(), terminal });
    let (gating, usage) = (gating.cloned(), usage.cloned());
    let shared = Arc::new(Shared { sandbox: Arc::clone(sandbox), gating, output: Arc::clone(output), commands, defaults, main, usage });
    let listener = readiness::register(socket)?;
    let task = tokio::spawn(accept_all(listener, shared)).abort_handle();
    Ok(Server { task, path })
}

async fn accept_all(listener: AsyncFd<OwnedFd>, shared: Arc<Shared>) {
    loop {
        let Ok(mut ready) = listener.readable().await else { return };
        let accepted = ready.try_io(|fd| Ok(accept_with(fd.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?));
        if let Ok(Ok(socket)) = accepted
            && let Ok(socket) = readiness::register(socket)
        {
            tokio::spawn(Connection { socket: Arc::new(socket), shared: Arc::clone(&shared) }.serve());
        }
    }
}

struct Connection {
    socket: Arc<AsyncFd<OwnedFd>>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn serve(self) {
        while let Some((bytes, fds)) = self.receive().await {
            let request = match serde_json::from_slice::<Request>(&bytes) {
                Ok(request) => request,
                Err(_) if bytes.first() == Some(&PIECE_INPUT) => {
                    self.input(&bytes[1..]).await;
                    continue;
                }
                Err(error) => {
                    self.reply(&failed(format!("unknown request: {error}"), 125), &[]).await;
                    return;
                }
            };
            if !self.handle(request, fds).await {
                return;
            }
        }
    }

    async fn receive(&self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; LARGEST_MESSAGE + 1];
        loop {
            let mut ready = self.socket.readable().await.ok()?;
            match ready.try_io(|fd| channel::receive(fd.get_ref(), &mut buffer).map_err(|e| e.source)) {
                Ok(Ok((0, _)) | Err(_)) => return None,
                Ok(Ok((length, fds))) => {
                    buffer.truncate(length);
                    return Some((buffer, fds));
                }
                Err(_would_block) => {}
            }
        }
    }

    async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        loop {
            let Ok(mut ready) = self.socket.writable().await else { return false };
            match ready.try_io(|fd| channel::send(fd.get_ref(), bytes, fds).map_err(|e| e.source)) {
                Ok(result) => return result.is_ok(),
                Err(_would_block) => {}
            }
        }
    }

    async fn reply(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> bool {
        let bytes = serde_json::to_vec(reply).unwrap_or_default();
        self.send(&bytes, fds).await
    }

    /// False when the connection has served its purpose.
    async fn handle(&self, request: Request, fds: Vec<OwnedFd>) -> bool {
        let owner = (self.shared.defaults.user.uid, self.shared.defaults.user.gid);
        if let Some(transfer) = request.transfer(owner) {
            let reply = match self.shared.sandbox.transfer(transfer).await {
                Ok(report) => Reply::Copied(report),
                Err(error) => of_engine(&error),
            };
            return self.reply(&reply, &[]).await;
        }
        let command = match request {
            Request::Exec(exec) => {
                self.exec(exec, fds).await;
                return false;
            }
            Request::Ssh { host_key } => {
                self.ssh(&host_key, fds).await;
                return false;
            }
            Request::Attach => {
                self.attach().await;
                return true;
            }
            Request::Wait => {
                let code = self.shared.main.lock().await.wait.watch().wait().await.shell_code();
                return self.reply(&Reply::Exited { code, timed_out: false }, &[]).await;
            }
            Request::Observe => {
                let reply = match self.shared.sandbox.observe().await {
                    Ok(observation) => Reply::Observed(observation),
                    Err(error) => of_engine(&error),
                };
                return self.reply(&reply, &[]).await;
            }
            Request::Changes { epoch, of_view } => {
                let reply = self.changes(epoch, of_view, fds).await;
                return self.reply(&reply, &[]).await;
            }
            Request::Use => {
                self.keep_using().await;
                return false;
            }
            Request::Release { grace_ms } => {
                let released = self.shared.usage.as_ref().map(|usage| usage.release(Duration::from_millis(grace_ms)));
                return self.reply(&released.map_or_else(not_kept, |()| Reply::Done), &[]).await;
            }
            Request::Replace { policy } => return self.reply(&self.replace(policy).await, &[]).await,
            Request::Stop { grace_ms } => Command::Stop { grace: Duration::from_millis(grace_ms) },
            Request::Kill { signal: None } => Command::Kill,
            Request::Kill { signal: Some(number) } => Command::Signal(number),
            Request::Pause => Command::Pause,
            Request::Resume => Command::Resume,
            Request::Resize { rows, columns } => Command::Resize(rows, columns),
            Request::CopyIn { .. } | Request::CopyOut { .. } => return false,
        };
        let sent = self.shared.commands.send(command).is_ok();
        let quiet = matches!(command, Command::Resize(..));
        sent && (quiet || self.reply(&Reply::Done, &[]).await)
    }

    async fn keep_using(&self) {
        let Some(usage) = &self.shared.usage else {
            self.reply(&not_kept(), &[]).await;
            return;
        };
        if let Some(_use) = usage.begin()
            && self.reply(&Reply::Done, &[]).await
        {
            self.hang_up().await;
        }
    }

    async fn changes(&self, epoch: i64, of_view: bool, mut fds: Vec<OwnedFd>) -> Reply {
        let Some(out) = fds.pop() else { return failed("no descriptor came along".into(), 1) };
        match self.shared.sandbox.changes(Changes { out: out.into(), epoch, leave_out: Vec::new(), of_view }).await {
            Ok(layer) => Reply::Changed(layer),
            Err(error) => of_engine(&error),
        }
    }

    /// Acknowledged means that the gate has it.
    async fn replace(&self, policy: Policy) -> Reply {
        let Some(gating) = self.shared.gating.clone() else {
            return failed("its network is isolated: only a new sandbox can have another".into(), 1);
        };
        match tokio::task::spawn_blocking(move || gating.replace(policy)).await.map_err(io::Error::other) {
            Ok(Ok((generation, closed))) => Reply::Replaced { generation, closed },
            Ok(Err(error)) | Err(error) => failed(format!("the old policy stays in force: {error}"), 1),
        }
    }

    async fn exec(&self, exec: Exec, fds: Vec<OwnedFd>) {
        let timeout = exec.timeout_ms.map(Duration::from_millis);
        let (spec, stdio) = match self.describe(exec, fds) {
            Ok(described) => described,
            Err(message) => {
                self.reply(&failed(message, 125), &[]).await;
                return;
            }
        };
        let mut process = match self.shared.sandbox.exec(spec, stdio).await {
            Ok(process) => process,
            Err(error) => {
                self.reply(&of_engine(&error), &[]).await;
                return;
            }
        };
        let terminal = process.terminal.take();
        let fds: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        let mut reply = None;
        if self.reply(&Reply::Started, &fds).await {
            let limit = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = process.wait() => reply = Some(Reply::Exited { code: status.shell_code(), timed_out: false }),
                () = self.hang_up() => {}
                () = limit => reply = Some(Reply::Exited { code: 124, timed_out: true }),
            }
        }
        drop(terminal);
        // What it started ends with it, whether it ended or was left.
        let _ = self.shared.sandbox.control(Control::End { process: process.id }).await;
        if let Some(reply) = reply {
            self.reply(&reply, &[]).await;
        }
    }

    /// Until the client, its proxy command or the sandbox has gone. In a thread of its own: a large copy holds nobody else up.
    async fn ssh(&self, host_key: &str, fds: Vec<OwnedFd>) {
        let begun = || {
            let [from, to] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| io::Error::other("two descriptors are wanted"))?;
            Ok::<_, io::Error>((HostKey::parse(host_key)?, from, to))
        };
        let (key, from, to) = match begun() {
            Ok(begun) => begun,
            Err(error) => {
                self.reply(&failed(format!("ssh: {error}"), 125), &[]).await;
                return;
            }
        };
        let Defaults { environment, directory, user, accounts } = self.shared.defaults.clone();
        let inside = Inside { sandbox: Arc::clone(&self.shared.sandbox), environment, directory, user, accounts };
        let mut main = self.shared.main.lock().await.wait.watch();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel();
        let serve = move || {
            let stopped = async { drop(stopped.await) };
            let _ = end.send(cofferdam_ssh::serve(inside, &key, (from, to), stopped));
        };
        if let Err(error) = std::thread::Builder::new().name("ssh".into()).spawn(serve) {
            self.reply(&failed(format!("ssh: {error}"), 125), &[]).await;
            return;
        }
        let reply = tokio::select! {
            served = ended => match served {
                Ok(Err(error)) => failed(format!("ssh: {error}"), 125),
                _ => Reply::Done,
            },
            () = self.hang_up() => Reply::Done,
            _ = main.wait() => Reply::Done,
        };
        drop(stop);
        self.reply(&reply, &[]).await;
    }

    fn describe(&self, exec: Exec, fds: Vec<OwnedFd>) -> Result<(ProcessSpec, Stdio), String> {
        let defaults = &self.shared.defaults;
        let user = match &exec.user {
            Some(text) => defaults.accounts.resolve(Some(text)).map_err(|e: UserError| e.to_string())?,
            None => defaults.user.clone(),
        };
        let stdio = match (exec.terminal, <[OwnedFd; 3]>::try_from(fds)) {
            (Some(_), _) => Stdio::Terminal,
            (None, Ok(fds)) => Stdio::Fds(fds),
            (None, Err(_)) => return Err("three descriptors are wanted".into()),
        };
        let mut environment: Vec<Vec<u8>> = exec.environment.into_iter().map(String::into_bytes).collect();
        for entry in &defaults.environment {
            let name = name_of(entry);
            if !environment.iter().any(|own| name_of(own) == name) {
                environment.push(entry.clone());
            }
        }
        let spec = ProcessSpec {
            command: exec.command.into_iter().map(String::into_bytes).collect(),
            environment,
            directory: exec.directory.unwrap_or_else(|| defaults.directory.clone()),
            user,
            terminal: exec.terminal,
        };
        Ok((spec, stdio))
    }

    /// Until the caller has gone. It sends nothing while its process runs.
    async fn hang_up(&self) {
        while self.receive().await.is_some() {}
    }

    /// Streams output to the client from now on, then the exit status.
    async fn attach(&self) {
        let (sender, receiver) = sync_channel::<Piece>(CLIENT_PIECES);
        self.shared.output.attach(sender);
        self.reply(&Reply::Started, &[]).await;
        let Ok(duplicate) = self.socket.get_ref().try_clone() else { return };
        let mut main = self.shared.main.lock().await.wait.watch();
        // A thread, since pieces come from threads; it ends with the output.
        let forward = std::thread::Builder::new().name("attach".into()).stack_size(192 << 10).spawn(move || forward(&duplicate, &receiver));
        let connection = Self { socket: Arc::clone(&self.socket), shared: Arc::clone(&self.shared) };
        tokio::spawn(async move {
            let code = main.wait().await.shell_code();
            if let Ok(thread) = forward {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            connection.reply(&Reply::Exited { code, timed_out: false }, &[]).await;
        });
    }

    async fn input(&self, bytes: &[u8]) {
        let main = self.shared.main.lock().await;
        if let Some(terminal) = main.terminal.as_ref().and_then(|fd| fd.try_clone().ok()) {
            // A terminal takes a keystroke's worth without blocking.
            let _ = std::fs::File::from(terminal).write_all(bytes);
        }
    }
}

fn forward(socket: &OwnedFd, pieces: &Receiver<Piece>) {
    while let Ok((stream, bytes)) = pieces.recv() {
        let mut message = vec![if stream == Stream::Err { PIECE_ERROR } else { PIECE_OUTPUT }];
        message.extend(&*bytes);
        loop {
            match channel::send(socket, &message, &[]) {
                Ok(()) => break,
                Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => {
                    let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::OUT)];
                    if rustix::event::poll(&mut polled, None).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or(entry)
}

fn not_kept() -> Reply {
    failed("it is kept for no owner".into(), 1)
}

fn failed(message: String, code: i32) -> Reply {
    Reply::Failed { message, code }
}

fn of_engine(error: &EngineError) -> Reply {
    let code = match error {
        EngineError::NotFound { .. } => 127,
        _ if error.kind() == ErrorKind::Program => 126,
        _ => 125,
    };
    failed(error.to_string(), code)
}

impl Defaults {
    /// From what the sandbox was asked to run.
    pub fn of(request: &crate::Request) -> Self {
        Self {
            environment: request.environment.clone(),
            directory: request.directory.clone(),
            user: request.user.clone(),
            accounts: request.image.accounts().clone(),
        }
    }
}
