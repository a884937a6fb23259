//! The gate's process: takes registrations on a socket, serves each sandbox for as long as its supervisor stays connected, and ends when there has
//! been none for a while.

use crate::dial::{Dialer, WayOut};
use crate::protocol::{MOST_BYTES, Reply, Request};
use crate::sandbox::{Sandbox, Sockets};
use crate::wire::{Listeners, Wire};
use cofferdam_sys::{channel, readiness};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

const BACKLOG: i32 = 128;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REGISTER_FDS: usize = 6;

/// Binds the socket that supervisors find; whatever stood at its place is replaced.
pub fn bind_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Serves until no sandbox has been registered for `idle`. The calling process may only be entered by its own user: the
/// socket's directory sees to that. `lent`: of a sidecar, what it hands out.
pub async fn run(listener: OwnedFd, idle: Duration, lent: Option<Wire>) -> io::Result<()> {
    let lent = lent.map(Arc::new);
    let listener = readiness::register(listener)?;
    let dialer = Arc::new(Dialer::default());
    let registered = Arc::new(AtomicUsize::new(0));
    let mut last_busy = Instant::now();
    loop {
        tokio::select! {
            ready = listener.readable() => {
                match ready?.try_io(|fd| Ok(accept_with(fd.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)) {
                    Ok(Ok(connection)) => {
                        let (dialer, registered, lent) = (Arc::clone(&dialer), Arc::clone(&registered), lent.clone());
                        registered.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(async move {
                            let _ = converse(connection, dialer, lent.as_deref()).await;
                            registered.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                    Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
                    Err(_would_block) => {}
                }
            }
            () = sleep(LOOK_EVERY) => {}
        }
        if registered.load(Ordering::SeqCst) > 0 {
            last_busy = Instant::now();
        } else if last_busy.elapsed() >= idle {
            return Ok(());
        }
    }
}

/// One supervisor: its sandbox is served until it hangs up.
async fn converse(connection: OwnedFd, dialer: Arc<Dialer>, lent: Option<&Wire>) -> io::Result<()> {
    let connection = readiness::register(connection)?;
    let mut sandbox: Option<Sandbox> = None;
    while let Some((bytes, fds)) = receive(&connection).await? {
        let (reply, fds) = match (serde_json::from_slice::<Request>(&bytes), lent) {
            (Ok(Request::Sockets), Some(lent)) => (Reply::Done { generation: 0, closed: 0 }, sockets(lent)),
            (Ok(request), _) => (obey(&mut sandbox, request, fds, &dialer), Vec::new()),
            (Err(error), _) => (Reply::Refused { why: error.to_string() }, Vec::new()),
        };
        send(&connection, &serde_json::to_vec(&reply)?, &fds).await?;
    }
    Ok(())
}

fn sockets(lent: &Wire) -> Vec<BorrowedFd<'_>> {
    let listeners =
        lent.listeners.iter().flat_map(|Listeners { tcp_v4, tcp_v6, dns_tcp }| [dns_tcp.as_fd(), tcp_v4.as_fd(), tcp_v6.as_fd()]);
    [lent.resolver.as_fd()].into_iter().chain(listeners).chain([lent.refusals.as_fd()]).collect()
}

fn obey(sandbox: &mut Option<Sandbox>, request: Request, fds: Vec<OwnedFd>, dialer: &Arc<Dialer>) -> Reply {
    let refused = |why: String| Reply::Refused { why };
    match (request, sandbox.as_ref()) {
        (Request::Register { policy, outside }, None) => {
            let fds: Result<[OwnedFd; REGISTER_FDS], _> = fds.try_into();
            let Ok([dns_udp, dns_tcp, tcp_v4, tcp_v6, record, names]) = fds else {
                return refused(format!("{REGISTER_FDS} descriptors are wanted"));
            };
            let sockets = Sockets { dns_udp, dns_tcp, tcp_v4, tcp_v6, record, names };
            match WayOut::new(dialer, outside).and_then(|out| Sandbox::serve(sockets, policy, out)) {
                Ok(served) => {
                    *sandbox = Some(served);
                    Reply::Done { generation: 1, closed: 0 }
                }
                Err(error) => refused(error.to_string()),
            }
        }
        (Request::Register { .. }, Some(_)) => refused("this connection has its sandbox".into()),
        (Request::Replace { policy }, Some(sandbox)) => {
            let (generation, closed) = sandbox.replace(policy);
            Reply::Done { generation, closed }
        }
        (Request::Flush, Some(sandbox)) => match sandbox.flush() {
            Ok(()) => Reply::Done { generation: 0, closed: 0 },
            Err(error) => refused(error.to_string()),
        },
        (Request::Health, _) => Reply::Done { generation: 0, closed: 0 },
        (Request::Sockets, _) => refused("this gate has no network of its own".into()),
        (Request::Replace { .. } | Request::Flush, None) => refused("no sandbox is registered here".into()),
    }
}

async fn receive(connection: &AsyncFd<OwnedFd>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    loop {
        let mut ready = connection.readable().await?;
        // Not before: thousands of sandboxes have nothing to say.
        let mut bytes = vec![0; MOST_BYTES];
        match ready.try_io(|fd| channel::receive(fd.get_ref(), &mut bytes).map_err(|error| error.source)) {
            Ok(Ok((0, _))) => return Ok(None),
            Ok(Ok((length, fds))) => {
                bytes.truncate(length);
                return Ok(Some((bytes, fds)));
            }
            Ok(Err(error)) if error.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()) => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

async fn send(connection: &AsyncFd<OwnedFd>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut ready = connection.writable().await?;
        match ready.try_io(|fd| channel::send(fd.get_ref(), bytes, fds).map_err(|error| error.source)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}
