//! DNS messages (RFC 1035, section 4): one question is read, one answer is built from nothing but what was decided. No byte of
//! a query travels anywhere.

use std::fmt::Write;
use std::net::IpAddr;

const HEADER_BYTES: usize = 12;
const LONGEST_NAME: usize = 255;
const CLASS_INTERNET: u16 = 1;
/// Seconds that an answer may be kept: an address is never given to another name.
const KEEP_SECONDS: u32 = 60;

/// Record types that have an answer.
pub const TYPE_A: u16 = 1;
/// IPv6 addresses.
pub const TYPE_AAAA: u16 = 28;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, lower case, labels joined by dots, bytes outside printable ASCII as `\\DDD`.
    pub name: String,
    /// Record type.
    pub kind: u16,
    /// Where it ends in the query.
    end: usize,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no such name.
    NoName,
    /// The name has no record of that type.
    NoData,
    /// Its address.
    Address(IpAddr),
}

/// Reads a query; None for what is no well-formed query with one question in class IN (it gets no answer).
pub fn read_query(query: &[u8]) -> Option<Question> {
    let header = query.get(..HEADER_BYTES)?;
    let is_response = header[2] & 0x80 != 0;
    let opcode = header[2] & 0x78;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if is_response || opcode != 0 || questions != 1 {
        return None;
    }
    let (name, end) = read_name(query, HEADER_BYTES)?;
    let tail = query.get(end..end + 4)?;
    let class = u16::from_be_bytes([tail[2], tail[3]]);
    (class == CLASS_INTERNET).then_some(Question { name, kind: u16::from_be_bytes([tail[0], tail[1]]), end: end + 4 })
}

/// Builds the answer to a query that [`read_query`] has read.
pub fn write_answer(query: &[u8], question: &Question, answer: Answer) -> Vec<u8> {
    const NAME_ERROR: u8 = 3;
    let mut message = query.get(..question.end).unwrap_or_default().to_vec();
    if message.len() < HEADER_BYTES {
        return Vec::new();
    }
    message[2] = 0x80 | (message[2] & 0x01) | 0x04; // response, authoritative, recursion desired as asked
    message[3] = 0x80 | if answer == Answer::NoName { NAME_ERROR } else { 0 }; // recursion available
    message[6..12].fill(0);
    if let Answer::Address(address) = answer {
        message[7] = 1;
        let (kind, bytes) = match address {
            IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
            IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
        };
        message.extend([0xc0, HEADER_BYTES as u8]); // the name of the question
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_INTERNET.to_be_bytes());
        message.extend(KEEP_SECONDS.to_be_bytes());
        message.extend((bytes.len() as u16).to_be_bytes());
        message.extend(bytes);
    }
    message
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
        // The last byte, which ends it, counts too.
        if length > 63 || at + length + 1 - start > LONGEST_NAME {
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
    fn answers() {
        let bytes = query(b"\x07Example\x03com\x00");
        let question = read_query(&bytes).expect("a question");
        assert_eq!((question.name.as_str(), question.kind), ("example.com", TYPE_A));
        let none = write_answer(&bytes, &question, Answer::NoName);
        assert_eq!(&none[..4], &[0x12, 0x34, 0x85, 0x83]);
        assert_eq!(none.len(), bytes.len());
        assert_eq!(write_answer(&bytes, &question, Answer::NoData)[3], 0x80);
        let answer = write_answer(&bytes, &question, Answer::Address("198.18.0.7".parse().expect("an address")));
        assert_eq!(&answer[6..8], &[0, 1]);
        assert_eq!(&answer[bytes.len()..], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 0, 7]);
    }

    #[test]
    fn what_follows_the_question_is_dropped() {
        let mut bytes = query(b"\x01a\x00");
        let question = read_query(&bytes).expect("a question");
        let length = bytes.len();
        bytes.extend(b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x08secret!!");
        bytes[11] = 1;
        let answer = write_answer(&bytes, &question, Answer::NoData);
        assert_eq!((answer.len(), &answer[10..12]), (length, &[0, 0][..]));
    }

    /// 255 bytes with their lengths and the end (RFC 1035, section 2.3.4), and none more.
    #[test]
    fn the_longest_name() {
        let of = |last: u8| {
            let mut name = Vec::new();
            for length in [63, 63, 63, last] {
                name.push(length);
                name.extend(vec![b'a'; usize::from(length)]);
            }
            name.push(0);
            (name.len(), read_query(&query(&name)).is_some())
        };
        assert_eq!((of(61), of(62)), ((255, true), (256, false)));
    }

    #[test]
    fn ignores_what_is_no_query() {
        for bytes in [&b""[..], &[0; 12], &query(b"\xC0\x0C"), &query(b"\x3Fshort")] {
            assert_eq!(read_query(bytes), None);
        }
        for (at, value) in [(2, 0x81), (2, 0x29), (5, 2), (5, 0)] {
            let mut other = query(b"\x01a\x00");
            other[at] = value;
            assert_eq!(read_query(&other), None, "byte {at}");
        }
        let mut chaos = query(b"\x01a\x00");
        let last = chaos.len() - 1;
        chaos[last] = 3;
        assert_eq!(read_query(&chaos), None);
    }

    #[test]
    fn escapes_control_bytes() {
        let question = read_query(&query(b"\x03a\x1bb\x00")).expect("a question");
        assert_eq!(question.name, "a\\027b");
    }

    proptest::proptest! {
        /// Any bytes: an end, an answer no longer than the question and an address, nothing of what follows.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), questions in 0u8..3) {
            let mut bytes = bytes;
            if bytes.len() > 6 {
                bytes[2] &= 0x01;
                (bytes[4], bytes[5]) = (0, questions);
            }
            if let Some(question) = read_query(&bytes) {
                for answer in [Answer::NoName, Answer::NoData, Answer::Address("fd00:cafe::1".parse().expect("an address"))] {
                    let message = write_answer(&bytes, &question, answer);
                    proptest::prop_assert!(message.len() <= question.end + 28 && message[..2] == bytes[..2]);
                }
            }
        }
    }
}
