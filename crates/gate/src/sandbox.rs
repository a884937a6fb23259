//! One sandbox in the gate: its names, its policy, its connections.
//!
//! ```text
//! query ─▶ a name that is allowed somewhere? ─▶ its synthetic address : NXDOMAIN
//! connection ─▶ to which name (or address)? ─▶ decide ─▶ first bytes name the same? ─▶ record ─▶ dial ─▶ relay
//!                     └────────────────────────────┴───────────┴── no: record, reset
//! ```

use crate::destination::{Destination, first_bytes};
use crate::dial::{self, DialError, Way, WayOut};
use crate::dns::{self, Answer, TYPE_A, TYPE_AAAA};
use crate::ledger::{Decision, Ledger, Verdict};
use crate::names::{Names, is_synthetic};
use crate::relay;
use crate::requests::Requests;
use crate::wire::Refusal;
use cofferdam_policy::egress::{Denial, HostName, Policy, Protocol};
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

const MOST_CONNECTIONS: usize = 1024;
/// Names that are being resolved for one sandbox: slow ones must not use up what others need.
const MOST_RESOLVING: usize = 8;
const MOST_DNS_CONNECTIONS: usize = 32;
const LARGEST_QUERY: usize = 4096;
/// How long a client may take for its first bytes where they are looked at.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(10);
const DNS_IDLE: Duration = Duration::from_secs(10);
const FLUSH_EVERY: Duration = Duration::from_secs(2);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// What the supervisor hands over for one sandbox.
#[derive(Debug)]
pub struct Sockets {
    /// DNS over UDP.
    pub dns_udp: OwnedFd,
    /// DNS over TCP.
    pub dns_tcp: OwnedFd,
    /// Connections over IPv4.
    pub tcp_v4: OwnedFd,
    /// Connections over IPv6.
    pub tcp_v6: OwnedFd,
    /// The record.
    pub record: OwnedFd,
    /// The file of its names, for reading and appending.
    pub names: OwnedFd,
}

struct Live {
    destination: Destination,
    port: u16,
    task: AbortHandle,
}

struct Current {
    generation: u64,
    policy: Arc<Policy>,
}

/// A sandbox that is being served. Its sockets are closed when this is dropped.
pub struct Sandbox {
    state: Arc<State>,
    tasks: Vec<AbortHandle>,
}

struct State {
    current: Mutex<Current>,
    names: Mutex<Names>,
    ledger: Mutex<Ledger>,
    live: Mutex<HashMap<u64, Live>>,
    next: AtomicU64,
    connections: Arc<Semaphore>,
    /// Of its questions, over UDP and TCP together.
    pace: tokio::sync::Mutex<Pace>,
    resolving: Semaphore,
    out: WayOut,
    traffic: relay::Traffic,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// Begins to serve; what is allowed leaves by `out`.
    pub fn serve(sockets: Sockets, policy: Policy, out: WayOut) -> std::io::Result<Self> {
        let Sockets { dns_udp, dns_tcp, tcp_v4, tcp_v6, record, names } = sockets;
        let state = Arc::new(State {
            current: Mutex::new(Current { generation: 1, policy: Arc::new(policy) }),
            names: Mutex::new(Names::open(File::from(names))?),
            ledger: Mutex::new(Ledger::new(File::from(record))),
            live: Mutex::default(),
            next: AtomicU64::new(1),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            pace: tokio::sync::Mutex::new(Pace::new()),
            resolving: Semaphore::new(MOST_RESOLVING),
            out,
            traffic: relay::Traffic::default(),
        });
        let udp = UdpSocket::from_std(std::net::UdpSocket::from(dns_udp))?;
        let mut tasks = vec![tokio::spawn(answer_datagrams(Arc::clone(&state), udp)).abort_handle()];
        tasks.push(tokio::spawn(answer_connections(Arc::clone(&state), listener(dns_tcp)?)).abort_handle());
        for tcp in [tcp_v4, tcp_v6] {
            tasks.push(tokio::spawn(accept(Arc::clone(&state), listener(tcp)?)).abort_handle());
        }
        tasks.push(tokio::spawn(flush_now_and_then(Arc::clone(&state))).abort_handle());
        Ok(Self { state, tasks })
    }

    /// Replaces the policy in one step and closes what it no longer allows: the new generation, and how many were closed.
    pub fn replace(&self, policy: Policy) -> (u64, u64) {
        let policy = Arc::new(policy);
        let generation = {
            let mut current = lock(&self.state.current);
            current.generation += 1;
            current.policy = Arc::clone(&policy);
            current.generation
        };
        let mut closed = 0;
        // A connection that was decided before is in this list before it is made (see `handle`).
        lock(&self.state.live).retain(|_, live| {
            let stays = live.destination.decide(&policy, live.port).is_ok();
            if !stays {
                live.task.abort();
                closed += 1;
            }
            stays
        });
        (generation, closed)
    }

    /// Puts on record what the kernel has refused.
    pub fn refused(&self, refusal: &Refusal) {
        self.state.deny(
            &Destination::Address(refusal.destination),
            refusal.port,
            &refusal.protocol_name(),
            None,
            "refused by the rules of its network",
        );
    }

    /// Writes down what is counted.
    pub fn flush(&self) -> std::io::Result<()> {
        let mut ledger = lock(&self.state.ledger);
        ledger.flush(true)?;
        ledger.traffic(self.state.traffic.total())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for live in lock(&self.state.live).values() {
            live.task.abort();
        }
        let _ = self.flush();
    }
}

fn listener(fd: OwnedFd) -> std::io::Result<TcpListener> {
    TcpListener::from_std(std::net::TcpListener::from(fd))
}

async fn flush_now_and_then(state: Arc<State>) {
    loop {
        sleep(FLUSH_EVERY).await;
        // A record that cannot be written denies the next new destination; nothing else can be done here.
        let _ = lock(&state.ledger).flush(false);
    }
}

impl State {
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&lock(&self.current).policy)
    }

    /// Answers one query; None if it deserves none.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = dns::read_query(query)?;
        let decided = match HostName::from_wire(&question.name) {
            Ok(name) => self.policy().resolves(&name).map(|()| name),
            Err(error) => Err(Denial { rule: None, reason: error.why.to_owned() }),
        };
        let answer = match &decided {
            Err(_) => Answer::NoName,
            Ok(name) if question.kind == TYPE_A || question.kind == TYPE_AAAA => {
                lock(&self.names).address(name, question.kind == TYPE_AAAA).map_or(Answer::NoName, Answer::Address)
            }
            Ok(_) => Answer::NoData,
        };
        if let Err(Denial { rule, reason }) = decided {
            let (host, protocol) = (question.name.clone(), "dns".to_owned());
            let decision = Decision { verdict: Verdict::Denied, host, port: 0, protocol, rule, reason: Some(reason) };
            let _ = lock(&self.ledger).record(decision);
        }
        Some(dns::write_answer(query, &question, answer))
    }

    fn deny(&self, to: &Destination, port: u16, protocol: &str, rule: Option<String>, reason: impl Into<String>) {
        self.note(Verdict::Denied, to, port, protocol, rule, Some(reason.into()));
    }

    fn note(&self, verdict: Verdict, to: &Destination, port: u16, protocol: &str, rule: Option<String>, reason: Option<String>) {
        let decision = Decision { verdict, host: to.text(), port, protocol: protocol.to_owned(), rule, reason };
        let _ = lock(&self.ledger).record(decision);
    }
}

/// A sandbox that floods does not take a processor from the others: 20,000 questions are answered at once, 10,000 a second after that. What comes
/// beyond fills the socket's buffer and is lost, in the time of the sandbox that asked.
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    const MOST: u32 = 20_000;
    const EACH_MILLISECOND: u32 = 10;

    fn new() -> Self {
        Self { left: Self::MOST, since: Instant::now() }
    }

    async fn keep(&mut self) {
        while self.left == 0 {
            sleep(Duration::from_millis(1)).await;
            let passed = u32::try_from(self.since.elapsed().as_millis()).unwrap_or(u32::MAX);
            self.left = passed.saturating_mul(Self::EACH_MILLISECOND).min(Self::MOST);
            self.since = Instant::now();
        }
        self.left -= 1;
    }
}

async fn answer_datagrams(state: Arc<State>, socket: UdpSocket) {
    let mut query = [0u8; LARGEST_QUERY];
    loop {
        state.pace.lock().await.keep().await;
        match socket.recv_from(&mut query).await {
            Ok((length, from)) => {
                if let Some(answer) = state.answer(&query[..length]) {
                    // A full buffer loses the answer, as a network would: the client asks again.
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
    }
}

async fn answer_connections(state: Arc<State>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(MOST_DNS_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            reset(&stream);
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _ = answer_stream(&state, stream).await;
            drop(permit);
        });
    }
}

/// Queries behind two bytes of length (RFC 1035, section 4.2.2).
async fn answer_stream(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    let mut query = [0u8; LARGEST_QUERY];
    loop {
        let mut length = [0; 2];
        timeout(DNS_IDLE, stream.read_exact(&mut length)).await??;
        let length = usize::from(u16::from_be_bytes(length));
        let Some(place) = query.get_mut(..length) else {
            reset(&stream);
            return Ok(());
        };
        timeout(DNS_IDLE, stream.read_exact(place)).await??;
        state.pace.lock().await.keep().await;
        let Some(answer) = state.answer(&query[..length]) else { return Ok(()) };
        let mut message = (answer.len() as u16).to_be_bytes().to_vec();
        message.extend(answer);
        timeout(DNS_IDLE, stream.write_all(&message)).await??;
    }
}

/// The connection ends with a reset, not an end of data that could be taken for an empty answer.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn accept(state: Arc<State>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, most likely: those that are there go on, and end.
            sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&state.connections).try_acquire_owned() else {
            reset(&stream);
            continue;
        };
        let Ok(dialled) = stream.local_addr() else { continue };
        let id = state.next.fetch_add(1, Ordering::Relaxed);
        let destination = match destination(&state, dialled) {
            Ok(destination) => destination,
            Err((destination, why)) => {
                state.deny(&destination, dialled.port(), "tcp", None, why);
                reset(&stream);
                continue;
            }
        };
        // In the list before it is decided: a policy that comes meanwhile closes it.
        let mut live = lock(&state.live);
        let task = tokio::spawn(serve_one(Arc::clone(&state), id, stream, destination.clone(), dialled.port(), permit));
        live.insert(id, Live { destination, port: dialled.port(), task: task.abort_handle() });
    }
}

/// Which name, or address, a connection to this address is meant for.
fn destination(state: &State, dialled: SocketAddr) -> Result<Destination, (Destination, &'static str)> {
    let address = dialled.ip();
    if let Some(name) = lock(&state.names).name_of(address) {
        return Ok(Destination::Name(name.clone()));
    }
    let here = Destination::Address(address);
    if is_synthetic(address) {
        return Err((here, "no name has this address"));
    }
    if address.is_loopback() {
        return Err((here, "it is the gate's own listener"));
    }
    Ok(here)
}

async fn serve_one(
    state: Arc<State>,
    id: u64,
    mut client: TcpStream,
    to: Destination,
    port: u16,
    _permit: tokio::sync::OwnedSemaphorePermit,
) {
    // Whatever ends this task early ends the connection with a reset.
    reset(&client);
    let _ = client.set_nodelay(true);
    if let Some(opened) = open(&state, &mut client, &to, port).await {
        let server = &opened.server;
        reset(server);
        if carry(&state, &client, &opened, &to, port).await.is_ok() {
            // Both directions have ended well: what is on its way arrives.
            for stream in [&client, server] {
                let _ = socket2::SockRef::from(stream).set_linger(None);
            }
        }
    }
    lock(&state.live).remove(&id);
}

/// A connection that was allowed, and made.
struct Opened {
    server: TcpStream,
    /// What the client has sent already.
    first: Vec<u8>,
    rule: String,
    protocol: Protocol,
}

/// Relays; of plain HTTP every request is looked at.
async fn carry(state: &State, client: &TcpStream, opened: &Opened, to: &Destination, port: u16) -> std::io::Result<()> {
    let Opened { server, first, rule, protocol } = opened;
    let (Protocol::Http, Destination::Name(name)) = (protocol, to) else {
        return relay::run(client, server, first, &state.traffic).await;
    };
    let mut requests = Requests::new(name.clone(), port);
    let mut look = |bytes: &[u8]| {
        requests.take(bytes).map_err(|why| {
            state.deny(to, port, protocol.name(), Some(rule.clone()), why.clone());
            std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)
        })
    };
    look(first)?;
    relay::run_looking(client, server, first, look, &state.traffic).await
}

/// Decides, looks at the first bytes, records, dials. None: it was denied or failed, and that is on record.
async fn open(state: &State, client: &mut TcpStream, to: &Destination, port: u16) -> Option<Opened> {
    let policy = state.policy();
    let permit = match to.decide(&policy, port) {
        Ok(permit) => permit,
        Err(denial) => {
            state.deny(to, port, "tcp", denial.rule, denial.reason);
            return None;
        }
    };
    let protocol = permit.protocol.name();
    let first = match timeout(FIRST_BYTES_WITHIN, first_bytes(client, to, port, permit.protocol)).await {
        Ok(Ok(first)) => first,
        Ok(Err(why)) => {
            state.deny(to, port, protocol, Some(permit.rule), why);
            return None;
        }
        Err(_) => {
            state.deny(to, port, protocol, Some(permit.rule), format!("no {protocol} within {} s", FIRST_BYTES_WITHIN.as_secs()));
            return None;
        }
    };
    let rule = Some(permit.rule.clone());
    let allowed =
        Decision { verdict: Verdict::Allowed, host: to.text(), port, protocol: protocol.to_owned(), rule: rule.clone(), reason: None };
    // What cannot be put on record is not allowed.
    lock(&state.ledger).record(allowed).ok()?;
    let WayOut { upstream, asker, host, .. } = &state.out;
    let way = Way { policy: &policy, permit: &permit, upstream: upstream.as_ref(), asker: asker.as_deref(), host: host.as_deref() };
    let dialled = match to {
        Destination::Name(name) => state.out.dialer.to_name(way, name, port, &state.resolving).await,
        Destination::Address(address) => dial::to_address(way, *address, port).await,
    };
    match dialled {
        Ok(server) => Some(Opened { server, first, rule: permit.rule.clone(), protocol: permit.protocol }),
        Err(DialError::Denied(why)) => {
            state.deny(to, port, protocol, rule, why);
            None
        }
        Err(DialError::Failed(why)) => {
            state.note(Verdict::Failed, to, port, protocol, rule, Some(why));
            None
        }
    }
}
