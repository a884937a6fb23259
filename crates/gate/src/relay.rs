//! Bytes both ways between a workload and its destination, each direction to its own end.

use std::io;
use tokio::net::TcpStream;

/// Buffer of each direction. What a slow reader does not take stays in the sockets, whose windows close.
const BUFFER_BYTES: usize = 32 << 10;

/// Sends what was read of the client already, then relays until both directions have ended or one fails.
pub async fn run(client: &mut TcpStream, server: &mut TcpStream, first: &[u8]) -> io::Result<()> {
    tokio::io::AsyncWriteExt::write_all(server, first).await?;
    tokio::io::copy_bidirectional_with_sizes(client, server, BUFFER_BYTES, BUFFER_BYTES).await.map(|_| ())
}
