//! The SFTP subsystem: requests one after the other, each answered with what the kernel says.

mod files;
mod wire;

pub use files::Files;

use files::Listing;
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use wire::{Malformed, Reader, Writer, kind};

const VERSION: u32 = 3;
/// Largest packet, as OpenSSH has it.
const LARGEST_PACKET: u32 = 256 << 10;
/// Most bytes of one read or write: what is left of a packet beside them.
const LARGEST_DATA: u32 = LARGEST_PACKET - 1024;
const MOST_HANDLES: usize = 128;
const NAMES_AT_ONCE: usize = 64;
const EXTENSIONS: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Answers until the client has gone. A packet that is too long, or cut, ends it.
pub fn serve(mut input: impl Read, mut output: impl Write, files: Files) -> io::Result<()> {
    let mut session = Session { files, open: HashMap::new(), next: 0 };
    let mut packet = Vec::new();
    loop {
        let mut length = [0; 4];
        match input.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let length = u32::from_be_bytes(length);
        if length == 0 || length > LARGEST_PACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} bytes")));
        }
        packet.resize(length as usize, 0);
        input.read_exact(&mut packet)?;
        output.write_all(&session.packet(&packet).finish())?;
        output.flush()?;
    }
}

enum Open {
    File(File),
    Directory(Listing),
}

struct Session {
    files: Files,
    open: HashMap<u32, Open>,
    next: u32,
}

/// Why a request is answered with a status.
enum Refusal {
    Kernel(Errno),
    End,
    Malformed,
    Unsupported,
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Kernel(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Refusal {
    fn status(&self, id: u32) -> Writer {
        match self {
            Self::End => status(id, 1, "end of file"),
            Self::Malformed => status(id, 5, "bad message"),
            Self::Unsupported => status(id, 8, "unsupported"),
            Self::Kernel(error) => {
                let code = match *error {
                    Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => 2,
                    Errno::ACCESS | Errno::PERM | Errno::ROFS => 3,
                    _ => 4,
                };
                status(id, code, &error.to_string())
            }
        }
    }
}

fn status(id: u32, code: u32, message: &str) -> Writer {
    Writer::answer(kind::STATUS, id).u32(code).string(message.as_bytes()).string(b"en")
}

fn name(id: u32, path: &[u8]) -> Writer {
    Writer::answer(kind::NAME, id).u32(1).string(path).string(path).attributes(&wire::Attributes::default())
}

impl Session {
    /// The answer to a packet.
    fn packet(&mut self, packet: &[u8]) -> Writer {
        let mut reader = Reader(packet);
        let header = reader.u8().and_then(|kind| Ok((kind, reader.u32()?)));
        match header {
            Ok((kind::INIT, _)) => {
                let version = Writer::new(kind::VERSION).u32(VERSION);
                EXTENSIONS.iter().fold(version, |writer, (name, value)| writer.string(name.as_bytes()).string(value.as_bytes()))
            }
            Ok((kind, id)) => self.request(kind, id, &mut reader).unwrap_or_else(|refusal| refusal.status(id)),
            Err(Malformed) => Refusal::Malformed.status(0),
        }
    }

    fn request(&mut self, kind: u8, id: u32, reader: &mut Reader<'_>) -> Result<Writer, Refusal> {
        match kind {
            kind::OPEN => {
                let (path, flags, attributes) = (reader.path()?, reader.u32()?, reader.attributes()?);
                self.check_room()?;
                let file = self.files.open(path, flags, &attributes)?;
                return Ok(self.handle(id, Open::File(file)));
            }
            kind::OPENDIR => {
                let path = reader.path()?;
                self.check_room()?;
                let listing = self.files.list(path)?;
                return Ok(self.handle(id, Open::Directory(listing)));
            }
            kind::READ => return self.read(id, reader),
            kind::READDIR => return self.read_directory(id, reader),
            kind::STAT | kind::LSTAT => {
                let attributes = self.files.stat(reader.path()?, kind == kind::STAT)?;
                return Ok(Writer::answer(kind::ATTRS, id).attributes(&attributes));
            }
            kind::FSTAT => {
                let attributes = self.files.stat_open(self.file(reader)?)?;
                return Ok(Writer::answer(kind::ATTRS, id).attributes(&attributes));
            }
            kind::REALPATH => return Ok(name(id, &self.files.real_path(reader.path()?)?)),
            kind::READLINK => return Ok(name(id, &self.files.read_link(reader.path()?)?)),
            kind::EXTENDED => return self.extended(id, reader),
            kind::CLOSE => {
                let number = handle_of(reader)?;
                self.open.remove(&number).ok_or(Errno::BADF)?;
            }
            kind::WRITE => {
                let (file, offset) = (self.file(reader)?, reader.u64()?);
                file.write_all_at(reader.string()?, offset)?;
            }
            kind::SETSTAT => self.files.set(reader.path()?, &reader.attributes()?, true)?,
            kind::FSETSTAT => {
                let file = self.file(reader)?;
                self.files.set_open(file, &reader.attributes()?)?;
            }
            kind::REMOVE => self.files.remove(reader.path()?)?,
            kind::RMDIR => self.files.remove_directory(reader.path()?)?,
            kind::MKDIR => self.files.make_directory(reader.path()?, &reader.attributes()?)?,
            kind::RENAME => self.files.rename(reader.path()?, reader.path()?, false)?,
            // Where it leads comes first, against the draft: every client does it as OpenSSH.
            kind::SYMLINK => self.files.symlink(reader.path()?, reader.path()?)?,
            _ => return Err(Refusal::Unsupported),
        }
        Ok(status(id, 0, ""))
    }

    fn extended(&self, id: u32, reader: &mut Reader<'_>) -> Result<Writer, Refusal> {
        match reader.string()? {
            b"posix-rename@openssh.com" => self.files.rename(reader.path()?, reader.path()?, true)?,
            b"hardlink@openssh.com" => self.files.link(reader.path()?, reader.path()?)?,
            b"fsync@openssh.com" => self.file(reader)?.sync_all()?,
            b"lsetstat@openssh.com" => self.files.set(reader.path()?, &reader.attributes()?, false)?,
            b"expand-path@openssh.com" => return Ok(name(id, &self.files.expand(reader.path()?)?)),
            b"limits@openssh.com" => {
                let limits = [LARGEST_PACKET, LARGEST_DATA, LARGEST_DATA, MOST_HANDLES as u32];
                return Ok(limits.into_iter().fold(Writer::answer(kind::EXTENDED_REPLY, id), |writer, limit| writer.u64(limit.into())));
            }
            b"statvfs@openssh.com" => {
                let space = self.files.space(reader.path()?)?;
                let read_only = u64::from(space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
                let no_suid = 2;
                let numbers = [
                    space.f_bsize,
                    space.f_frsize,
                    space.f_blocks,
                    space.f_bfree,
                    space.f_bavail,
                    space.f_files,
                    space.f_ffree,
                    space.f_favail,
                    space.f_fsid,
                    read_only | no_suid,
                    space.f_namemax,
                ];
                return Ok(numbers.into_iter().fold(Writer::answer(kind::EXTENDED_REPLY, id), Writer::u64));
            }
            _ => return Err(Refusal::Unsupported),
        }
        Ok(status(id, 0, ""))
    }

    fn read(&self, id: u32, reader: &mut Reader<'_>) -> Result<Writer, Refusal> {
        let (file, offset, length) = (self.file(reader)?, reader.u64()?, reader.u32()?);
        let mut bytes = vec![0; length.min(LARGEST_DATA) as usize];
        let read = file.read_at(&mut bytes, offset)?;
        if read == 0 && length > 0 {
            return Err(Refusal::End);
        }
        Ok(Writer::answer(kind::DATA, id).string(&bytes[..read]))
    }

    fn read_directory(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Writer, Refusal> {
        let number = handle_of(reader)?;
        let Some(Open::Directory(listing)) = self.open.get_mut(&number) else { return Err(Errno::BADF.into()) };
        let found = self.files.next_names(listing, NAMES_AT_ONCE)?;
        if found.is_empty() {
            return Err(Refusal::End);
        }
        let names = Writer::answer(kind::NAME, id).u32(found.len() as u32);
        Ok(found.iter().fold(names, |writer, named| writer.string(&named.name).string(&named.long).attributes(&named.attributes)))
    }

    fn check_room(&self) -> Result<(), Errno> {
        if self.open.len() < MOST_HANDLES { Ok(()) } else { Err(Errno::MFILE) }
    }

    fn handle(&mut self, id: u32, open: Open) -> Writer {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, open);
        Writer::answer(kind::HANDLE, id).string(&number.to_be_bytes())
    }

    fn file(&self, reader: &mut Reader<'_>) -> Result<&File, Refusal> {
        match self.open.get(&handle_of(reader)?) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(Errno::BADF.into()),
        }
    }
}

fn handle_of(reader: &mut Reader<'_>) -> Result<u32, Refusal> {
    let bytes = reader.string()?;
    bytes.try_into().map(u32::from_be_bytes).map_err(|_| Errno::BADF.into())
}

#[cfg(test)]
mod tests;
