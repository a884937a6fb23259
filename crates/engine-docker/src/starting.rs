//! A start that the daemon has been asked for. The container's pid 1 runs, connects and may end before the daemon has answered: nothing waits for
//! that but what the daemon is asked next.

use crate::daemon::{Daemon, failed};
use bollard::errors::Error;
use bollard::query_parameters::{StartContainerOptions, WaitContainerOptionsBuilder};
use cofferdam_engine::EngineError;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How long a daemon may take to notice that a container has ended.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// One container's start.
#[derive(Debug)]
pub struct Starting {
    daemon: Daemon,
    id: String,
    request: Mutex<Option<JoinHandle<Result<(), Error>>>>,
}

impl Starting {
    /// Asks for it.
    pub fn begin(daemon: &Daemon, id: &str) -> Self {
        let (daemon, id) = (daemon.clone(), id.to_owned());
        let (client, container) = (daemon.client.clone(), id.clone());
        let request = tokio::spawn(async move { client.start_container(&container, None::<StartContainerOptions>).await });
        Self { daemon, id, request: Mutex::new(Some(request)) }
    }

    /// Waits for the answer: what went wrong, to whoever asks first.
    pub async fn answered(&self) -> Option<EngineError> {
        let mut request = self.request.lock().await;
        let answer = request.as_mut()?.await;
        *request = None;
        answer.ok()?.err().map(|error| failed("start the container", error))
    }

    /// What went wrong; never, if nothing does.
    pub async fn failed(&self) -> EngineError {
        match self.answered().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Waits until the daemon knows that the container, all of whose processes have been killed, has ended. One that it takes for running
    /// it would kill again when it is to be removed, by a program of its own.
    pub async fn noticed_end(&self) {
        let _ = self.answered().await;
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut end = self.daemon.client.wait_container(&self.id, Some(options));
        // An error is the exit status, or of a daemon that is away: what is asked next says so.
        let _ = tokio::time::timeout(NOTICED_WITHIN, end.next()).await;
    }
}
