//! Bytes both ways between a workload and its destination, each direction to its own end.
//!
//! Small exchanges go through one buffer of the thread, so that an idle connection holds none. A direction that has carried a lot is
//! spliced through a pipe: the bytes stay in the kernel. What a slow reader does not take stays in the sockets, whose windows close.

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::net::TcpStream;

const BUFFER_BYTES: usize = 64 << 10;
/// What a direction carries before it is spliced.
const SPLICE_AFTER: u64 = 256 << 10;
const PIPE_BYTES: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// Bytes that have been carried, of all connections of a sandbox.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes out, and bytes in.
    pub fn total(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Sends what was read of the client already, then relays until both directions have ended; an error of one ends both.
pub async fn run(client: &TcpStream, server: &TcpStream, first: &[u8], traffic: &Traffic) -> io::Result<()> {
    write_all(server, first).await?;
    count(&traffic.sent, first.len());
    tokio::try_join!(carry(client, server, &traffic.sent), carry(server, client, &traffic.received)).map(|_| ())
}

/// The same, and every byte of the client is looked at before it goes on.
pub async fn run_looking(
    client: &TcpStream,
    server: &TcpStream,
    first: &[u8],
    look: impl FnMut(&[u8]) -> io::Result<()>,
    traffic: &Traffic,
) -> io::Result<()> {
    write_all(server, first).await?;
    count(&traffic.sent, first.len());
    let looking = carry_looking(client, server, look, &traffic.sent);
    tokio::try_join!(looking, carry(server, client, &traffic.received)).map(|_| ())
}

async fn carry_looking(
    from: &TcpStream,
    to: &TcpStream,
    mut look: impl FnMut(&[u8]) -> io::Result<()>,
    counter: &AtomicU64,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let read = BUFFER.with_borrow_mut(|buffer| {
            let length = from.try_read(buffer)?;
            look(&buffer[..length])?;
            Ok::<_, io::Error>(buffer[..length].to_vec())
        });
        match read {
            Ok(bytes) if bytes.is_empty() => return end(to),
            Ok(bytes) => {
                write_all(to, &bytes).await?;
                count(counter, bytes.len());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// One direction to its end, which is passed on.
async fn carry(from: &TcpStream, to: &TcpStream, counter: &AtomicU64) -> io::Result<()> {
    let mut carried = 0;
    while carried < SPLICE_AFTER {
        from.readable().await?;
        match step(from, to) {
            Ok((0, _)) => return end(to),
            Ok((length, rest)) => {
                carried += length as u64;
                write_all(to, &rest).await?;
                count(counter, length);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Less than that is what an unprivileged user gets when there are many.
    let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
    while let length @ 1.. = fill(from, &write).await? {
        drain(&read, to, length).await?;
        count(counter, length);
    }
    end(to)
}

/// Reads once and writes once: how much was read, and what could not be written.
fn step(from: &TcpStream, to: &TcpStream) -> io::Result<(usize, Vec<u8>)> {
    BUFFER.with_borrow_mut(|buffer| {
        let length = from.try_read(buffer)?;
        let bytes = &buffer[..length];
        let written = if bytes.is_empty() { Ok(0) } else { to.try_write(bytes) };
        match written {
            Ok(written) => Ok((length, bytes[written..].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((length, bytes.to_vec())),
            Err(error) => Err(error),
        }
    })
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Waits for bytes and moves them into the empty pipe: how many, 0 at the end.
async fn fill(from: &TcpStream, pipe: &OwnedFd) -> io::Result<usize> {
    from.async_io(Interest::READABLE, || Ok(splice(from, None, pipe, None, PIPE_BYTES, SPLICE)?)).await
}

/// Moves everything in the pipe on.
async fn drain(pipe: &OwnedFd, to: &TcpStream, mut length: usize) -> io::Result<()> {
    while length > 0 {
        length -= to.async_io(Interest::WRITABLE, || Ok(splice(pipe, None, to, None, length, SPLICE)?)).await?;
    }
    Ok(())
}

fn end(to: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(to).shutdown(Shutdown::Write) {
        // It has gone meanwhile: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().expect("bound")), listener.accept());
        (one.expect("connects"), other.expect("accepts").0)
    }

    /// A workload, a relay and a destination: sizes below, at and far above where splicing begins, both ways at once.
    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order() {
        for size in [0usize, 1, 65_536, 512 << 10, (512 << 10) + 1, 5_000_000] {
            let ((mut workload, client), (server, mut destination)) = (pair().await, pair().await);
            let traffic = std::sync::Arc::new(Traffic::default());
            let counted = std::sync::Arc::clone(&traffic);
            let relay = tokio::spawn(async move { run(&client, &server, b"first", &counted).await });
            let bytes: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
            let answered = tokio::spawn(async move {
                let mut got = Vec::new();
                destination.read_to_end(&mut got).await.expect("reads");
                destination.write_all(&got).await.expect("writes");
                got.len()
            });
            workload.write_all(&bytes).await.expect("writes");
            workload.shutdown().await.expect("half closes");
            let mut back = Vec::new();
            workload.read_to_end(&mut back).await.expect("reads");
            assert_eq!(answered.await.expect("no panic"), size + 5);
            assert!(back[..5] == *b"first" && back[5..] == bytes[..], "{size}");
            relay.await.expect("no panic").expect("ends well");
            assert_eq!(traffic.total(), (size as u64 + 5, size as u64 + 5));
        }
    }

    /// A reader that takes nothing stops its own writer, and costs no memory here.
    #[tokio::test]
    async fn a_slow_reader_stops_its_writer() {
        let ((workload, client), (server, _destination)) = (pair().await, pair().await);
        let relay = tokio::spawn(async move { run(&client, &server, b"", &Traffic::default()).await });
        let chunk = vec![0; 1 << 20];
        let mut sent = 0u64;
        let stalled = loop {
            let write = tokio::time::timeout(std::time::Duration::from_millis(500), async {
                workload.writable().await.expect("writable");
                workload.try_write(&chunk)
            });
            match write.await {
                Ok(Ok(length)) => sent += length as u64,
                Ok(Err(_)) => {}
                Err(_) => break true,
            }
            if sent > 1 << 30 {
                break false;
            }
        };
        assert!(stalled, "{sent} bytes went nowhere");
        relay.abort();
    }
}
