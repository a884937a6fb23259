//! A start that the daemon has been asked for. The container's pid 1 runs, connects and may end before the daemon has answered: nothing waits for
//! that but what the daemon is asked next.

use crate::daemon::{Daemon, failed};
use bollard::errors::Error;
use bollard::models::ContainerWaitResponse;
use bollard::query_parameters::{StartContainerOptions, WaitContainerOptionsBuilder};
use cofferdam_engine::EngineError;
use futures_util::{Stream, StreamExt};
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

    /// What went wrong before its pid 1 connected; never, as long as it runs.
    pub async fn failed(&self) -> EngineError {
        if let Some(error) = self.answered().await {
            return error;
        }
        let ended = match self.ended().next().await {
            Some(Ok(ended)) => format!(" with status {}", ended.status_code),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => format!(" with status {code}"),
            _ => String::new(),
        };
        EngineError::host("start the container", std::io::Error::other(format!("its pid 1 ended{ended} before it connected")))
    }

    fn ended(&self) -> impl Stream<Item = Result<ContainerWaitResponse, Error>> + Unpin + use<> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        Box::pin(self.daemon.client.wait_container(&self.id, Some(options)))
    }

    /// Waits until the daemon knows that the container, all of whose processes have been killed, has ended. One that it takes for running
    /// it would kill again when it is to be removed, by a program of its own.
    pub async fn noticed_end(&self) {
        let _ = self.answered().await;
        // An error is the exit status, or of a daemon that is away: what is asked next says so.
        let _ = tokio::time::timeout(NOTICED_WITHIN, self.ended().next()).await;
    }
}
