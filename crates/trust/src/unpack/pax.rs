//! What an entry's extended header says: extended attributes, times, and the maps of sparse files.
//!
//! Formats: POSIX.1-2017 pax; `SCHILY.xattr.*` as star and GNU tar write it; GNU tar's sparse formats 0.0, 0.1 and 1.0 (GNU tar
//! manual, "Storing Sparse Files").

use super::UnpackError;
use std::io::{self, Read};
use tar::Entry;

const MOST_XATTRS: usize = 64;
const LARGEST_XATTR: usize = 64 << 10;
const MOST_PIECES: usize = 1 << 20;
const BLOCK: u64 = 512;

/// An extended header.
#[derive(Debug, Default)]
pub struct Extended {
    /// The name of a sparse file.
    pub name: Option<Vec<u8>>,
    /// The size of a sparse file with its holes.
    pub real_size: Option<u64>,
    /// Extended attributes that are kept.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Time of the last change: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    version_one: bool,
    pieces: Option<Vec<(u64, u64)>>,
}

impl Extended {
    /// Reads it.
    pub fn of<R: Read>(entry: &mut Entry<'_, R>) -> Result<Self, UnpackError> {
        let mut found = Self::default();
        let (mut offset, mut major, mut minor) = (None, None, None);
        let Some(extensions) = entry.pax_extensions().map_err(UnpackError::Archive)? else { return Ok(found) };
        for extension in extensions {
            let extension = extension.map_err(UnpackError::Archive)?;
            let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
            match key {
                "mtime" => found.mtime = time(value),
                "GNU.sparse.name" => found.name = Some(value.to_vec()),
                "GNU.sparse.size" | "GNU.sparse.realsize" => found.real_size = number(value),
                "GNU.sparse.major" => major = number(value),
                "GNU.sparse.minor" => minor = number(value),
                "GNU.sparse.map" => found.pieces = Some(list(value).ok_or_else(wrong_map)?),
                "GNU.sparse.offset" => offset = number(value),
                "GNU.sparse.numbytes" => {
                    let piece = offset.take().zip(number(value)).ok_or_else(wrong_map)?;
                    let pieces = found.pieces.get_or_insert_default();
                    if pieces.len() >= MOST_PIECES {
                        return Err(wrong_map());
                    }
                    pieces.push(piece);
                }
                _ => found.xattr(key, value)?,
            }
        }
        found.version_one = major == Some(1) && minor == Some(0);
        if found.real_size.is_some() != (found.version_one || found.pieces.is_some()) {
            return Err(wrong_map());
        }
        Ok(found)
    }

    /// Kept are a program's capabilities and users' own attributes. Those of overlayfs and of security modules are an image's to
    /// fake, not to set.
    fn xattr(&mut self, key: &str, value: &[u8]) -> Result<(), UnpackError> {
        let Some(name) = key.strip_prefix("SCHILY.xattr.") else { return Ok(()) };
        let kept = name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.");
        if !kept || name.contains('\0') {
            return Ok(());
        }
        if self.xattrs.len() >= MOST_XATTRS || value.len() > LARGEST_XATTR {
            return Err(UnpackError::Budget { what: "extended attributes of one entry", most: MOST_XATTRS as u64 });
        }
        self.xattrs.push((name.to_owned(), value.to_vec()));
        Ok(())
    }

    /// Where the data of a sparse file belongs; in format 1.0 it stands before the data.
    pub fn map<R: Read>(&self, entry: &mut Entry<'_, R>) -> io::Result<Option<Vec<(u64, u64)>>> {
        let Some(size) = self.real_size else { return Ok(None) };
        let pieces = match &self.pieces {
            Some(pieces) => pieces.clone(),
            None => map_before_data(entry)?,
        };
        let mut end = 0;
        for (offset, length) in &pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
            end = next.ok_or_else(|| io::Error::other("the map of a sparse file is out of order or larger than the file"))?;
        }
        Ok(Some(pieces))
    }
}

fn wrong_map() -> UnpackError {
    UnpackError::Archive(io::Error::other("the map of a sparse file is not valid"))
}

/// Decimal numbers, one a line, padded to a whole block: how many pieces, then offset and length of each.
fn map_before_data(entry: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut read = 0;
    let mut next = |entry: &mut dyn Read| -> io::Result<u64> {
        let mut digits = Vec::new();
        let mut byte = [0];
        loop {
            entry.read_exact(&mut byte)?;
            read += 1;
            match byte[0] {
                b'\n' => break,
                digit if digit.is_ascii_digit() && digits.len() < 20 => digits.push(digit),
                _ => return Err(io::Error::other("the map of a sparse file is not valid")),
            }
        }
        number(&digits).ok_or_else(|| io::Error::other("the map of a sparse file is not valid"))
    };
    let count = usize::try_from(next(entry)?).unwrap_or(usize::MAX);
    if count > MOST_PIECES {
        return Err(io::Error::other("the map of a sparse file has too many pieces"));
    }
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((next(entry)?, next(entry)?));
    }
    let padding = (BLOCK - read % BLOCK) % BLOCK;
    io::copy(&mut entry.take(padding), &mut io::sink())?;
    Ok(pieces)
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn list(value: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').filter(|part| !part.is_empty()).map(number).collect();
    let numbers = numbers.filter(|numbers| numbers.len().is_multiple_of(2) && numbers.len() <= 2 * MOST_PIECES)?;
    Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 { Some((seconds - 1, 1_000_000_000 - nanoseconds)) } else { Some((seconds, nanoseconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"x"), None);
    }

    #[test]
    fn maps_are_read_or_refused() {
        assert_eq!(list(b"0,5,10,2"), Some(vec![(0, 5), (10, 2)]));
        assert_eq!(list(b"0,5,10"), None);
        assert_eq!(list(b"-1,5"), None);
        let mut data = b"2\n0\n5\n100\n3\n".to_vec();
        data.resize(512, 0);
        data.extend(b"payload");
        let mut reader = data.as_slice();
        assert_eq!(map_before_data(&mut reader).expect("a map"), [(0, 5), (100, 3)]);
        assert_eq!(reader, b"payload");
        assert!(map_before_data(&mut b"9999999999\n".as_slice()).is_err());
        assert!(map_before_data(&mut b"1\n-2\n".as_slice()).is_err());
    }
}
