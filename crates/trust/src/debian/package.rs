//! A Debian package (deb(5)): an `ar` archive of `debian-binary`, `control.tar` and `data.tar`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;
const LARGEST_CONTROL: u64 = 16 << 20;

/// The parts of a package's file, by where they are.
#[derive(Debug)]
pub struct DebFile {
    file: File,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    at: u64,
    size: u64,
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl DebFile {
    /// Opens one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(wrong("it is no Debian package"));
        }
        let (mut members, mut at) = (Vec::new(), MAGIC.len() as u64);
        while at + HEADER as u64 <= length {
            let mut header = [0; HEADER];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut header)?;
            let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim).unwrap_or_default();
            let name = text(0..16).trim_end_matches('/').to_owned();
            let size: u64 = text(48..58).parse().map_err(|_| wrong("a part of it has no size"))?;
            let start = at + HEADER as u64;
            let end = start.checked_add(size).filter(|end| *end <= length && header[58..] == *b"`\n");
            at = end.ok_or_else(|| wrong("a part of it is cut off"))?.next_multiple_of(2);
            members.push(Member { name, at: start, size });
        }
        Ok(Self { file, members })
    }

    /// The archive of its files, not compressed.
    pub fn data(&self) -> io::Result<Box<dyn Read>> {
        self.part("data.tar")
    }

    /// Its description: the file `control`.
    pub fn control(&self) -> io::Result<String> {
        let mut archive = tar::Archive::new(self.part("control.tar")?.take(LARGEST_CONTROL));
        for entry in archive.entries()? {
            let mut entry = entry?;
            if matches!(entry.path()?.to_str(), Some("./control" | "control")) {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                return Ok(text);
            }
        }
        Err(wrong("it does not describe itself"))
    }

    fn part(&self, name: &str) -> io::Result<Box<dyn Read>> {
        let member =
            self.members.iter().find(|member| member.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        let member = member.ok_or_else(|| wrong("a part of it is missing"))?;
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(member.at))?;
        let bytes = Window { file, at: member.at, left: member.size };
        let bytes = BufReader::with_capacity(256 << 10, bytes);
        Ok(match &member.name[name.len()..] {
            "" => Box::new(bytes),
            ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
            ".xz" => Box::new(crate::layout::xz(bytes)),
            ".zst" => Box::new(zstd::Decoder::with_buffer(bytes)?),
            _ => return Err(wrong("it is compressed in a way that is not known")),
        })
    }
}

/// Part of a file; descriptors that share their place do not disturb it.
struct Window {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
