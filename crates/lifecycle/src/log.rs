//! A sandbox's output as it was written: chunks with their stream and time.
//!
//! A file of frames: stream (1 byte: 1 stdout, 2 stderr, 3 a marker of ours), milliseconds since 1970 (8 bytes, little-endian), length
//! (4 bytes, little-endian), bytes. A frame that a crash cut short is left out when it is read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The most bytes of output that are kept, where nothing else is said.
pub const MOST_BYTES: u64 = 64 << 20;
/// Name of the file in a sandbox's log directory.
pub const FILE_NAME: &str = "output.log";
const HEADER_BYTES: usize = 13;
const LARGEST_FRAME: u32 = 1 << 20;

/// Where a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Err,
    /// Written by Cofferdam.
    Marker,
}

impl Stream {
    const fn code(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
            Self::Marker => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Out),
            2 => Some(Self::Err),
            3 => Some(Self::Marker),
            _ => None,
        }
    }
}

/// Writes a log; the file is made with the first chunk.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    left: u64,
    dropped: u64,
}

impl LogWriter {
    /// A log in this directory that keeps at most so many bytes of output.
    pub fn new(directory: &Path, most_bytes: u64) -> Self {
        Self { path: directory.join(FILE_NAME), file: None, left: most_bytes, dropped: 0 }
    }

    /// Adds a chunk. What is beyond the bound is counted, and marked once.
    pub fn write(&mut self, stream: Stream, time_ms: i64, bytes: &[u8]) -> io::Result<()> {
        let kept = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if kept > 0 {
            self.frame(stream, time_ms, &bytes[..kept])?;
            self.left -= kept as u64;
        }
        if kept < bytes.len() {
            if self.dropped == 0 {
                self.frame(Stream::Marker, time_ms, b"[cofferdam: the output limit is reached; what follows is not kept]\n")?;
            }
            self.dropped += (bytes.len() - kept) as u64;
        }
        Ok(())
    }

    /// Bytes that were not kept.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn frame(&mut self, stream: Stream, time_ms: i64, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                if let Some(parent) = self.path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                none.insert(File::options().create(true).append(true).open(&self.path)?)
            }
        };
        let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
        frame.push(stream.code());
        frame.extend(time_ms.to_le_bytes());
        frame.extend((bytes.len() as u32).to_le_bytes());
        frame.extend(bytes);
        file.write_all(&frame)
    }
}

/// A chunk that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it came from.
    pub stream: Stream,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Reads a log that may still grow.
#[derive(Debug)]
pub struct LogReader {
    file: File,
    buffer: Vec<u8>,
}

impl LogReader {
    /// Opens the log in this directory; None if nothing was written.
    pub fn open(directory: &Path) -> io::Result<Option<Self>> {
        match File::open(directory.join(FILE_NAME)) {
            Ok(file) => Ok(Some(Self { file, buffer: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next whole chunk; None if there is none (yet).
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        if !self.fill(HEADER_BYTES)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes([self.buffer[9], self.buffer[10], self.buffer[11], self.buffer[12]]);
        let stream = Stream::from_code(self.buffer[0]).filter(|_| length <= LARGEST_FRAME);
        let Some(stream) = stream else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged"));
        };
        let whole = HEADER_BYTES + length as usize;
        if !self.fill(whole)? {
            return Ok(None);
        }
        let mut time = [0; 8];
        time.copy_from_slice(&self.buffer[1..9]);
        let bytes = self.buffer[HEADER_BYTES..whole].to_vec();
        self.buffer.drain(..whole);
        Ok(Some(Chunk { stream, time_ms: i64::from_le_bytes(time), bytes }))
    }

    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        const READ_BYTES: u64 = 1 << 16;
        while self.buffer.len() < wanted {
            if (&mut self.file).take(READ_BYTES).read_to_end(&mut self.buffer)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is written is read again, up to the bound, in order.
        #[test]
        fn round_trip(chunks in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..30), bound in 0u64..4000) {
            let directory = tempfile::tempdir().expect("a directory");
            let mut writer = LogWriter::new(directory.path(), bound);
            let mut written: Vec<u8> = Vec::new();
            for (is_error, bytes) in &chunks {
                let stream = if *is_error { Stream::Err } else { Stream::Out };
                writer.write(stream, 5, bytes).expect("written");
                written.extend(bytes);
            }
            let mut read: Vec<u8> = Vec::new();
            let mut markers = 0;
            if let Some(mut reader) = LogReader::open(directory.path()).expect("opened") {
                while let Some(chunk) = reader.next_chunk().expect("read") {
                    if chunk.stream == Stream::Marker { markers += 1 } else { read.extend(chunk.bytes) }
                }
            }
            let kept = written.len().min(bound as usize);
            prop_assert_eq!(&read[..], &written[..kept]);
            prop_assert_eq!(writer.dropped(), (written.len() - kept) as u64);
            prop_assert_eq!(markers, usize::from(kept < written.len()));
        }
    }

    #[test]
    fn a_cut_frame_waits_for_its_rest() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = LogWriter::new(directory.path(), MOST_BYTES);
        writer.write(Stream::Out, 1, b"whole").expect("written");
        let path = directory.path().join(FILE_NAME);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut");
        let mut reader = LogReader::open(directory.path()).expect("opened").expect("there");
        assert_eq!(reader.next_chunk().expect("read"), None);
        std::fs::write(&path, &bytes).expect("healed");
        assert_eq!(reader.next_chunk().expect("read").expect("whole now").bytes, b"whole");
    }
}
