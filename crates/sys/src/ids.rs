//! How user and group ids inside a sandbox stand for ids outside.

/// A run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A user and a group.
pub type Owner = (u32, u32);

/// The ids of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    users: Vec<Extent>,
    groups: Vec<Extent>,
    /// Inside and outside: the one that stands for whoever has no id of its own, and owns every file of an image. None where each id
    /// inside has one outside, and files of images are seen through the map.
    own: Option<(Owner, Owner)>,
    /// Whether processes may set their supplementary groups.
    groups_settable: bool,
}

impl Ids {
    /// Every id has one outside, `base` higher.
    pub fn range(base: u32, count: u32) -> Self {
        let all = vec![Extent { inside: 0, outside: base, count }];
        Self { users: all.clone(), groups: all, own: None, groups_settable: true }
    }

    /// `inside` stands for `outside`; further ids for those of these runs, if there are any.
    pub fn own(inside: Owner, outside: Owner, subordinate: Option<(Extent, Extent)>) -> Self {
        let (users, groups) = match subordinate {
            None => (Vec::new(), Vec::new()),
            Some((users, groups)) => (around(users, inside.0), around(groups, inside.1)),
        };
        let with = |mut extents: Vec<Extent>, inside, outside| {
            extents.push(Extent { inside, outside, count: 1 });
            extents
        };
        Self {
            users: with(users, inside.0, outside.0),
            groups: with(groups, inside.1, outside.1),
            own: Some((inside, outside)),
            groups_settable: subordinate.is_some(),
        }
    }

    /// The owner outside of what belongs to this one inside.
    pub fn outside(&self, inside: Owner) -> Owner {
        let (user, group) = self.own.map_or_else(|| self.first(), |(_, outside)| outside);
        (outside(&self.users, inside.0).unwrap_or(user), outside(&self.groups, inside.1).unwrap_or(group))
    }

    fn first(&self) -> Owner {
        let first = |extents: &[Extent]| extents.first().map_or(0, |extent| extent.outside);
        (first(&self.users), first(&self.groups))
    }

    /// The owner inside of what belongs to this one outside.
    pub fn inside(&self, outside: Owner) -> Owner {
        let (user, group) = self.own.map_or((0, 0), |(inside, _)| inside);
        (inside(&self.users, outside.0).unwrap_or(user), inside(&self.groups, outside.1).unwrap_or(group))
    }

    /// The owner inside of a file of an image, from the one that it has in the store.
    pub fn of_image(&self, stored: Owner) -> Owner {
        if self.own.is_some() { self.inside(stored) } else { stored }
    }

    /// Whether a user and a group have ids of their own outside.
    pub fn has(&self, inside: Owner) -> bool {
        outside(&self.users, inside.0).is_some() && outside(&self.groups, inside.1).is_some()
    }

    /// The user that pid 1 is: root where there is one.
    pub fn of_pid_one(&self) -> Owner {
        match self.own {
            Some((inside, _)) if !self.has((0, 0)) => inside,
            _ => (0, 0),
        }
    }

    /// Whether trees of the host are to be shown through a map of their own: each id has one.
    pub const fn is_range(&self) -> bool {
        self.own.is_none()
    }

    /// Whether processes may set their supplementary groups.
    pub const fn groups_settable(&self) -> bool {
        self.groups_settable
    }

    /// The same, but that files of `stored` outside belong to `inside`, and the other way round. What a tree of the host is seen through
    /// whose owner is to be a user of the sandbox.
    #[must_use]
    pub fn with_owner(&self, stored: Owner, inside: Owner) -> Self {
        let swapped = |extents: &[Extent], stored, id| {
            let to = outside(extents, id);
            let mut left = without(extents, &[stored, id]);
            left.extend(to.map(|to| Extent { inside: stored, outside: to, count: 1 }));
            let back = outside(extents, stored).filter(|_| stored != id);
            left.extend(back.map(|back| Extent { inside: id, outside: back, count: 1 }));
            left
        };
        let (users, groups) = (swapped(&self.users, stored.0, inside.0), swapped(&self.groups, stored.1, inside.1));
        Self { users, groups, ..self.clone() }
    }

    /// The lines of `uid_map` and `gid_map`.
    pub fn maps(&self) -> [String; 2] {
        let lines = |extents: &[Extent]| {
            let line = |extent: &Extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count);
            extents.iter().map(line).collect::<Vec<_>>().concat()
        };
        [lines(&self.users), lines(&self.groups)]
    }
}

/// Runs without these ids inside.
fn without(extents: &[Extent], ids: &[u32]) -> Vec<Extent> {
    let mut left = extents.to_vec();
    for id in ids {
        left = left.into_iter().flat_map(|extent| split(extent, *id)).collect();
    }
    left
}

/// What is left of a run without one id: what is before, and what is after.
fn split(extent: Extent, id: u32) -> Vec<Extent> {
    let Some(offset) = id.checked_sub(extent.inside).filter(|offset| *offset < extent.count) else { return vec![extent] };
    let before = Extent { count: offset, ..extent };
    let after = Extent { inside: id + 1, outside: extent.outside + offset + 1, count: extent.count - offset - 1 };
    [before, after].into_iter().filter(|part| part.count > 0).collect()
}

/// A run of ids from 0 on, without this one inside.
fn around(all: Extent, without: u32) -> Vec<Extent> {
    if without >= all.count {
        return vec![Extent { inside: 0, ..all }];
    }
    let before = Extent { inside: 0, outside: all.outside, count: without };
    let after = Extent { inside: without + 1, outside: all.outside + without, count: all.count - without - 1 };
    let fits = |extent: &Extent| extent.count > 0;
    [before, after].into_iter().filter(fits).collect()
}

fn outside(extents: &[Extent], id: u32) -> Option<u32> {
    let of = |extent: &Extent| id.checked_sub(extent.inside).filter(|offset| *offset < extent.count).map(|offset| extent.outside + offset);
    extents.iter().find_map(of)
}

fn inside(extents: &[Extent], id: u32) -> Option<u32> {
    let of = |extent: &Extent| id.checked_sub(extent.outside).filter(|offset| *offset < extent.count).map(|offset| extent.inside + offset);
    extents.iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_maps_every_id() {
        let ids = Ids::range(5000, 100);
        assert_eq!(ids.outside((0, 7)), (5000, 5007));
        assert_eq!(ids.inside((5000, 5007)), (0, 7));
        assert_eq!(ids.of_image((3, 4)), (3, 4));
        assert_eq!(ids.maps(), ["0 5000 100\n", "0 5000 100\n"]);
        assert_eq!(ids.of_pid_one(), (0, 0));
        assert!(ids.groups_settable() && !ids.has((100, 0)));
    }

    #[test]
    fn an_owner_outside_becomes_a_user_inside() {
        let ids = Ids::range(5000, 100).with_owner((40, 700), (7, 8));
        assert_eq!(ids.outside((40, 700)), (5007, 5008), "files of 40 are those of 7 inside");
        assert_eq!(ids.outside((7, 9)), (5040, 5009), "and the other way round; who has no id inside has nothing to give");
        assert_eq!(ids.maps()[0], "0 5000 7\n8 5008 32\n41 5041 59\n40 5007 1\n7 5040 1\n");
        assert_eq!(Ids::range(5000, 100).with_owner((7, 7), (7, 7)).outside((7, 7)), (5007, 5007));
    }

    #[test]
    fn one_id_stands_for_all() {
        let ids = Ids::own((10001, 10001), (1000, 100), None);
        assert_eq!(ids.outside((0, 0)), (1000, 100));
        assert_eq!(ids.inside((1000, 100)), (10001, 10001));
        assert_eq!(ids.of_image((1000, 100)), (10001, 10001));
        assert_eq!(ids.maps(), ["10001 1000 1\n", "10001 100 1\n"]);
        assert_eq!(ids.of_pid_one(), (10001, 10001));
        assert!(!ids.groups_settable() && !ids.has((0, 0)) && ids.has((10001, 10001)));
    }

    #[test]
    fn subordinate_ids_are_everyone_else() {
        let run = Extent { inside: 0, outside: 100_000, count: 65_536 };
        let ids = Ids::own((10001, 0), (1000, 1000), Some((run, run)));
        assert_eq!(ids.maps()[0], "0 100000 10001\n10002 110001 55534\n10001 1000 1\n");
        assert_eq!(ids.maps()[1], "1 100000 65535\n0 1000 1\n");
        assert_eq!(ids.outside((0, 1)), (100_000, 100_000));
        assert_eq!(ids.outside((10001, 0)), (1000, 1000));
        assert_eq!(ids.inside((110_001, 100_000)), (10002, 1));
        assert_eq!(ids.of_pid_one(), (0, 0));
        let all: Vec<u32> = (0..65_536).map(|id| ids.outside((id, 1)).0).collect();
        let distinct: std::collections::BTreeSet<u32> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().enumerate().all(|(id, outside)| ids.inside((*outside, 1000)).0 == id as u32));
    }
}
