//! SSH into a sandbox: a server that speaks over two descriptors and starts processes through the engine's port.
//!
//! Invariants: who reaches the descriptors may do everything with the sandbox already, so nobody is asked for a key; nothing is
//! forwarded from the sandbox to its host; a connection's end ends what it started, or leaves it inside. Design: `docs/design/ssh.md`.
//! Start reading at [`serve`].
#![forbid(unsafe_code)]

mod connection;
mod key;
mod session;
mod sftp;
mod stream;

pub use key::{HOSTS, HostKey, HostKeyFiles};

use cofferdam_engine::Sandbox;
use cofferdam_trust::{Accounts, User};
use connection::{Connection, Sessions};
use russh::server::Config;
use russh::{MethodKind, MethodSet, SshId};
use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// What a connection leads to.
#[derive(Clone)]
pub struct Inside {
    /// The sandbox.
    pub sandbox: Arc<dyn Sandbox>,
    /// Environment of its processes.
    pub environment: Vec<Vec<u8>>,
    /// Where they start.
    pub directory: String,
    /// Its own user.
    pub user: User,
    /// Its other users.
    pub accounts: Accounts,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").field("directory", &self.directory).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Serves one connection until its client has gone or `stop` is done, in this thread.
pub fn serve(inside: Inside, key: &HostKey, (from, to): (OwnedFd, OwnedFd), stop: impl Future<Output = ()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sessions = Sessions::default();
    let served = runtime.block_on(async {
        let stream = stream::Both::new(from, to)?;
        let connection = Connection::new(Arc::new(inside.clone()), sessions.clone());
        let begun = russh::server::run_stream(Arc::new(config(key)), stream, connection);
        tokio::select! {
            ended = async { begun.await?.await } => ended.map_err(io::Error::other),
            () = stop => Ok(()),
        }
    });
    runtime.block_on(sessions.hang_up(&*inside.sandbox));
    // A thread that serves files ends with its pipes; it is not waited for.
    runtime.shutdown_background();
    served
}

fn config(key: &HostKey) -> Config {
    /// Nobody guesses here: there is nothing to guess.
    const REJECTION: Duration = Duration::from_millis(50);
    Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-cofferdam")),
        methods: MethodSet::from(&[MethodKind::None][..]),
        auth_rejection_time: REJECTION,
        keys: vec![key.key.clone()],
        inactivity_timeout: None,
        ..Config::default()
    }
}
