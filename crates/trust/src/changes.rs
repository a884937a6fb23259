//! What a layer's archive does to an image, path by path.

use crate::image::VerifiedImage;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It is another, or its attributes are.
    Changed,
    /// It is gone.
    Deleted,
}

impl Change {
    /// As `docker diff` writes it.
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// What a layer on top of an image changes, by path.
pub fn list(layer: &Path, image: &VerifiedImage) -> io::Result<BTreeMap<PathBuf, Change>> {
    let mut archive = tar::Archive::new(io::BufReader::new(std::fs::File::open(layer)?));
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let path: PathBuf = entry?.path()?.components().collect();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => {}
            Some(hidden) => {
                found.insert(path.with_file_name(hidden), Change::Deleted);
            }
            None => {
                let change = if image.has(&path) { Change::Changed } else { Change::Added };
                found.insert(path, change);
            }
        }
    }
    Ok(found)
}
