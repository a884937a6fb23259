//! A proxy between this host and the internet: asked to connect (`CONNECT`, RFC 9110, section 9.3.6) to exactly what was checked.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: usize = 8 << 10;
const DEFAULT_PORT: u16 = 3128;

/// Where it is. It is the operator's, so its address is not checked; names and passwords in its URL are refused, since they would
/// have to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    host: String,
    port: u16,
}

/// Text that names no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no proxy that can be used: http://HOST:PORT is wanted, without a name or password")]
pub struct UpstreamError(String);

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        let wrong = || UpstreamError(text.split('@').next_back().unwrap_or(text).to_owned());
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '@', '?', '#']) || authority.chars().any(char::is_whitespace) {
            return Err(wrong());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {}:{}", self.host, self.port)
    }
}

impl Upstream {
    /// A connection to `target` (an address, or a name that only the proxy can resolve) through the proxy.
    pub async fn connect(&self, target: &str) -> io::Result<TcpStream> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{self} did not answer"));
        timeout(ANSWER_WITHIN, self.ask(target)).await.map_err(late)?
    }

    async fn ask(&self, target: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        // A byte at a time: what follows the head is the destination's.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= LONGEST_ANSWER {
                return Err(io::Error::other(format!("{self} gave an answer without an end")));
            }
            answer.push(stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let agreed = first.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2');
        if agreed { Ok(stream) } else { Err(io::Error::other(format!("{self} answered {first:?}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        for (text, shown) in [
            ("http://proxy.example:8080", "proxy proxy.example:8080"),
            ("http://proxy.example:8080/", "proxy proxy.example:8080"),
            ("proxy.example:8080", "proxy proxy.example:8080"),
            ("http://10.0.0.1", "proxy 10.0.0.1:3128"),
            ("http://[fd00::1]:8080", "proxy fd00::1:8080"),
        ] {
            assert_eq!(text.parse::<Upstream>().expect(text).to_string(), shown);
        }
        for text in [
            "",
            "http://",
            "https://proxy.example:8080",
            "http://user:secret@proxy.example:8080",
            "http://a b:1",
            "http://a:port",
            "socks5://a:1",
        ] {
            let error = text.parse::<Upstream>().expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    async fn answered(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let upstream: Upstream = listener.local_addr()?.to_string().parse().map_err(io::Error::other)?;
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut asked = vec![0; 200];
            let length = stream.read(&mut asked).await.expect("reads");
            stream.write_all(answer).await.expect("writes");
            asked.truncate(length);
            asked
        });
        let mut stream = upstream.connect("93.184.0.2:443").await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        assert_eq!(proxy.await.expect("no panic"), b"CONNECT 93.184.0.2:443 HTTP/1.1\r\nHost: 93.184.0.2:443\r\n\r\n");
        Ok(rest)
    }

    #[tokio::test]
    async fn answers() {
        assert_eq!(answered(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nfirst bytes").await.expect("agreed"), b"first bytes");
        for answer in [&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], b"HTTP/1.1 407 x\r\n\r\n", b"SSH-2.0-x 200\r\n\r\n", b"HTTP/1.1 200", b""] {
            assert!(answered(answer).await.is_err(), "{:?}", String::from_utf8_lossy(answer));
        }
    }
}
