//! A sandbox from the start of its main process to the commit of its exit.

use super::streams::Pumps;
use super::{Health, Inspect, Kept, Outcome, SupervisorError, event};
use crate::control::{self, Command, Defaults, Surroundings};
use crate::data::now;
use crate::gating::Gating;
use crate::publish::Published;
use crate::pump::Output;
use crate::records::Records;
use crate::usage::Usage;
use cofferdam_engine::{Changes, Control, EngineError, EngineEvent, ExitStatus, Observation, Process, Sandbox, Transfer};
use cofferdam_model::{NewEvent, Reason, SandboxRecord, Timestamp};
use cofferdam_store::Durability;
use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep, sleep_until};

/// In a sandbox's directory: what it changed of its view, as a layer's archive.
pub const CHANGES: &str = "changes.tar";
/// How often the gate's record is taken over.
const LOOK_AT_RECORD: Duration = Duration::from_millis(500);
const LARGEST_HEALTH: u64 = 1 << 20;
/// What lives shorter gets neither a control socket nor a record of running.
const SETTLED: Duration = Duration::from_millis(5);

/// A sandbox whose main process runs.
pub(super) struct Running {
    pub(super) gating: Option<Arc<Gating>>,
    pub(super) published: Published,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) process: Process,
    pub(super) output: Arc<Output>,
    pub(super) pumps: Pumps,
    pub(super) events: UnboundedReceiver<EngineEvent>,
    pub(super) receiver: UnboundedReceiver<Command>,
    pub(super) sender: UnboundedSender<Command>,
    pub(super) directory: PathBuf,
    pub(super) defaults: Defaults,
    pub(super) health: Option<Health>,
    pub(super) kept_for: Option<(Kept, Arc<Usage>)>,
    pub(super) actor: String,
}

impl Running {
    /// Until the main process has ended; returns why if something else than itself ended it.
    pub(super) async fn supervise(
        &mut self,
        record: &mut SandboxRecord,
        store: &Records,
        ready: Option<Box<dyn FnOnce() + '_>>,
    ) -> Result<Option<Reason>, SupervisorError> {
        let deadline = record.limits.timeout.map(|timeout| Instant::now() + timeout.duration());
        let mut why = None;
        let mut unhealthy = 0;
        let health = self.health.clone();
        let between = health.as_ref().map_or(Duration::MAX, |health| health.every);
        let mut next_look = health.as_ref().map(|_| Instant::now() + between);
        if ready.is_none() {
            tokio::select! {
                biased;
                _ = self.process.wait() => return Ok(why),
                () = sleep(SETTLED) => {}
            }
        }
        let _server = control::serve(self.surroundings(), self.defaults.clone(), self.sender.clone())
            .map_err(|source| SupervisorError::Io { what: "open the control socket", source })?;
        write_metadata(&self.directory, record);
        let mut started = event(record, &self.actor, "sandbox.started", None);
        let published: Vec<String> = self.published.list().iter().map(|(host, port)| format!("{host} -> {port}")).collect();
        if !published.is_empty() {
            started.data = serde_json::json!({ "published": published });
        }
        let recorded = record.clone();
        store.run(move |store| store.sandbox_update(&recorded, &[started], Durability::Normal)).await?;
        if let Some(ready) = ready {
            ready();
        }
        loop {
            let time_out = async {
                match deadline.filter(|_| why.is_none()) {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            let look_at_health = async {
                match next_look.filter(|_| why.is_none()) {
                    Some(next) => sleep_until(next).await,
                    None => pending().await,
                }
            };
            let gate_lost = async {
                match &self.gating {
                    Some(gating) => gating.lost().await,
                    None => pending().await,
                }
            };
            let unused = async {
                match self.kept_for.as_ref().filter(|_| why.is_none()) {
                    Some((kept, usage)) => usage.over(kept.idle).await,
                    None => pending().await,
                }
            };
            let look_at_record = async {
                match &self.gating {
                    Some(_) => sleep(LOOK_AT_RECORD).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.process.wait() => return Ok(why),
                () = gate_lost => {
                    if let Err(error) = self.find_another_gate().await {
                        record.detail = Some(format!("the gate was lost, and no other could be started: {error}"));
                        why.get_or_insert(Reason::GateLost);
                        self.sandbox.control(Control::Kill).await?;
                    }
                }
                () = unused => {
                    why = Some(Reason::Unused);
                    self.sandbox.control(Control::Kill).await?;
                }
                () = look_at_health => {
                    next_look = Some(Instant::now() + between);
                    if let Some(health) = &health {
                        unhealthy = if self.is_healthy(health).await { 0 } else { unhealthy + 1 };
                        if unhealthy >= health.tries {
                            why = Some(Reason::Unhealthy);
                            self.sandbox.control(Control::Kill).await?;
                        }
                    }
                }
                () = look_at_record => self.take_record(record, store).await?,
                Some(command) = self.receiver.recv() => self.obey(command, &mut why).await?,
                () = time_out => {
                    why = Some(Reason::TimeLimit);
                    self.sandbox.control(Control::Kill).await?;
                }
                Some(EngineEvent::Refused(refused)) = self.events.recv() => {
                    let mut event = event(record, "cofferdam", "network.refused", Some("no policy allows it".into()));
                    event.data = serde_json::to_value(&refused).unwrap_or_default();
                    store.run(move |store| store.event_insert(&[event])).await?;
                }
            }
        }
    }

    async fn is_healthy(&self, health: &Health) -> bool {
        let (source, target) = (health.file.clone(), self.directory.join("health"));
        let there = self.sandbox.transfer(Transfer::Out { source, target: target.clone(), most_bytes: LARGEST_HEALTH }).await.is_ok();
        let _ = std::fs::remove_file(target);
        there
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            directory: &self.directory,
            sandbox: &self.sandbox,
            gating: self.gating.as_ref(),
            main: &self.process,
            output: &self.output,
            usage: self.kept_for.as_ref().map(|(_, usage)| usage),
        }
    }

    async fn find_another_gate(&self) -> std::io::Result<()> {
        let Some(gating) = self.gating.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || gating.register_again()).await.map_err(std::io::Error::other)?
    }

    /// Takes over what the gate has decided.
    async fn take_record(&self, record: &SandboxRecord, store: &Records) -> Result<(), SupervisorError> {
        let Some(gating) = &self.gating else { return Ok(()) };
        let subject = format!("sandbox:{}", record.id);
        let followed = if gating.follows() {
            let (gating, subject) = (Arc::clone(gating), subject.clone());
            tokio::task::spawn_blocking(move || gating.follow(&subject)).await.ok().flatten()
        } else {
            None
        };
        let mut events = gating.take_record(&subject);
        events.extend(followed);
        if !events.is_empty() {
            store.run(move |store| store.event_insert(&events)).await?;
            gating.taken();
        }
        Ok(())
    }

    async fn obey(&self, command: Command, why: &mut Option<Reason>) -> Result<(), EngineError> {
        match command {
            Command::Stop { grace } => {
                if why.is_none() {
                    *why = Some(Reason::Stopped);
                    // Commands are obeyed while it takes its time: a kill must not wait.
                    let sandbox = Arc::clone(&self.sandbox);
                    tokio::spawn(async move { sandbox.control(Control::Stop { grace }).await });
                }
            }
            Command::Kill => {
                why.get_or_insert(Reason::Killed);
                self.sandbox.control(Control::Kill).await?;
            }
            Command::Signal(number) => self.sandbox.control(Control::Signal { process: self.process.id, number }).await?,
            Command::Resize(rows, columns) => {
                if let Some(terminal) = &self.process.terminal {
                    resize(terminal.as_fd(), rows, columns);
                }
            }
            Command::Pause => self.sandbox.control(Control::Pause).await?,
            Command::Resume => self.sandbox.control(Control::Resume).await?,
        }
        Ok(())
    }

    /// What it changed of its view outlives it.
    async fn keep_changes(&self) -> std::io::Result<()> {
        let path = self.directory.join(CHANGES);
        let out = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let wanted = Changes { out, epoch: i64::MAX, leave_out: vec![".git".into()], of_view: true };
        self.sandbox.changes(wanted).await.map(|_| ()).map_err(std::io::Error::other)
    }

    pub(super) async fn finish(
        mut self,
        mut record: SandboxRecord,
        why: Option<Reason>,
        store: Records,
        inspect: Option<Inspect<'_>>,
    ) -> Result<(Outcome, Records), SupervisorError> {
        let status = self.process.wait().await;
        drop(self.process.terminal.take());
        if let Some(inspect) = inspect {
            inspect(Arc::clone(&self.sandbox)).await;
        }
        let observation = self.sandbox.observe().await?;
        for pump in std::mem::take(&mut self.pumps) {
            // A panicked pump has lost output, not the exit.
            let _ = pump.join();
        }
        self.output.close();
        settle(&mut record, why, status, &observation);
        if record.view.is_some()
            && let Err(error) = self.keep_changes().await
        {
            record.detail = Some(format!("what it changed of the tree could not be kept: {error}"));
        }
        if let Some(gating) = &self.gating {
            gating.finish();
        }
        self.take_record(&record, &store).await?;
        let decisions = self.gating.as_ref().map_or_else(Vec::new, |gating| gating.seen());
        let traffic = self.gating.as_ref().map_or((0, 0), |gating| gating.traffic());
        if record.kept {
            write_metadata(&self.directory, &record);
        }
        let mut events =
            vec![event(&record, &self.actor, &format!("sandbox.{}", record.phase), record.reason.map(|r| r.name().to_owned()))];
        events.extend(refusals(&record, &observation));
        let commit = store.end(&record, events);
        drop(self.published);
        let sandbox = self.sandbox;
        let delete = async move {
            let deleted = sandbox.delete().await;
            // What it still holds is let go while the disk writes.
            drop(sandbox);
            deleted
        };
        let (others, deleted) = tokio::join!(commit, delete);
        deleted?;
        Ok((Outcome { record, observation, decisions, traffic, others: others? }, store))
    }
}

/// Sets a terminal's size; a terminal that is gone has none.
pub fn resize(terminal: std::os::fd::BorrowedFd<'_>, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// For those who look into the directory: what is recorded, as JSON. The database decides; a full disk is no reason to fail.
fn write_metadata(directory: &Path, record: &SandboxRecord) {
    if let Ok(text) = serde_json::to_vec_pretty(record) {
        let _ = std::fs::write(directory.join("metadata.json"), text);
    }
}

/// Works out how it ended from what was seen.
fn settle(record: &mut SandboxRecord, why: Option<Reason>, status: ExitStatus, observation: &Observation) {
    const SIGKILL: i32 = 9;
    let killed = status == ExitStatus::Signal(SIGKILL);
    let reason = match why {
        Some(why) => why,
        None if killed && observation.out_of_memory_kills > 0 => Reason::OutOfMemory,
        None if killed => Reason::Killed,
        None => Reason::Exited,
    };
    record.phase = reason.phase();
    record.reason = Some(reason);
    record.exit_code = Some(status.shell_code());
    record.detail = match reason {
        Reason::OutOfMemory => Some(format!("the memory limit of {} was reached", record.limits.memory)),
        Reason::GateLost => record.detail.take(),
        Reason::Unhealthy => Some("its description was gone".into()),
        Reason::TimeLimit => record.limits.timeout.map(|timeout| format!("the time limit of {timeout} was reached")),
        _ => None,
    };
    let time: Timestamp = now();
    record.ended_at = Some(time);
    record.removed_at = (!record.kept).then_some(time);
}

/// One event for each refused destination, with its count.
fn refusals(record: &SandboxRecord, observation: &Observation) -> Vec<NewEvent> {
    let repeated = observation.refused.iter().filter(|refused| refused.count > 1 || record.started_at.is_some());
    let mut events: Vec<NewEvent> = repeated
        .map(|refused| {
            let mut event = event(record, "cofferdam", "network.refused_total", Some("no policy allows it".into()));
            event.data = serde_json::to_value(refused).unwrap_or_default();
            event
        })
        .collect();
    if observation.refused_unnamed > 0 {
        let mut event = event(record, "cofferdam", "network.refused_total", Some("more destinations than are kept one by one".into()));
        event.data = serde_json::json!({ "count": observation.refused_unnamed });
        events.push(event);
    }
    events
}

#[cfg(test)]
mod tests;
