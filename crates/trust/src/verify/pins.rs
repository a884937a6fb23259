//! What tags stood for when they were first used.

use crate::content::{Content, ContentError};
use cofferdam_model::image::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// What a tag's pin says to a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// There was none; there is now.
    First,
    /// It is the same.
    Same,
    /// It was this one; the new one was accepted.
    Accepted(Digest),
    /// It is this one.
    Moved(Digest),
}

#[derive(Default, Serialize, Deserialize)]
struct Pins {
    version: u32,
    pins: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    digest: Digest,
    since: i64,
}

const VERSION: u32 = 1;

/// Compares a tag's digest with its pin; records a first use, and an accepted change.
pub fn check(content: &Content, reference: &Reference, found: &Digest, accept: bool, now: i64) -> Result<Pin, ContentError> {
    let _lock = content.lock_named("pins")?;
    let path = content.path().join("pins.json");
    let error = |source| ContentError::Io { path: path.clone(), source };
    let mut pins = match std::fs::read(&path) {
        // A file that cannot be read is not an empty one: that would unpin everything.
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| error(e.into()))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Pins { version: VERSION, pins: BTreeMap::new() },
        Err(e) => return Err(error(e)),
    };
    let key = reference.to_string();
    let verdict = match pins.pins.get(&key) {
        None => Pin::First,
        Some(entry) if entry.digest == *found => Pin::Same,
        Some(entry) if accept => Pin::Accepted(entry.digest.clone()),
        Some(entry) => Pin::Moved(entry.digest.clone()),
    };
    if matches!(verdict, Pin::First | Pin::Accepted(_)) {
        pins.pins.insert(key, Entry { digest: found.clone(), since: now });
        let bytes = serde_json::to_vec_pretty(&pins).map_err(|e| error(e.into()))?;
        content.write_whole(&path, &bytes)?;
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::sha256;

    #[test]
    fn a_tag_moves_only_when_that_is_accepted() {
        let directory = tempfile::tempdir().expect("a directory");
        let content = Content::of(directory.path());
        let reference: Reference = "a.example/app:1".parse().expect("a reference");
        let (one, two) = (sha256(b"1"), sha256(b"2"));
        let check = |digest: &Digest, accept| check(&content, &reference, digest, accept, 1).expect("checked");
        assert_eq!(check(&one, false), Pin::First);
        assert_eq!(check(&one, false), Pin::Same);
        assert_eq!(check(&two, false), Pin::Moved(one.clone()));
        assert_eq!(check(&two, true), Pin::Accepted(one.clone()));
        assert_eq!(check(&one, false), Pin::Moved(two));
        std::fs::write(content.path().join("pins.json"), "{").expect("written");
        assert!(super::check(&content, &reference, &one, false, 1).is_err(), "a broken file pins nothing loose");
    }
}
