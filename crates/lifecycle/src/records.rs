//! The records, in a thread of their own: a database call blocks, and the supervisor must not.

use crate::supervisor::SupervisorError;
use cofferdam_store::{Store, StoreError};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;
use tokio::sync::oneshot;

const STACK_BYTES: usize = 512 << 10;

type Work = Box<dyn FnOnce(&mut Store) + Send>;

/// A handle on the thread, which ends with it.
#[derive(Debug)]
pub struct Records {
    work: Sender<Work>,
}

/// A thread that is still opening the database.
#[derive(Debug)]
pub struct Opening {
    records: Records,
    opened: oneshot::Receiver<Result<(), StoreError>>,
}

impl Records {
    /// Starts the thread and opens the database there.
    pub fn open(open: impl FnOnce() -> Result<Store, StoreError> + Send + 'static) -> Result<Opening, SupervisorError> {
        let (work, works) = channel::<Work>();
        let (sender, opened) = oneshot::channel();
        let serve = move || {
            let result = open();
            let mut store = match result {
                Ok(store) => store,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let _ = sender.send(Ok(()));
            while let Ok(work) = works.recv() {
                work(&mut store);
            }
        };
        let started = Builder::new().name("records".into()).stack_size(STACK_BYTES).spawn(serve);
        started.map_err(|source| SupervisorError::Io { what: "start a thread", source })?;
        Ok(Opening { records: Self { work }, opened })
    }

    /// Does something with the records, and waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SupervisorError> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |store| {
            let _ = sender.send(work(store));
        });
        self.work.send(work).map_err(|_| lost())?;
        Ok(receiver.await.map_err(|_| lost())??)
    }
}

impl Opening {
    /// Waits until the database is open and what was to be done first is done.
    pub async fn opened(self) -> Result<Records, SupervisorError> {
        self.opened.await.map_err(|_| lost())??;
        Ok(self.records)
    }
}

fn lost() -> SupervisorError {
    SupervisorError::Io { what: "write the records", source: io::Error::other("their thread has ended") }
}
