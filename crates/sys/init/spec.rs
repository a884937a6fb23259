//! The description of a process to start, read from a sealed memory file.

use crate::sys;
use crate::wire::{SPEC_HEADER_BYTES, SPEC_MAGIC, at};

const PROT_READ_WRITE: usize = 3;
const MAP_PRIVATE: usize = 2;
const MAP_PRIVATE_ANONYMOUS: usize = 0x22;

/// A mapped spec with the pointer arrays that `execve` wants.
pub struct Spec {
    base: *const u8,
    length: usize,
    table: *mut *const u8,
    table_bytes: usize,
    /// The working directory, NUL-terminated.
    pub directory: *const u8,
}

impl Spec {
    /// Maps the memory file and indexes its strings; None if it is not well formed.
    pub fn map(fd: i32) -> Option<Self> {
        let mut stat = [0u64; 18];
        if sys!(FSTAT, fd, stat.as_mut_ptr()) < 0 {
            return None;
        }
        let length = stat[6] as usize; // st_size: byte 48 on x86-64 and aarch64
        if length < SPEC_HEADER_BYTES {
            return None;
        }
        let base = map_memory(length, MAP_PRIVATE, fd)?;
        let mut spec = Self { base, length, table: core::ptr::null_mut(), table_bytes: 0, directory: core::ptr::null() };
        if spec.word(at::MAGIC) != SPEC_MAGIC || spec.index().is_none() {
            spec.unmap();
            return None;
        }
        Some(spec)
    }

    /// A word of the header.
    pub fn word(&self, index: usize) -> u32 {
        // SAFETY: `map` checked that the header is there; indexes are constants below 16.
        unsafe { self.base.cast::<u32>().add(index).read_unaligned() }
    }

    /// Pointer to the supplementary groups.
    pub fn groups(&self) -> *const u8 {
        // SAFETY: inside the mapping, checked by `index`.
        unsafe { self.base.add(SPEC_HEADER_BYTES) }
    }

    /// The argument vector, NULL-terminated.
    pub fn arguments(&self) -> *const *const u8 {
        self.table
    }

    /// The environment, NULL-terminated.
    pub fn environment(&self) -> *const *const u8 {
        // SAFETY: the table holds arguments, a NULL, environment, a NULL.
        unsafe { self.table.add(self.word(at::ARGUMENTS) as usize + 1) }
    }

    /// Gives the memory back.
    pub fn unmap(&self) {
        sys!(MUNMAP, self.base, self.length);
        if !self.table.is_null() {
            sys!(MUNMAP, self.table, self.table_bytes);
        }
    }

    fn index(&mut self) -> Option<()> {
        let arguments = self.word(at::ARGUMENTS) as usize;
        let environment = self.word(at::ENVIRONMENT) as usize;
        let groups = self.word(at::GROUPS) as usize;
        if arguments > self.length || environment > self.length || groups > 65_536 {
            return None;
        }
        self.table_bytes = (arguments + environment + 2) * size_of::<usize>();
        self.table = map_memory(self.table_bytes, MAP_PRIVATE_ANONYMOUS, -1)?.cast_mut().cast();
        let mut offset = SPEC_HEADER_BYTES + 4 * groups;
        self.directory = self.string(&mut offset)?;
        let mut slot = 0;
        for _ in 0..arguments {
            self.put(slot, self.string(&mut offset)?);
            slot += 1;
        }
        slot += 1;
        for _ in 0..environment {
            self.put(slot, self.string(&mut offset)?);
            slot += 1;
        }
        Some(())
    }

    fn put(&self, slot: usize, string: *const u8) {
        // SAFETY: the table was sized for every argument and environment entry and two NULLs.
        unsafe { self.table.add(slot).write(string) }
    }

    fn string(&self, offset: &mut usize) -> Option<*const u8> {
        let start = *offset;
        while *offset < self.length {
            // SAFETY: offset is below the mapping's length.
            let byte = unsafe { self.base.add(*offset).read() };
            *offset += 1;
            if byte == 0 {
                // SAFETY: start is below offset.
                return Some(unsafe { self.base.add(start) });
            }
        }
        None
    }
}

fn map_memory(length: usize, flags: usize, fd: i32) -> Option<*const u8> {
    let address = sys!(MMAP, 0, length, PROT_READ_WRITE, flags, fd as isize, 0);
    if address < 0 && address > -4096 { None } else { Some(address as *const u8) }
}
