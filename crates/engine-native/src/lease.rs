//! The host's ids that a sandbox gets. Root gives each live sandbox a range of its own, never shared; an ordinary user has none to give
//! but their own, and the subordinate ones where the host gives some.

use cofferdam_engine::EngineError;
use cofferdam_engine_host::device::system;
use cofferdam_sys::ids::{Ids, Owner};
use cofferdam_sys::{lock, outer};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Ids in a range.
const RANGE_IDS: u32 = 65_536;
/// First id of the first range: `0x7000_0000` on is used by nobody (systemd's table of user ids, uids-gids).
const FIRST_ID: u32 = 0x7000_0000;
/// From one range to the next. The kernel keeps users in 128 lists, by a sum of the id's digits to the base 128: ranges that begin at
/// multiples of a power of two would all be in one, which is gone through for every process that becomes one of them.
const STRIDE: u32 = RANGE_IDS + 257;
/// Ranges below `0x7FFF_0000`, where other reservations begin.
const RANGES: u32 = (0x7FFF_0000 - FIRST_ID) / STRIDE;

/// The ids of a sandbox. A leased range is free again when every duplicate of `fd` is closed: the supervisor's and the one that pid 1 of
/// the sandbox holds, so that a killed supervisor does not free a range that still runs.
#[derive(Debug)]
pub struct Lease {
    /// The ids.
    pub ids: Ids,
    /// The lock on the range, if it is one.
    pub fd: OwnedFd,
}

impl Lease {
    /// What this process has to give to a sandbox of this user.
    pub fn of(user: Owner, directory: &Path) -> Result<Self, EngineError> {
        match outer::entered() {
            _ if outer::is_host_root() => Self::take(directory),
            Some(outer) => {
                let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                let fd = null.map_err(|e| EngineError::host("open /dev/null", e))?;
                Ok(Self { ids: Ids::own(user, outer.own, outer.subordinate), fd })
            }
            None => Err(EngineError::Invalid { what: "this command".into(), why: "it made no user namespace for its sandboxes".into() }),
        }
    }

    /// Takes a free range. `directory` is the host-wide directory of leases: every data directory uses the same.
    pub fn take(directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join("uid-ranges");
        let fd = lock::open_file(&path).map_err(system)?;
        let start = random_index();
        for offset in 0..RANGES {
            let index = (start + offset) % RANGES;
            if lock::try_lock_byte(&fd, index).map_err(system)? {
                return Ok(Self { ids: Ids::range(FIRST_ID + index * STRIDE, RANGE_IDS), fd });
            }
        }
        Err(EngineError::Exhausted {
            what: "user id ranges".into(),
            why: format!("all {RANGES} are in use"),
            remedy: "end some sandboxes".into(),
        })
    }
}

fn random_index() -> u32 {
    let mut bytes = [0u8; 4];
    // An error leaves zeros: the search then starts at the first range.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes) % RANGES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn leases_are_disjoint_and_return() {
        let directory = tempfile::tempdir().expect("a directory");
        let leases: Vec<Lease> = (0..200).map(|_| Lease::take(directory.path()).expect("a lease")).collect();
        let base = |lease: &Lease| lease.ids.outside((0, 0)).0;
        let bases: HashSet<u32> = leases.iter().map(base).collect();
        assert_eq!(bases.len(), 200);
        let fits = |base: &u32| (base - FIRST_ID).is_multiple_of(STRIDE) && base.checked_add(RANGE_IDS) <= Some(0x7FFF_0000);
        assert!(bases.iter().all(fits));
        // As the kernel finds a user's list (kernel/user.c): with 200 of them, none is long.
        let mut lists = [0; 128];
        for base in &bases {
            lists[(((base >> 7) + base) % 128) as usize] += 1;
        }
        assert!(lists.iter().all(|length| *length < 12), "{lists:?}");
        let duplicate = leases[0].fd.try_clone().expect("a duplicate");
        let first = base(&leases[0]);
        drop(leases);
        let all: Vec<Lease> = (0..RANGES - 1).map(|_| Lease::take(directory.path()).expect("a lease")).collect();
        assert!(all.iter().all(|lease| base(lease) != first), "a duplicate keeps the range");
        assert!(matches!(Lease::take(directory.path()), Err(EngineError::Exhausted { .. })));
        drop(duplicate);
        assert_eq!(base(&Lease::take(directory.path()).expect("the freed one")), first);
    }
}
