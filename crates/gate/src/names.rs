//! Synthetic addresses: each allowed name has one of its own, in both families, for as long as the sandbox lives.

use crate::wire::{SYNTHETIC_V4, SYNTHETIC_V6};
use cofferdam_policy::egress::HostName;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of one epoch: 198.18.0.0/15 holds 32 times as many.
const PER_EPOCH: u32 = 4096;
/// Epochs there are. A gate that takes over a sandbox begins a new one, so that an address that a client still remembers never
/// means another name.
pub const EPOCHS: u8 = 32;
/// The first addresses are kept: the resolver has one of them.
const FIRST: u32 = 16;

/// The names of one sandbox.
#[derive(Debug)]
pub struct Names {
    epoch: u8,
    indexes: HashMap<HostName, u32>,
    names: Vec<HostName>,
}

impl Names {
    /// None yet.
    pub fn new(epoch: u8) -> Self {
        Self { epoch, indexes: HashMap::new(), names: Vec::new() }
    }

    /// The address of a name; None when there are no more.
    pub fn address(&mut self, name: &HostName, v6: bool) -> Option<IpAddr> {
        let index = if let Some(index) = self.indexes.get(name) {
            *index
        } else {
            let index = self.names.len() as u32;
            if FIRST + index >= PER_EPOCH {
                return None;
            }
            self.names.push(name.clone());
            self.indexes.insert(name.clone(), index);
            index
        };
        let offset = u32::from(self.epoch) * PER_EPOCH + FIRST + index;
        Some(if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(SYNTHETIC_V6.to_bits() | u128::from(offset)))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(SYNTHETIC_V4.to_bits() + offset))
        })
    }

    /// The name that has an address.
    pub fn name_of(&self, address: IpAddr) -> Option<&HostName> {
        let offset = offset(address)?.checked_sub(u32::from(self.epoch) * PER_EPOCH + FIRST)?;
        self.names.get(offset as usize)
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

    #[test]
    fn every_name_has_its_own() {
        let mut names = Names::new(0);
        let mut seen = std::collections::HashSet::new();
        for number in 0..PER_EPOCH - FIRST {
            let name: HostName = format!("n{number}.example").parse().expect("a name");
            for v6 in [false, true] {
                let address = names.address(&name, v6).expect("an address");
                assert!(seen.insert(address) && is_synthetic(address));
                assert_eq!(names.name_of(address), Some(&name));
                assert_eq!(names.address(&name, v6), Some(address), "it keeps it");
            }
        }
        assert_eq!(names.address(&"one.more".parse().expect("a name"), false), None);
        assert!(!seen.contains(&IpAddr::V4(crate::wire::RESOLVER)));
    }

    #[test]
    fn an_epoch_knows_nothing_of_another() {
        let name: HostName = "a.example".parse().expect("a name");
        for epoch in 1..EPOCHS {
            let (mut old, mut new) = (Names::new(epoch - 1), Names::new(epoch));
            let before = old.address(&name, false).expect("an address");
            let after = new.address(&name, false).expect("an address");
            assert!(is_synthetic(after) && before != after && new.name_of(before).is_none() && old.name_of(after).is_none());
        }
    }

    #[test]
    fn other_addresses_are_nobody() {
        let mut names = Names::new(0);
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
