//! The head of an HTTP/1 request (RFC 9112): whom it is for. Ambiguity is refused.

use cofferdam_policy::egress::HostName;

/// Most bytes of a head.
pub const MOST_BYTES: usize = 16 << 10;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A beginning.
    More,
    /// No request, or one that is refused.
    Bad(&'static str),
    /// A whole head, for this host, with the port if one is said; and what follows it.
    To(HostName, Option<u16>, Framing),
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The next request.
    Nothing,
    /// A body of so many bytes.
    Length(u64),
    /// A body in chunks.
    Chunks,
}

/// Looks at the bytes that a client has sent so far.
pub fn look(bytes: &[u8]) -> Head {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        if bytes.len() >= MOST_BYTES {
            return Head::Bad("an HTTP head of more than 16 KiB");
        }
        return if plausible(bytes) { Head::More } else { Head::Bad("no HTTP/1 request") };
    };
    match parse(&bytes[..end]) {
        Ok(((host, port), framing)) => Head::To(host, port, framing),
        Err(why) => Head::Bad(why),
    }
}

/// Whether a beginning can still become a request.
fn plausible(bytes: &[u8]) -> bool {
    const LONGEST_METHOD: usize = 32;
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let token = method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-' || *byte == b'_');
    token && method.len() <= LONGEST_METHOD && !bytes.contains(&0)
}

type Authority = (HostName, Option<u16>);

fn parse(head: &[u8]) -> Result<(Authority, Framing), &'static str> {
    let text = std::str::from_utf8(head).map_err(|_| "bytes in an HTTP head that are no text")?;
    let mut lines = text.split("\r\n");
    let request = lines.next().unwrap_or_default();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a line end in an HTTP head that is none");
    }
    let mut words = request.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("no HTTP/1 request");
    };
    if method.is_empty() || !plausible(method.as_bytes()) || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err("no HTTP/1 request");
    }
    if method == "CONNECT" {
        return Err("a request to tunnel (CONNECT)");
    }
    let mut fields = Fields::default();
    lines.try_for_each(|line| fields.take(line))?;
    let host = authority(fields.host.ok_or("no Host")?)?;
    let framing = fields.framing()?;
    if target.starts_with('/') || target == "*" {
        return Ok((host, framing));
    }
    let rest = target.strip_prefix("http://").ok_or("a request target in an unknown form")?;
    let named = authority(rest.split(['/', '?']).next().unwrap_or(rest))?;
    if named == host { Ok((host, framing)) } else { Err("a Host that is not the one in the request line") }
}

/// The header fields that say whom a request is for and where it ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    length: Option<&'a str>,
    encoding: Option<&'a str>,
    upgrade: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a str) -> Result<(), &'static str> {
        if line.starts_with([' ', '\t']) {
            return Err("a folded header line");
        }
        let (name, value) = line.split_once(':').ok_or("a header line without a colon")?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err("a header name with a space");
        }
        let (place, twice) = match name.to_ascii_lowercase().as_str() {
            "host" => (&mut self.host, "more than one Host"),
            "content-length" => (&mut self.length, "more than one Content-Length"),
            "transfer-encoding" => (&mut self.encoding, "more than one Transfer-Encoding"),
            "upgrade" => (&mut self.upgrade, "more than one Upgrade"),
            _ => return Ok(()),
        };
        if place.replace(value.trim_matches([' ', '\t'])).is_some() { Err(twice) } else { Ok(()) }
    }

    fn framing(&self) -> Result<Framing, &'static str> {
        if self.upgrade.is_some() {
            // Whether the server agrees is its answer's affair: what follows could be requests that nobody looks at.
            return Err("a request for another protocol (Upgrade): where that is meant, the rule says protocol: tcp");
        }
        match (self.length, self.encoding) {
            (Some(_), Some(_)) => Err("a Content-Length and a Transfer-Encoding"),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunks),
            (None, Some(_)) => Err("a Transfer-Encoding that is not chunked"),
            (Some(length), None) => {
                let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                length.parse().ok().filter(|_| digits).map(Framing::Length).ok_or("a Content-Length that is none")
            }
            (None, None) => Ok(Framing::Nothing),
        }
    }
}

fn authority(text: &str) -> Result<Authority, &'static str> {
    const NONE: &str = "a Host that is none";
    let (host, port) = match text.split_once(':') {
        Some((host, port)) if port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, Some(port.parse().map_err(|_| NONE)?))
        }
        Some(_) => return Err(NONE),
        None => (text, None),
    };
    Ok((HostName::from_wire(host).map_err(|_| NONE)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, host, port) in [
            ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\nbody", "example.com", None),
            ("POST /a?b HTTP/1.0\r\nX: y\r\nhOST:\tExample.com:8080 \r\n\r\n", "example.com", Some(8080)),
            ("GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", None),
            ("OPTIONS * HTTP/1.1\r\nHost: example.com.\r\n\r\n", "example.com", None),
        ] {
            assert_eq!(look(text.as_bytes()), Head::To(host.parse().expect("a name"), port, Framing::Nothing), "{text}");
            let end = text.find("\r\n\r\n").expect("an end") + 3;
            assert!((0..end).all(|end| look(&text.as_bytes()[..end]) == Head::More), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example:\u{663}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nno colon\r\n\r\n",
            "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nX: \0\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "\x16\x03\x01",
            "SSH-2.0-x\r\n",
        ] {
            assert!(matches!(look(text.as_bytes()), Head::Bad(_)), "{text:?}: {:?}", look(text.as_bytes()));
        }
        assert!(matches!(look(&vec![b'A'; MOST_BYTES]), Head::Bad(_)));
        assert!(matches!(look(format!("GET /{} HTTP/1.1\r\n", "a".repeat(MOST_BYTES)).as_bytes()), Head::Bad(_)));
    }

    proptest::proptest! {
        /// Any bytes; and whatever header lines stand around it, a second `Host` is never overlooked.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), lines in proptest::collection::vec("[A-Za-z-]{1,9}: [ -~]{0,20}", 0..5)) {
            let _ = look(&bytes);
            let head = |hosts: &str| format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}{hosts}\r\n", lines.iter().fold(String::new(), |all, line| all + line + "\r\n"));
            let others = lines.iter().any(|line| ["host:", "upgrade:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name)));
            let looked = look(head("").as_bytes());
            proptest::prop_assert!(others || matches!(&looked, Head::To(name, None, _) if name.as_str() == "a.example"), "{looked:?}");
            proptest::prop_assert!(matches!(look(head("host: b.example\r\n").as_bytes()), Head::Bad(_)));
        }
    }
}
