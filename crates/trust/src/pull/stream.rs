//! From a layer's bytes as stored to its directory: decompress, hash, unpack, in one pass.

use super::source::LayerReader;
use super::{PullError, Wanted, wrong};
use crate::content::Hasher;
use crate::unpack::{self, Budget, Lowers, Unpacked};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

const CHUNK: usize = 256 << 10;

/// Decompresses, hashes and unpacks; checks the digest of what was unpacked.
pub fn unpack_stream(
    reader: &mut dyn LayerReader,
    wanted: &Wanted<'_>,
    root: &OwnedFd,
    below: Option<&Lowers>,
) -> Result<Unpacked, PullError> {
    let digest = &wanted.descriptor.digest;
    let budget = Budget::default();
    let stored = Counted { inner: reader, count: 0 };
    let plain = Decompressed::of(stored, budget).map_err(|error| wrong(digest, &error))?;
    let mut hashed = Hashed { inner: plain, hasher: Hasher::default() };
    let unpacked =
        unpack::unpack(&mut hashed, root.as_fd(), below, budget).map_err(|source| PullError::Unpack { digest: digest.clone(), source })?;
    // What stands behind the archive counts too.
    io::copy(&mut hashed, &mut io::sink()).map_err(|error| wrong(digest, &error))?;
    let found = hashed.hasher.finish();
    if found == *wanted.diff_id {
        Ok(unpacked)
    } else {
        Err(PullError::Layer {
            digest: digest.clone(),
            why: format!("its contents are {found}, the configuration says {}", wanted.diff_id),
        })
    }
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// A layer by what its first bytes say it is: gzip (RFC 1952), zstd (RFC 8878) or plain.
struct Decompressed<'a> {
    kind: Kind<'a>,
    produced: u64,
    budget: Budget,
}

type Stored<'a> = io::BufReader<io::Chain<io::Cursor<Vec<u8>>, Counted<&'a mut dyn LayerReader>>>;

enum Kind<'a> {
    Plain(Stored<'a>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Stored<'a>>>),
    Zstd(zstd::Decoder<'static, Stored<'a>>),
}

impl<'a> Decompressed<'a> {
    fn of(mut stored: Counted<&'a mut dyn LayerReader>, budget: Budget) -> io::Result<Self> {
        let mut magic = Vec::new();
        (&mut stored).take(4).read_to_end(&mut magic)?;
        let (gzip, zstd) = (magic.starts_with(&[0x1f, 0x8b]), magic == [0x28, 0xb5, 0x2f, 0xfd]);
        let whole = io::BufReader::with_capacity(CHUNK, io::Cursor::new(magic).chain(stored));
        let kind = if gzip {
            Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(whole)))
        } else if zstd {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            // As much as zstd's own tools take without being asked (128 MiB).
            decoder.window_log_max(27)?;
            Kind::Zstd(decoder)
        } else {
            Kind::Plain(whole)
        };
        Ok(Self { kind, produced: 0, budget })
    }

    fn taken(&self) -> u64 {
        let stored = match &self.kind {
            Kind::Plain(stored) => stored,
            Kind::Gzip(decoder) => decoder.get_ref(),
            Kind::Zstd(decoder) => decoder.get_ref(),
        };
        stored.get_ref().get_ref().1.count
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.kind {
            Kind::Plain(stored) => stored.read(buffer),
            Kind::Gzip(decoder) => decoder.read(buffer),
            Kind::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.produced += read as u64;
        let most = self.taken().saturating_mul(self.budget.ratio);
        if self.produced > Budget::RATIO_FROM && self.produced > most {
            return Err(io::Error::other(format!("it unpacks to more than {} times its size: a decompression bomb", self.budget.ratio)));
        }
        if self.produced > self.budget.bytes {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", self.budget.bytes)));
        }
        Ok(read)
    }
}
