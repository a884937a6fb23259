//! A sandbox's connection to the gate: found or started, registered, registered again when the gate is lost, and the record of
//! its decisions taken over.
//!
//! ```text
//! find the gate, else start it (under a lock) ─▶ sockets from the engine ─▶ register ─▶ … ─▶ it hangs up ─▶ the next one
//! ```
//! The supervisor keeps duplicates of the sockets: while no gate serves them nothing leaves, and nobody inside can take their ports.

mod starting;

use crate::data::{DataDir, now};
use cofferdam_engine::{GateSockets, Wiring};
use cofferdam_gate::client::Gate;
use cofferdam_gate::ledger::{Line, Verdict};
use cofferdam_gate::protocol::{Outside, Request, VERSION};
use cofferdam_gate::{Decision, addresses_of_this_host};
use cofferdam_model::NewEvent;
use cofferdam_policy::egress::Policy;
use cofferdam_sys::{lock, readiness};
use starting::{LOOK_AGAIN, find_or_start};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a gate may take to write down what it has counted.
const WRITES_WITHIN: Duration = Duration::from_secs(2);
/// What a gate says when it can be connected to.
pub const READY: &str = "ready";
const TRIES: u32 = 20;
/// The record of a sandbox, in its directory.
const RECORD: &str = "gate.log";
/// Names that have an address there, beside it.
const NAMES: &str = "gate.names";
/// How much of it is in the database.
const TAKEN: &str = "gate.taken";

/// What a sandbox's network needs.
#[derive(Clone, Debug)]
pub struct GateRequest {
    /// What it may reach.
    pub policy: Policy,
    /// How this host reaches what is outside.
    pub outside: Outside,
    /// The program that is the gate when it is called with `gate`.
    pub program: PathBuf,
    /// Where the policy comes from, if it is to be followed.
    pub file: Option<PolicySource>,
}

/// A policy file that is followed as it changes.
#[derive(Clone)]
pub struct PolicySource {
    /// The file.
    pub path: PathBuf,
    /// Reads and compiles it, with what was said besides; an error is told to the user by it, too.
    pub compile: Arc<dyn Fn() -> Result<Policy, String> + Send + Sync>,
}

impl std::fmt::Debug for PolicySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySource").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What tells one state of a file from another.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    // A file that is gone is being replaced, or stays what it was.
    std::fs::metadata(path).ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

/// A policy file, and what was seen of it.
struct Followed {
    source: PolicySource,
    in_force: Option<Stamp>,
    seen: Option<Stamp>,
}

/// Where gates of a data directory are found.
pub fn gate_directory(data: &Path) -> PathBuf {
    data.join("gate")
}

/// The socket of this version's gate.
pub fn gate_socket(data: &Path) -> PathBuf {
    gate_directory(data).join(format!("v{VERSION}.sock"))
}

/// One sandbox's connection.
pub struct Gating {
    data: PathBuf,
    program: PathBuf,
    record: PathBuf,
    /// Whether the engine brings a gate for this sandbox alone: there is no other.
    brought: bool,
    followed: Mutex<Option<Followed>>,
    state: Mutex<State>,
}

struct State {
    policy: Policy,
    outside: Outside,
    sockets: Option<GateSockets>,
    gate: Option<Gate>,
    read: u64,
    decisions: BTreeMap<(Verdict, String, u16, String), Seen>,
    traffic: (u64, u64),
}

/// What is known of one destination.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The decision.
    pub decision: Decision,
    /// How often.
    pub count: u64,
}

impl Gating {
    /// Finds the gate, or starts it, before there is anything to serve; unless the engine brings one.
    pub fn begin(data: &DataDir, directory: &Path, request: GateRequest, brought: bool) -> io::Result<Arc<Self>> {
        let record = directory.join(RECORD);
        File::options().create(true).append(true).open(&record)?;
        let GateRequest { policy, mut outside, program, file } = request;
        if brought {
            outside.host = Some(addresses_of_this_host().map_err(|error| error.source)?);
        }
        let followed = file.map(|source| {
            let now = stamp(&source.path);
            Followed { source, in_force: now, seen: now }
        });
        write_policy(&record, &policy)?;
        let state = State { policy, outside, sockets: None, gate: None, read: 0, decisions: BTreeMap::new(), traffic: (0, 0) };
        let data = data.path().to_owned();
        let gating = Self { data, program, record, brought, followed: Mutex::new(followed), state: Mutex::new(state) };
        if !brought {
            let gate = find_or_start(&gating.data, &gating.program)?;
            gating.lock().gate = Some(gate);
        }
        Ok(Arc::new(gating))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine is told.
    pub fn wiring(self: &Arc<Self>) -> Wiring {
        let this = Arc::clone(self);
        let open = self.lock().policy.is_open();
        let take = move |mut sockets: GateSockets| {
            let mut state = this.lock();
            if let Some(gate) = sockets.gate.take() {
                state.gate = Some(Gate::from(gate));
            }
            state.sockets = Some(sockets);
            this.register(&mut state)
        };
        Wiring::Gate { open, take: Arc::new(take) }
    }

    /// Registers the sockets; with another gate if the one that was found has ended meanwhile.
    fn register(&self, state: &mut State) -> io::Result<()> {
        let mut last = io::Error::other("no gate");
        for _ in 0..TRIES {
            let gate = match state.gate.take() {
                Some(gate) => gate,
                None if self.brought => return Err(io::Error::other("its own gate has ended")),
                None => match find_or_start(&self.data, &self.program) {
                    Ok(gate) => gate,
                    Err(error) if is_gone(&error) => {
                        last = error;
                        std::thread::sleep(LOOK_AGAIN);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let Some(GateSockets { dns_udp, dns_tcp, tcp_v4, tcp_v6, .. }) = &state.sockets else {
                return Err(io::Error::other("the sandbox has no sockets yet"));
            };
            let record = File::options().read(true).append(true).open(&self.record)?.into();
            // The gate's for as long as it has the file: it writes what it has counted before it lets go.
            lock::lock_shared(&record).map_err(|error| error.source)?;
            let names = File::options().read(true).append(true).create(true).open(self.record.with_file_name(NAMES))?;
            let fds = [dns_udp.as_fd(), dns_tcp.as_fd(), tcp_v4.as_fd(), tcp_v6.as_fd(), record.as_fd(), names.as_fd()];
            let request = Request::Register { policy: state.policy.clone(), outside: state.outside.clone() };
            match gate.ask(&request, &fds) {
                Ok(_) => {
                    state.gate = Some(gate);
                    return Ok(());
                }
                Err(error) if is_gone(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Waits until the gate has hung up.
    pub async fn lost(&self) {
        let watched = self.lock().gate.as_ref().and_then(|gate| gate.as_fd().try_clone_to_owned().ok());
        match watched.map(readiness::register) {
            Some(Ok(watched)) => {
                while let Ok(mut ready) = watched.readable().await {
                    // An answer belongs to whoever has asked and holds the lock; the end is for everyone.
                    let _asked = self.lock();
                    let mut byte = [0; 1];
                    let peek = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
                    match rustix::net::recv(watched.get_ref(), &mut byte[..], peek) {
                        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => ready.clear_ready(),
                        // The end; or an answer that nobody asked for, which is no gate of ours.
                        _ => return,
                    }
                }
            }
            // Without a connection to watch there is none to lose; the next request will tell.
            _ => std::future::pending().await,
        }
    }

    /// Registers with another gate. Blocking.
    pub fn register_again(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.gate = None;
        self.register(&mut state)
    }

    /// Replaces the policy: its generation, and connections closed for it.
    pub fn replace(&self, policy: Policy) -> io::Result<(u64, u64)> {
        let mut state = self.lock();
        let gate = state.gate.as_ref().ok_or_else(|| io::Error::other("no gate"))?;
        let done = gate.ask(&Request::Replace { policy: policy.clone() }, &[])?;
        // It is in force: a gate that takes over has to get this one, whatever becomes of the file.
        state.policy = policy;
        write_policy(&self.record, &state.policy)?;
        Ok(done)
    }

    /// Whether there is a policy file to follow.
    pub fn follows(&self) -> bool {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Looks whether the policy file has changed since it came into force, and stays so from one look to the next: an editor may be writing. What
    /// came of it as an event of the sandbox. Blocking.
    pub fn follow(&self, subject: &str) -> Option<NewEvent> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let Followed { source, in_force, seen } = followed.as_mut()?;
        let found = stamp(&source.path)?;
        if Some(found) == *in_force || seen.replace(found) != Some(found) {
            return None;
        }
        *in_force = Some(found);
        let done = (source.compile)().and_then(|policy| self.replace(policy).map_err(|error| error.to_string()));
        let (kind, reason, data) = match done {
            Ok((generation, closed)) => ("policy.replaced", None, serde_json::json!({ "generation": generation, "closed": closed })),
            Err(why) => ("policy.refused", Some(format!("the old policy stays in force: {why}")), serde_json::Value::Null),
        };
        let rule = Some(source.path.display().to_string());
        let (actor, subject, kind) = ("cofferdam".to_owned(), subject.to_owned(), kind.to_owned());
        Some(NewEvent { time: now(), actor, subject, kind, rule, reason, data })
    }

    /// Takes over what the gate has written since the last time, as events of the sandbox.
    pub fn take_record(&self, subject: &str) -> Vec<NewEvent> {
        let mut state = self.lock();
        let mut events = Vec::new();
        // A record that cannot be read now is read later, or with the next sweep.
        let Ok(lines) = read_lines(&self.record, &mut state.read) else { return events };
        for line in lines {
            let Some(line) = line else {
                events.push(unreadable(subject));
                continue;
            };
            if let Some(decision) = &line.decision {
                let key = (decision.verdict, decision.host.clone(), decision.port, decision.protocol.clone());
                let seen = state.decisions.entry(key).or_insert_with(|| Seen { decision: decision.clone(), count: 0 });
                seen.count += line.count;
            }
            // A gate that took over counts from 0: the larger total is of the one that lived longer.
            if let Some((sent, received)) = line.traffic {
                state.traffic = (state.traffic.0.max(sent), state.traffic.1.max(received));
            }
            events.push(event_of(&line, subject));
        }
        events
    }

    /// What was taken over is committed: it need not be taken over again, whatever becomes of this process.
    pub fn taken(&self) {
        let read = self.lock().read;
        let _ = std::fs::write(self.record.with_file_name(TAKEN), read.to_string());
    }

    /// Makes the gate write down what it has counted, and lets go of it.
    pub fn finish(&self) {
        let state = self.lock();
        if let Some(gate) = &state.gate {
            let _ = gate.ask(&Request::Flush, &[]);
        }
    }

    /// Bytes out and in so far.
    pub fn traffic(&self) -> (u64, u64) {
        self.lock().traffic
    }

    /// Everything that was decided so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().decisions.values().cloned().collect()
    }
}

/// Beside the record, for `policy explain` and `policy allow`.
fn write_policy(record: &Path, policy: &Policy) -> io::Result<()> {
    let path = record.with_file_name("policy.json");
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(policy)?)?;
    std::fs::rename(new, path)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected)
}

/// Whole lines behind what was read before; None for one that says nothing.
fn read_lines(path: &Path, read: &mut u64) -> io::Result<Vec<Option<Line>>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*read))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    *read += whole as u64;
    let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The gate wrote something that cannot be read: a decision may be missing, and that is on record.
fn unreadable(subject: &str) -> NewEvent {
    NewEvent {
        time: now(),
        actor: "cofferdam".into(),
        subject: subject.to_owned(),
        kind: "network.unreadable".into(),
        rule: None,
        reason: Some("a line of the gate's record cannot be read".into()),
        data: serde_json::Value::Null,
    }
}

fn event_of(line: &Line, subject: &str) -> NewEvent {
    let decision = line.decision.as_ref();
    let other = if line.traffic.is_some() { "network.traffic" } else { "network.not_told_apart" };
    let kind = decision.map_or(other, |decision| match decision.verdict {
        Verdict::Allowed => "network.allowed",
        Verdict::Denied => "network.denied",
        Verdict::Failed => "network.failed",
    });
    let data = decision.map_or_else(
        || match line.traffic {
            Some((sent, received)) => serde_json::json!({ "sent_bytes": sent, "received_bytes": received }),
            None => serde_json::json!({ "count": line.count }),
        },
        |d| serde_json::json!({ "host": d.host, "port": d.port, "protocol": d.protocol, "count": line.count }),
    );
    NewEvent {
        time: now(),
        actor: "gate".into(),
        subject: subject.to_owned(),
        kind: kind.to_owned(),
        rule: decision.and_then(|decision| decision.rule.clone()),
        reason: decision.and_then(|decision| decision.reason.clone()),
        data,
    }
}

/// What a killed supervisor did not take over any more, for the sweep. The gate may still be writing down what it has counted: it is waited for.
pub fn leftover_record(directory: &Path, subject: &str) -> Vec<NewEvent> {
    wait_for_gate(&directory.join(RECORD));
    let taken = std::fs::read_to_string(directory.join(TAKEN)).ok().and_then(|text| text.parse().ok());
    let lines = read_lines(&directory.join(RECORD), &mut taken.unwrap_or(0)).unwrap_or_default();
    lines.iter().map(|line| line.as_ref().map_or_else(|| unreadable(subject), |line| event_of(line, subject))).collect()
}

/// A gate notices at once that its supervisor has gone. One that does not is not waited for any longer.
fn wait_for_gate(record: &Path) {
    let Ok(file) = File::open(record).map(OwnedFd::from) else { return };
    let begun = Instant::now();
    while matches!(lock::try_lock(&file, true), Ok(false)) && begun.elapsed() < WRITES_WITHIN {
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_on_record() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(RECORD), "{\"rubbish\n").expect("written");
        let events = leftover_record(directory.path(), "sandbox:x");
        assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["network.unreadable"]);
    }
}
