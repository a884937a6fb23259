//! Published ports: what connects to a port of the host's loopback is connected to one of the sandbox's.
//!
//! The supervisor listens on the host and dials inside, so that no rule of the sandbox changes and nothing inside reaches out.

use cofferdam_engine::Sandbox;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::sleep;

const MOST_CONNECTIONS: usize = 256;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens: a loopback address. Port 0 is one that is free.
    pub host: SocketAddr,
    /// The port inside.
    pub port: u16,
}

/// Published ports of one sandbox, until this is dropped.
#[derive(Debug, Default)]
pub struct Published {
    listeners: Vec<(TcpListener, u16)>,
    tasks: Vec<AbortHandle>,
}

impl Published {
    /// Takes the host's ports.
    pub fn bind(wanted: &[Publish]) -> std::io::Result<Self> {
        let mut listeners = Vec::new();
        for publish in wanted {
            let bound = TcpListener::bind(publish.host).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            let bound = bound.map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", publish.host)))?;
            listeners.push((bound, publish.port));
        }
        Ok(Self { listeners, tasks: Vec::new() })
    }

    /// Host's address and sandbox's port of each.
    pub fn list(&self) -> Vec<(SocketAddr, u16)> {
        self.listeners.iter().filter_map(|(listener, port)| Some((listener.local_addr().ok()?, *port))).collect()
    }

    /// Begins to connect.
    pub fn serve(&mut self, sandbox: &Arc<dyn Sandbox>) -> std::io::Result<()> {
        for (listener, port) in &self.listeners {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            self.tasks.push(tokio::spawn(accept(listener, Arc::clone(sandbox), *port)).abort_handle());
        }
        Ok(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, sandbox: Arc<dyn Sandbox>, port: u16) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let sandbox = Arc::clone(&sandbox);
        tokio::spawn(async move {
            // Nobody listens there yet, or any more: the client sees its connection closed.
            if let Ok(server) = sandbox.connect(port).await
                && let Ok(server) = connected(server.into())
            {
                let _ = cofferdam_gate::relay::run(&client, &server, &[], &cofferdam_gate::relay::Traffic::default()).await;
            }
            drop(permit);
        });
    }
}

fn connected(stream: std::net::TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}
