//! Synthetic addresses: each allowed name has one of its own, in both families, for as long as the sandbox lives, whatever becomes of its gate.
//!
//! They are in a file of the sandbox's, a name a line, which is only appended to: the number of the line is the address. Who takes over a
//! sandbox reads it, so an address that a client still remembers means what it meant. The file is right, whoever else has written to it.

use crate::wire::{SYNTHETIC_V4, SYNTHETIC_V6};
use cofferdam_policy::egress::HostName;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names that a sandbox may ask for.
const MOST_NAMES: usize = 8192;
/// The first addresses are kept: the resolver has one of them.
const FIRST: u32 = 16;
/// More than the longest file there can be.
const LONGEST: u64 = (MOST_NAMES as u64) * 256 * 2;

/// The names of one sandbox.
#[derive(Debug)]
pub struct Names {
    file: File,
    /// How much of it is known.
    known: u64,
    indexes: HashMap<HostName, u32>,
    /// By line. A line that is no name (cut off by a full disk) is nobody's.
    names: Vec<Option<HostName>>,
}

impl Names {
    /// Those of a file that is opened for reading and appending.
    pub fn open(file: File) -> io::Result<Self> {
        let mut names = Self { file, known: 0, indexes: HashMap::new(), names: Vec::new() };
        names.read()?;
        Ok(names)
    }

    fn read(&mut self) -> io::Result<()> {
        self.indexes.clear();
        self.names.clear();
        self.file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.file).take(LONGEST).read_to_end(&mut bytes)?;
        if bytes.last().is_some_and(|last| *last != b'\n') && (bytes.len() as u64) < LONGEST {
            // Whoever wrote it was stopped in the middle: what comes next is a line of its own.
            self.file.write_all(b"\n")?;
            return self.read();
        }
        self.known = bytes.len() as u64;
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let name = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().parse::<HostName>().ok());
            if let Some(name) = &name {
                self.indexes.entry(name.clone()).or_insert(index as u32);
            }
            self.names.push(name);
        }
        Ok(())
    }

    /// The address of a name; None when there are no more, or it cannot be written down.
    pub fn address(&mut self, name: &HostName, v6: bool) -> Option<IpAddr> {
        let index = match self.indexes.get(name) {
            Some(index) => *index,
            None => self.add(name).ok().flatten()?,
        };
        let offset = FIRST + index;
        Some(if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(SYNTHETIC_V6.to_bits() | u128::from(offset)))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(SYNTHETIC_V4.to_bits() + offset))
        })
    }

    fn add(&mut self, name: &HostName) -> io::Result<Option<u32>> {
        if self.names.len() >= MOST_NAMES {
            return Ok(None);
        }
        let line = format!("{name}\n");
        let written = self.file.write(line.as_bytes())?;
        if written != line.len() || self.file.stream_position()? != self.known + line.len() as u64 {
            // A full disk, or a gate before this one that has not ended yet.
            self.read()?;
            return Ok(self.indexes.get(name).copied());
        }
        self.known += line.len() as u64;
        let index = self.names.len() as u32;
        self.names.push(Some(name.clone()));
        self.indexes.insert(name.clone(), index);
        Ok(Some(index))
    }

    /// The name that has an address.
    pub fn name_of(&self, address: IpAddr) -> Option<&HostName> {
        self.names.get(offset(address)?.checked_sub(FIRST)? as usize)?.as_ref()
    }
}

/// Whether an address is in the synthetic ranges.
pub fn is_synthetic(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits() & 0xfffe_0000 == SYNTHETIC_V4.to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 == SYNTHETIC_V6.to_bits() >> 64,
    }
}

fn offset(address: IpAddr) -> Option<u32> {
    if !is_synthetic(address) {
        return None;
    }
    match address {
        IpAddr::V4(address) => Some(address.to_bits() - SYNTHETIC_V4.to_bits()),
        IpAddr::V6(address) => u32::try_from(address.to_bits() & u128::from(u64::MAX)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    /// A file, and as many openings of it as there are gates.
    fn shared() -> (tempfile::NamedTempFile, impl Fn() -> Names) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_owned();
        (file, move || Names::open(File::options().read(true).append(true).open(&path).expect("opened")).expect("read"))
    }

    #[test]
    fn every_name_has_its_own() {
        let (_file, open) = shared();
        let mut names = open();
        let mut seen = std::collections::HashSet::new();
        for number in 0..MOST_NAMES {
            let name = name(&format!("n{number}.example"));
            for v6 in [false, true] {
                let address = names.address(&name, v6).expect("an address");
                assert!(seen.insert(address) && is_synthetic(address));
                assert_eq!(names.name_of(address), Some(&name));
                assert_eq!(names.address(&name, v6), Some(address), "it keeps it");
            }
        }
        assert_eq!(names.address(&name("one.more"), false), None);
        assert!(!seen.contains(&IpAddr::V4(crate::wire::RESOLVER)));
    }

    /// However many gates a sandbox outlives.
    #[test]
    fn a_gate_that_takes_over_knows_them() {
        let (_file, open) = shared();
        let mut given = Vec::new();
        for gate in 0..100 {
            let mut names = open();
            for (name, address) in &given {
                assert_eq!(names.name_of(*address), Some(name));
                assert_eq!(names.address(name, false), Some(*address));
            }
            let new = name(&format!("g{gate}.example"));
            given.push((new.clone(), names.address(&new, false).expect("an address")));
        }
        let different: std::collections::HashSet<IpAddr> = given.iter().map(|(_, address)| *address).collect();
        assert_eq!(different.len(), 100);
    }

    /// A gate that was stopped, not ended, when another took over: what each gives away is in the file.
    #[test]
    fn two_at_once_never_give_one_address_twice() {
        let (_file, open) = shared();
        let (mut one, mut other) = (open(), open());
        let mut given: HashMap<IpAddr, HostName> = HashMap::new();
        for number in 0..50 {
            for (first, text) in [(true, "a"), (false, "b"), (false, "both"), (true, "both")] {
                let gate = if first { &mut one } else { &mut other };
                let name = name(&format!("{text}{number}.example"));
                let address = gate.address(&name, false).expect("an address");
                assert_eq!(gate.name_of(address), Some(&name));
                assert_eq!(given.entry(address).or_insert_with(|| name.clone()), &name, "{address}");
            }
        }
    }

    /// What was cut off by a full disk is no name, and moves nothing.
    #[test]
    fn a_line_that_was_cut_off() {
        let (file, open) = shared();
        let first = open().address(&name("first.example"), false).expect("an address");
        File::options().append(true).open(file.path()).and_then(|mut file| file.write_all(b"cut off.exa")).expect("written");
        let mut names = open();
        let second = names.address(&name("second.example"), false).expect("an address");
        let again = open();
        assert_eq!((again.name_of(first), again.name_of(second)), (Some(&name("first.example")), Some(&name("second.example"))));
        let full = File::options().read(true).write(true).open("/dev/full").expect("there");
        let mut full = Names { file: full, known: 0, indexes: HashMap::new(), names: Vec::new() };
        assert_eq!(full.address(&name("first.example"), false), None, "what cannot be written down is not given");
    }

    #[test]
    fn other_addresses_are_nobody() {
        let (_file, open) = shared();
        let mut names = open();
        names.address(&"a.example".parse().expect("a name"), false);
        for text in [
            "198.18.0.1",
            "198.18.0.0",
            "198.18.0.17",
            "198.20.0.16",
            "127.0.0.1",
            "::1",
            "fd00:cafe::",
            "fd00:cafe::1:0:0:10",
            "fd00:cafe:0:1::10",
        ] {
            assert_eq!(names.name_of(text.parse().expect(text)), None, "{text}");
        }
    }
}
