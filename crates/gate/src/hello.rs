//! The first message of a TLS client (RFC 8446, section 4.1.2), put together from its records: whom it wants to talk to.
//!
//! Strict: what is not a well-formed ClientHello is refused, never guessed at. Bounded: 16 KiB of message are enough for
//! post-quantum key shares, and nothing is read twice.

use cofferdam_policy::egress::HostName;

/// Most bytes of records that are looked at.
pub const MOST_BYTES: usize = 20 << 10;
const MOST_MESSAGE: usize = 16 << 10;
const RECORD_HEADER: usize = 5;
const LARGEST_RECORD: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Encrypted ClientHello (`encrypted_client_hello`, RFC 9849): the name in clear would not be the one that counts.
const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A beginning.
    More,
    /// No ClientHello, or one that is refused.
    Bad(&'static str),
    /// A whole one, to this name.
    To(HostName),
}

/// Looks at the bytes that a client has sent so far.
pub fn look(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(Some(message)) => match parse(&message) {
            Ok(name) => Hello::To(name),
            Err(why) => Hello::Bad(why),
        },
        Ok(None) if bytes.len() >= MOST_BYTES => Hello::Bad("a ClientHello of more than 16 KiB"),
        Ok(None) => Hello::More,
        Err(why) => Hello::Bad(why),
    }
}

/// The handshake message without its header, once all of it is there.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut joined = Vec::new();
    let mut rest = bytes;
    loop {
        match rest.first() {
            None => return Ok(None),
            Some(kind) if *kind != HANDSHAKE => return Err("no TLS"),
            Some(_) => {}
        }
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Err("no TLS");
        }
        let Some(header) = rest.get(..RECORD_HEADER) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > LARGEST_RECORD {
            return Err("a TLS record of a length that is not allowed");
        }
        let available = rest.len().min(RECORD_HEADER + length);
        joined.extend(&rest[RECORD_HEADER..available]);
        if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err("TLS that does not begin with a ClientHello");
        }
        if let Some(wanted) = joined.get(1..4) {
            let wanted = usize::from(wanted[0]) << 16 | usize::from(wanted[1]) << 8 | usize::from(wanted[2]);
            if wanted > MOST_MESSAGE {
                return Err("a ClientHello of more than 16 KiB");
            }
            // What the record's header promises counts, whether it is here yet or not.
            let still_to_come = RECORD_HEADER + length - available;
            if joined.len() + still_to_come > 4 + wanted {
                return Err("bytes behind the ClientHello in its record");
            }
            if joined.len() == 4 + wanted {
                return Ok(Some(joined.split_off(4)));
            }
        }
        if available < RECORD_HEADER + length {
            return Ok(None);
        }
        rest = &rest[available..];
    }
}

/// Takes pieces off the front; an error once too little is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    const SHORT: &'static str = "a ClientHello whose lengths do not fit";

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, &'static str> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What is behind a length of so many bytes.
    fn counted(&mut self, bytes: usize) -> Result<Self, &'static str> {
        let length = self.number(bytes)?;
        self.take(length).map(Reader)
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err(Self::SHORT) }
    }
}

fn parse(message: &[u8]) -> Result<HostName, &'static str> {
    let mut hello = Reader(message);
    hello.take(2 + 32)?; // version, random
    hello.counted(1)?; // session
    hello.counted(2)?; // cipher suites
    hello.counted(1)?; // compression
    if hello.0.is_empty() {
        return Err("a ClientHello without a server name");
    }
    let mut extensions = hello.counted(2)?;
    hello.end()?;
    let mut name = None;
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)? as u16;
        let body = extensions.counted(2)?;
        if seen.contains(&kind) {
            return Err("a ClientHello with an extension twice");
        }
        seen.push(kind);
        match kind {
            SERVER_NAME => name = Some(server_name(body)?),
            ENCRYPTED_HELLO => return Err("an encrypted ClientHello: the name that counts cannot be seen"),
            _ => {}
        }
    }
    name.ok_or("a ClientHello without a server name")
}

fn server_name(mut body: Reader<'_>) -> Result<HostName, &'static str> {
    let mut list = body.counted(2)?;
    body.end()?;
    if list.number(1)? != usize::from(HOST_NAME) {
        return Err("a server name of an unknown kind");
    }
    let name = list.counted(2)?;
    list.end().map_err(|_| "more than one server name")?;
    let text = std::str::from_utf8(name.0).map_err(|_| "a server name that is none")?;
    HostName::from_wire(text).map_err(|_| "a server name that is none")
}

#[cfg(test)]
mod tests;
