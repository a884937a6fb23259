//! Every request of an HTTP/1 connection, not the first alone (RFC 9112): where one ends and the next begins, and whom it is for.
//!
//! Nothing is changed on the way, so what is ambiguous is refused: two lengths, a length and chunks, another encoding, a line end that is
//! none. A destination that counts differently than this has no room to.

use crate::head::{self, Framing, Head};
use cofferdam_policy::egress::HostName;

/// Most bytes of one chunk's first line, extensions left out.
const LONGEST_CHUNK_LINE: usize = 18;
const LARGEST_CHUNK: u64 = 1 << 40;
const MOST_TRAILERS: usize = 8 << 10;

enum State {
    /// Within a head.
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    /// Within the line that says how long a chunk is.
    ChunkLine,
    /// So many bytes of a chunk are to come, its line end among them.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers,
}

/// The requests of one connection to one allowed name.
pub struct Requests {
    name: HostName,
    port: u16,
    state: State,
    /// What of a head, a line or trailers is there.
    part: Vec<u8>,
}

impl Requests {
    /// None yet.
    pub const fn new(name: HostName, port: u16) -> Self {
        Self { name, port, state: State::Head, part: Vec::new() }
    }

    /// Looks at the next bytes of the client; an error is the end of the connection, and none of them goes on.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Body(left) => self.pass(bytes, left, State::Head, State::Body)?,
                State::Chunk(left) => self.pass(bytes, left, State::ChunkLine, State::Chunk)?,
                State::Head => self.until(bytes, b"\r\n\r\n", head::MOST_BYTES, Self::head)?,
                State::ChunkLine => self.until(bytes, b"\r\n", LONGEST_CHUNK_LINE, Self::chunk_line)?,
                State::Trailers => self.until(bytes, b"\r\n", MOST_TRAILERS, Self::trailer)?,
            };
        }
        Ok(())
    }

    /// Counts bytes whose content is of no interest, but for the line end behind a chunk.
    fn pass<'a>(&mut self, bytes: &'a [u8], left: u64, next: State, same: fn(u64) -> State) -> Result<&'a [u8], String> {
        let taken = left.min(bytes.len() as u64);
        let (passed, rest) = bytes.split_at(taken as usize);
        if matches!(self.state, State::Chunk(_)) {
            for (offset, byte) in passed.iter().enumerate() {
                let wanted = match left - offset as u64 {
                    2 => b'\r',
                    1 => b'\n',
                    _ => continue,
                };
                if *byte != wanted {
                    return Err("a chunk that does not end where it said".into());
                }
            }
        }
        self.state = if taken == left { next } else { same(left - taken) };
        Ok(rest)
    }

    /// Collects up to an end, then looks at what was collected.
    fn until<'a>(
        &mut self,
        bytes: &'a [u8],
        end: &[u8],
        most: usize,
        look: fn(&mut Self) -> Result<(), String>,
    ) -> Result<&'a [u8], String> {
        for (index, byte) in bytes.iter().enumerate() {
            self.part.push(*byte);
            if self.part.ends_with(end) {
                look(self)?;
                self.part.clear();
                return Ok(&bytes[index + 1..]);
            }
            if self.part.len() >= most {
                return Err("a part of an HTTP message that is too long".into());
            }
        }
        Ok(&[])
    }

    fn head(&mut self) -> Result<(), String> {
        match head::look(&self.part) {
            Head::To(name, port, framing) => {
                check(&name, port, &self.name, self.port)?;
                self.state = match framing {
                    Framing::Nothing => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunks => State::ChunkLine,
                };
                if matches!(self.state, State::Body(0)) {
                    self.state = State::Head;
                }
                Ok(())
            }
            Head::Bad(why) => Err(why.to_owned()),
            Head::More => Err("no HTTP/1 request".to_owned()),
        }
    }

    fn chunk_line(&mut self) -> Result<(), String> {
        let digits = self.part.strip_suffix(b"\r\n").unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = u64::from_str_radix(text, 16).ok().filter(|length| hexadecimal && *length <= LARGEST_CHUNK);
        self.state = match length.ok_or("a chunk without a length")? {
            0 => State::Trailers,
            length => State::Chunk(length + 2),
        };
        Ok(())
    }

    /// The line that ends the trailers ends the request.
    fn trailer(&mut self) -> Result<(), String> {
        if self.part == b"\r\n" {
            self.state = State::Head;
            return Ok(());
        }
        let plain = self.part[..self.part.len() - 2].iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        if plain && self.part.contains(&b':') { Ok(()) } else { Err("a trailer that is none".into()) }
    }
}

/// Whether a request is for the name and port that were allowed.
pub fn check(name: &HostName, port: Option<u16>, allowed: &HostName, allowed_port: u16) -> Result<(), String> {
    const DEFAULT_PORT: u16 = 80;
    if name != allowed {
        return Err(format!("it names {name}"));
    }
    match port.unwrap_or(DEFAULT_PORT) {
        port if port == allowed_port => Ok(()),
        port => Err(format!("a Host with port {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Requests {
        Requests::new("a.example".parse().expect("a name"), 80)
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    const OTHER: &str = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";

    /// Several requests in every split: all of them pass, and a last one for another host never does.
    #[test]
    fn every_request_is_looked_at() {
        let bodies = [
            String::new(),
            GET.to_owned(),
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{OTHER}", OTHER.len()),
            format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{:x}\r\n{OTHER}\r\n0\r\n\r\n",
                OTHER.len()
            ),
            "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n".to_owned(),
            "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ];
        for first in &bodies {
            for second in &bodies {
                let good = format!("{first}{second}{GET}");
                let bad = format!("{first}{second}{OTHER}");
                for size in [1, 2, 7, 64, 10_000] {
                    let mut stream = requests();
                    good.as_bytes().chunks(size).for_each(|piece| stream.take(piece).expect(&good));
                    let mut stream = requests();
                    let refused = bad.as_bytes().chunks(size).any(|piece| stream.take(piece).is_err());
                    assert!(refused, "{bad}");
                }
            }
        }
    }

    #[test]
    fn ambiguity_is_refused() {
        let head = "POST / HTTP/1.1\r\nHost: a.example\r\n";
        for rest in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "Content-Length: +5\r\n\r\n",
            "Content-Length: 5, 5\r\n\r\n",
            "Content-Length: 0x5\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: chunked, chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: identity\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n-5\r\n",
            "Transfer-Encoding: chunked\r\n\r\n 5\r\n",
            "Transfer-Encoding: chunked\r\n\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\nfffffffffffffff1\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ] {
            assert!(requests().take(format!("{head}{rest}").as_bytes()).is_err(), "{rest:?}");
        }
    }

    #[test]
    fn no_other_protocol_follows() {
        for protocol in ["websocket", "h2c", "x"] {
            let text = format!("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
            assert!(requests().take(text.as_bytes()).is_err(), "{protocol}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = requests().take(&bytes);
            let mut stream = requests();
            stream.take(b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").expect("passes");
            let _ = stream.take(&bytes);
        }
    }
}
