//! The records of one sandbox. A short run never opens the database: it appends to the journal beside it. What needs the database is done
//! in a thread of its own, because a call of it blocks and the supervisor must not.

use crate::supervisor::SupervisorError;
use cofferdam_model::{NewEvent, SandboxRecord};
use cofferdam_store::{Durability, Entry, Journal, Store, StoreError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;
use tokio::sync::oneshot;

const STACK_BYTES: usize = 512 << 10;

type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;
type Work = Box<dyn FnOnce(Result<&mut Store, StoreError>) + Send>;

/// A handle on the thread, if there is one; it ends with this.
#[derive(Debug)]
pub struct Records {
    database: PathBuf,
    thread: OnceLock<Sender<Work>>,
}

/// That a sandbox is being made, on its way to the records.
#[derive(Debug)]
pub struct Intent(Option<Answer<()>>);

impl Records {
    /// In this database; nothing is opened yet.
    pub fn of(database: PathBuf) -> Self {
        Self { database, thread: OnceLock::new() }
    }

    /// Records that a sandbox is being made: with `journal` that has been done when this returns.
    pub fn intend(&self, record: &SandboxRecord, event: NewEvent, journal: bool) -> Result<Intent, SupervisorError> {
        let record = record.clone();
        if journal {
            Journal::of(&self.database).append(&Entry::Made(record, vec![event]), Durability::Normal)?;
            return Ok(Intent(None));
        }
        Ok(Intent(Some(self.begin(move |store| store.sandbox_insert(&record, &[event], Durability::Normal))?)))
    }

    /// Records an end, so that a power loss does not take it back. True if others are recorded that have not ended; false if nobody looked.
    pub async fn end(&self, record: &SandboxRecord, events: Vec<NewEvent>) -> Result<bool, SupervisorError> {
        let record = record.clone();
        if self.thread.get().is_some() {
            let update = move |store: &mut Store| {
                store.sandbox_update(&record, &events, Durability::Full)?;
                store.sandbox_any_live()
            };
            return self.run(update).await;
        }
        let database = self.database.clone();
        let append = move || append_end(&database, &Entry::Ended(record, events));
        tokio::task::spawn_blocking(append).await.map_err(|_| lost())??;
        Ok(false)
    }

    /// Does something with the database, and waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SupervisorError> {
        Ok(self.begin(work)?.await.map_err(|_| lost())??)
    }

    /// The same without waiting.
    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Answer<T>, SupervisorError> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |store| {
            let _ = sender.send(store.and_then(work));
        });
        self.thread()?.send(work).map_err(|_| lost())?;
        Ok(receiver)
    }

    fn thread(&self) -> Result<&Sender<Work>, SupervisorError> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread);
        }
        let (sender, works) = channel::<Work>();
        let database = self.database.clone();
        let serve = move || {
            let mut store = match Store::open(&database) {
                Ok(store) => store,
                Err(error) => {
                    // Whoever asked first is told.
                    if let Ok(work) = works.recv() {
                        work(Err(error));
                    }
                    return;
                }
            };
            while let Ok(work) = works.recv() {
                work(Ok(&mut store));
            }
        };
        let started = Builder::new().name("records".into()).stack_size(STACK_BYTES).spawn(serve);
        started.map_err(|source| SupervisorError::Io { what: "start a thread", source })?;
        Ok(self.thread.get_or_init(|| sender))
    }
}

impl Intent {
    /// Waits until it is committed.
    pub async fn committed(self) -> Result<(), SupervisorError> {
        match self.0 {
            Some(answer) => Ok(answer.await.map_err(|_| lost())??),
            None => Ok(()),
        }
    }
}

fn append_end(database: &Path, entry: &Entry) -> Result<(), StoreError> {
    let long = Journal::of(database).append(entry, Durability::Full)?;
    if long {
        Store::open(database)?;
    }
    Ok(())
}

fn lost() -> SupervisorError {
    SupervisorError::Io { what: "write the records", source: io::Error::other("their thread has ended") }
}
