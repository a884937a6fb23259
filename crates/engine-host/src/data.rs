//! The bytes of a file, without its holes.

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BUFFER: usize = 256 << 10;

/// Copies the parts of a file that hold data into a new one, which is as long then.
pub fn copy_data(source: &File, target: &File) -> io::Result<()> {
    ftruncate(target, source.metadata()?.len())?;
    each_part(source, |start, end| copy_part(source, target, start, end))
}

/// Bytes of a file that are data and no holes, however little of the disk they take.
pub fn data_bytes(file: &File) -> io::Result<u64> {
    let mut total = 0;
    each_part(file, |start, end| {
        total += end - start;
        Ok(())
    })?;
    Ok(total)
}

fn each_part(file: &File, mut part: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    let mut position = 0;
    while position < bytes {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(bytes);
        part(start, end)?;
        position = end;
    }
    Ok(())
}

fn copy_part(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let mut position = start;
    while position < end {
        let (mut from, mut to) = (position, position);
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
            Ok(0) => return Ok(()),
            Ok(count) => position += count as u64,
            // Not between these two.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return read_part(source, target, position, end),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_part(source: &File, target: &File, mut position: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(usize::try_from(end - position).unwrap_or(BUFFER))];
    while position < end {
        let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(buffer.len()));
        let count = source.read_at(&mut buffer[..wanted], position)?;
        if count == 0 {
            break;
        }
        target.write_all_at(&buffer[..count], position)?;
        position += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes_between_file_systems() {
        let (from, to) = (tempfile::tempdir_in("/var/tmp").expect("a directory"), tempfile::tempdir_in("/dev/shm").expect("a directory"));
        for target in [from.path().join("target"), to.path().join("target")] {
            let source = File::options().read(true).write(true).create(true).truncate(true).open(from.path().join("source")).expect("made");
            source.set_len(64 << 20).expect("long");
            source.write_all_at(b"middle", 32 << 20).expect("written");
            source.write_all_at(b"end", (64 << 20) - 3).expect("written");
            let copy = File::options().read(true).write(true).create_new(true).open(&target).expect("made");
            copy_data(&source, &copy).expect("copied");
            assert!(data_bytes(&source).expect("looked") < 1 << 20);
            let made = copy.metadata().expect("there");
            assert!(made.len() == 64 << 20 && made.blocks() * 512 < 1 << 20, "{} blocks", made.blocks());
            let mut found = [0; 6];
            copy.read_exact_at(&mut found, 32 << 20).expect("read");
            assert_eq!(&found, b"middle");
            copy.read_exact_at(&mut found[..3], (64 << 20) - 3).expect("read");
            assert_eq!(&found[..3], b"end");
        }
    }
}
