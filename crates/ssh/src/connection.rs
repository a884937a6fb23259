//! One connection: who it is, and which channels it has.

use crate::Inside;
use crate::session::{self, Running, Terminal};
use crate::sftp::Files;
use crate::stream::Both;
use cofferdam_engine::{Control, Sandbox, signal_number};
use cofferdam_trust::User;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use rustix::termios::{Winsize, tcsetwinsize};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

const MOST_SESSIONS: usize = 64;
const MOST_FORWARDS: usize = 256;
const MOST_VARIABLES: usize = 128;
/// A name for the sandbox's own user, whatever it is called.
const OWN: &str = "sandbox";

/// What runs for a connection, by channel.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<ChannelId, Arc<Running>>>>);

impl Sessions {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<ChannelId, Arc<Running>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that this runs there.
    pub fn add(&self, channel: ChannelId, running: Arc<Running>) {
        self.with(|sessions| sessions.insert(channel, running));
    }

    /// It has ended, or is left to itself.
    pub async fn release(&self, channel: ChannelId, sandbox: &dyn Sandbox, hang_up: bool) {
        if let Some(running) = self.with(|sessions| sessions.remove(&channel)) {
            release(&running, sandbox, hang_up).await;
        }
    }

    /// The connection is lost: everything is told so.
    pub async fn hang_up(&self, sandbox: &dyn Sandbox) {
        for (_, running) in self.with(std::mem::take) {
            release(&running, sandbox, true).await;
        }
    }
}

async fn release(running: &Running, sandbox: &dyn Sandbox, hang_up: bool) {
    let process = running.process;
    // A sandbox that has ended takes everything.
    if hang_up {
        let _ = sandbox.control(Control::HangUp { process }).await;
    }
    let _ = sandbox.control(Control::Release { process }).await;
}

/// A session in which nothing runs yet.
struct Waiting {
    channel: Channel<Msg>,
    environment: Vec<(String, String)>,
    terminal: Option<Terminal>,
}

/// A client's connection.
pub struct Connection {
    inside: Arc<Inside>,
    user: Option<User>,
    waiting: HashMap<ChannelId, Waiting>,
    sessions: Sessions,
    forwards: Arc<Semaphore>,
}

impl Connection {
    /// To this sandbox.
    pub fn new(inside: Arc<Inside>, sessions: Sessions) -> Self {
        Self { inside, user: None, waiting: HashMap::new(), sessions, forwards: Arc::new(Semaphore::new(MOST_FORWARDS)) }
    }

    fn user(&self) -> User {
        self.user.clone().unwrap_or_else(|| self.inside.user.clone())
    }

    /// Starts what a session is for: a command, or the user's shell.
    async fn start(&mut self, id: ChannelId, command: Option<&[u8]>, session: &mut Session) -> Result<(), russh::Error> {
        let Some(Waiting { channel, environment, terminal }) = self.waiting.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let spec = session::describe(&self.inside, self.user(), command, environment, terminal);
        match session::start(&*self.inside.sandbox, spec).await {
            Ok((running, process, pipes)) => {
                self.sessions.add(id, Arc::clone(&running));
                let (inside, sessions) = (Arc::clone(&self.inside), self.sessions.clone());
                tokio::spawn(async move {
                    let left = session::run(channel, &running, process, pipes).await;
                    drop(running);
                    sessions.release(id, &*inside.sandbox, left).await;
                });
            }
            Err(refused) => {
                tokio::spawn(session::refuse(channel, refused));
            }
        }
        Ok(())
    }

    async fn serve_files(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let (Some(waiting), Ok(root)) = (self.waiting.remove(&id), self.inside.sandbox.root().await) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        tokio::spawn(session::serve_files(waiting.channel, root, self.user(), self.inside.directory.clone()));
        Ok(())
    }

    /// Leads a channel to a socket inside, once there is one.
    fn forward(
        &self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        connect: impl Future<Output = std::io::Result<OwnedFd>> + Send + 'static,
    ) {
        let forwards = Arc::clone(&self.forwards);
        tokio::spawn(async move {
            let Ok(_permit) = forwards.try_acquire_owned() else { return reply.reject(ChannelOpenFailure::ResourceShortage).await };
            let connected = connect.await.and_then(|socket| Both::new(socket.try_clone()?, socket));
            let Ok(mut inside) = connected else { return reply.reject(ChannelOpenFailure::ConnectFailed).await };
            reply.accept().await;
            // Whichever side breaks it off, both are closed.
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut inside).await;
        });
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, name: &str) -> Result<Auth, Self::Error> {
        let account = self.inside.accounts.resolve(Some(name)).ok();
        self.user = account.or_else(|| (name == OWN).then(|| self.inside.user.clone()));
        Ok(if self.user.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Self::Error> {
        if self.waiting.len() + self.sessions.with(|sessions| sessions.len()) >= MOST_SESSIONS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.waiting.insert(channel.id(), Waiting { channel, environment: Vec::new(), terminal: None });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        kind: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(waiting) = self.waiting.get_mut(&channel) else { return session.channel_failure(channel) };
        waiting.terminal = Some(Terminal { kind: kind.to_owned(), size: size(rows, columns) });
        session.channel_success(channel)
    }

    async fn env_request(&mut self, channel: ChannelId, name: &str, value: &str, session: &mut Session) -> Result<(), Self::Error> {
        match self.waiting.get_mut(&channel) {
            Some(waiting) if waiting.environment.len() < MOST_VARIABLES && session::is_variable(name, value) => {
                waiting.environment.push((name.to_owned(), value.to_owned()));
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, None, session).await
    }

    async fn exec_request(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, Some(command), session).await
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        if name == "sftp" { self.serve_files(channel, session).await } else { session.channel_failure(channel) }
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let running = self.sessions.with(|sessions| sessions.get(&channel).cloned());
        if let Some(terminal) = running.as_ref().and_then(|running| running.terminal.as_ref()) {
            let (ws_row, ws_col) = size(rows, columns);
            // A terminal that is gone has no size.
            let _ = tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
        }
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Self::Error> {
        let name = match signal {
            Sig::Custom(name) => name,
            known => format!("{known:?}"),
        };
        let running = self.sessions.with(|sessions| sessions.get(&channel).cloned());
        if let (Some(running), Some(number)) = (running, signal_number(&name)) {
            // What has ended takes no signal.
            let _ = self.inside.sandbox.control(Control::Signal { process: running.process, number }).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // Anywhere else is for the gate to decide, and the sandbox to ask.
        let (true, Ok(port)) = (matches!(host, "localhost" | "127.0.0.1" | "::1"), u16::try_from(port)) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let sandbox = Arc::clone(&self.inside.sandbox);
        self.forward(channel, reply, async move { sandbox.connect(port).await.map_err(std::io::Error::other) });
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let (inside, user, path) = (Arc::clone(&self.inside), self.user(), path.to_owned());
        self.forward(channel, reply, async move {
            let root = inside.sandbox.root().await.map_err(std::io::Error::other)?;
            let directory = inside.directory.clone();
            // A thread of its own: it is that user's to the kernel from then on.
            let work = move || {
                let files = Files::enter(root, user, directory).map_err(|error| error.source)?;
                files.connect(path.as_bytes()).map_err(std::io::Error::from)
            };
            session::in_thread(work).await?
        });
        Ok(())
    }
}

fn size(rows: u32, columns: u32) -> (u16, u16) {
    let bounded = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (bounded(rows), bounded(columns))
}
