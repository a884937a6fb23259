//! The smallest resolver: every name is NXDOMAIN (RFC 1035 section 4.1.1, response code 3).

use std::fmt::Write;

const HEADER_BYTES: usize = 12;
const LONGEST_NAME: usize = 255;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, lower case, labels joined by dots, bytes outside printable ASCII as `\DDD`.
    pub name: String,
    /// Record type (1 A, 28 AAAA).
    pub kind: u16,
}

/// The answer to a query, with what it asked; None for what is no well-formed single-question query (it gets none).
pub fn answer_nxdomain(query: &[u8]) -> Option<(Vec<u8>, Question)> {
    let header = query.get(..HEADER_BYTES)?;
    let is_response = header[2] & 0x80 != 0;
    let opcode = header[2] & 0x78;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if is_response || opcode != 0 || questions != 1 {
        return None;
    }
    let (name, end) = read_name(query, HEADER_BYTES)?;
    let tail = query.get(end..end + 4)?;
    let kind = u16::from_be_bytes([tail[0], tail[1]]);
    let mut answer = query[..end + 4].to_vec();
    answer[2] = 0x80 | (header[2] & 0x01) | 0x04; // response, authoritative, recursion desired as asked
    answer[3] = 0x80 | 3; // recursion available, NXDOMAIN
    answer[6..12].fill(0);
    Some((answer, Question { name, kind }))
}

/// A name without compression (a query has nothing to point back to).
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 || at + length - start > LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(*byte)),
                b'A'..=b'Z' => name.push(char::from(byte.to_ascii_lowercase())),
                other => {
                    let _ = write!(name, "\\{other:03}");
                }
            }
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(name);
        bytes.extend([0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn refuses_a_name() {
        let (answer, question) = answer_nxdomain(&query(b"\x07Example\x03com\x00")).expect("an answer");
        assert_eq!(question, Question { name: "example.com".into(), kind: 1 });
        assert_eq!(&answer[..4], &[0x12, 0x34, 0x85, 0x83]);
        assert_eq!(answer.len(), query(b"\x07Example\x03com\x00").len());
    }

    #[test]
    fn ignores_what_is_no_query() {
        for bytes in [&b""[..], &[0; 12], &query(b"\xC0\x0C"), &query(b"\x3Fshort")] {
            assert_eq!(answer_nxdomain(bytes), None);
        }
        let mut response = query(b"\x01a\x00");
        response[2] |= 0x80;
        assert_eq!(answer_nxdomain(&response), None);
    }

    #[test]
    fn escapes_control_bytes() {
        let (_, question) = answer_nxdomain(&query(b"\x03a\x1bb\x00")).expect("an answer");
        assert_eq!(question.name, "a\\027b");
    }
}
