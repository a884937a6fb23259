//! The other side: a command that talks to a sandbox's supervisor.

use super::{LARGEST_MESSAGE, Reply, Request, SOCKET_NAME};
use cofferdam_sys::channel;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A connection to a supervisor. Blocking.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the sandbox does not run.
    #[error("the sandbox is not running")]
    NotRunning,
    /// The supervisor refused.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// Exit status.
        code: i32,
    },
    /// The connection failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The supervisor ended meanwhile.
    #[error("the sandbox ended")]
    Ended,
}

/// One message from the supervisor.
#[derive(Debug)]
pub enum Incoming {
    /// An answer, with its descriptors.
    Reply(Reply, Vec<OwnedFd>),
    /// A piece of a stream: first byte and bytes.
    Piece(u8, Vec<u8>),
}

impl Client {
    /// Connects to the supervisor of the sandbox with this directory.
    pub fn connect(directory: &Path) -> Result<Self, ClientError> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
        let path = directory.join(SOCKET_NAME);
        let short = super::short_path(&path)?;
        let address = SocketAddrUnix::new(short.path()).map_err(io::Error::from)?;
        connect(&socket, &address).map_err(|_| ClientError::NotRunning)?;
        Ok(Self { socket })
    }

    /// Sends a request with descriptors.
    pub fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let bytes = serde_json::to_vec(request).map_err(io::Error::other)?;
        if bytes.len() > LARGEST_MESSAGE {
            let why = format!("the request has {} bytes, {LARGEST_MESSAGE} is the most: pass large values through a file", bytes.len());
            return Err(ClientError::Refused { message: why, code: 125 });
        }
        channel::send(self.socket.as_fd(), &bytes, fds).map_err(|e| ClientError::Io(e.source))
    }

    /// Sends a piece of input.
    pub fn send_input(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(super::PIECE_INPUT);
        message.extend(bytes);
        channel::send(self.socket.as_fd(), &message, &[]).map_err(|e| ClientError::Io(e.source))
    }

    /// The next message.
    pub fn receive(&self) -> Result<Incoming, ClientError> {
        let mut buffer = vec![0; LARGEST_MESSAGE + 1];
        let (length, fds) = channel::receive(self.socket.as_fd(), &mut buffer).map_err(|e| ClientError::Io(e.source))?;
        match buffer.first() {
            _ if length == 0 => Err(ClientError::Ended),
            Some(b'{') => match serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)? {
                Reply::Failed { message, code } => Err(ClientError::Refused { message, code }),
                reply => Ok(Incoming::Reply(reply, fds)),
            },
            _ => Ok(Incoming::Piece(buffer[0], buffer[1..length].to_vec())),
        }
    }

    /// Sends a request and takes its answer.
    pub fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request, &[])?;
        self.answer()
    }

    /// The next answer.
    pub fn answer(&self) -> Result<Reply, ClientError> {
        loop {
            if let Incoming::Reply(reply, _) = self.receive()? {
                return Ok(reply);
            }
        }
    }

    /// A second handle on the connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
