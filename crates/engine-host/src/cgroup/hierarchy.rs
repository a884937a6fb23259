//! Which hierarchies this host has.

use cofferdam_sys::process::read_kernel_file;
use rustix::fs::{Access, AtFlags, CWD};
use std::path::{Path, PathBuf};

/// A version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// A controller that limits or freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// CPU time.
    Cpu,
    /// Processes.
    Pids,
    /// Version 1's freezer.
    Freezer,
    /// Version 1's account of CPU time.
    Account,
}

const CONTROLLERS: [(Controller, &str); 5] = [
    (Controller::Memory, "memory"),
    (Controller::Cpu, "cpu"),
    (Controller::Pids, "pids"),
    (Controller::Freezer, "freezer"),
    (Controller::Account, "cpuacct"),
];

/// Where the supervisors of a delegated version 2 group move to: a group that has controllers to give holds no process itself.
pub const SUPERVISORS: &str = "/cofferdam.supervisors";

/// The group of a controller (empty: version 2) in the text of `/proc/<pid>/cgroup`.
pub(super) fn of_groups<'a>(groups: &'a str, name: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names.split(',').any(|one| one == name).then_some(path)
    })
}

/// The hierarchies of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    one: Vec<(Controller, PathBuf)>,
    two: Option<PathBuf>,
    /// Controllers that version 2 has to give, in the form of `cgroup.subtree_control`.
    delegate: String,
}

impl Hierarchies {
    /// Asks this host.
    pub fn detect() -> Self {
        let mounts = read_kernel_file(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        let controllers = |root: &Path| read_kernel_file(&root.join("cgroup.controllers")).unwrap_or_default();
        Self::parse(&mounts, controllers)
    }

    /// From the text of `mountinfo` and each version 2 root's controllers.
    pub(super) fn parse(mountinfo: &str, controllers_of: impl Fn(&Path) -> String) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((place, file_system)) = line.split_once(" - ") else { continue };
            let (Some(root), Some(point)) = (place.split(' ').nth(3), place.split(' ').nth(4)) else { continue };
            let mut fields = file_system.split(' ');
            match fields.next() {
                Some("cgroup") => found.add_one(point, fields.nth(1).unwrap_or_default()),
                Some("cgroup2") if found.two.is_none() && root == "/" => found.two = Some(PathBuf::from(point)),
                _ => {}
            }
        }
        found.find_delegate(controllers_of);
        found
    }

    fn add_one(&mut self, point: &str, options: &str) {
        for (controller, name) in CONTROLLERS {
            let known = self.one.iter().any(|(other, _)| *other == controller);
            if !known && options.split(',').any(|option| option == name) {
                self.one.push((controller, PathBuf::from(point)));
            }
        }
    }

    fn find_delegate(&mut self, controllers_of: impl Fn(&Path) -> String) {
        let Some(root) = &self.two else { return };
        let available = controllers_of(root);
        let wanted = ["memory", "pids", "cpu"].into_iter().filter(|name| available.split_whitespace().any(|other| other == *name));
        self.delegate = wanted.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    }

    /// What an ordinary user may use: the groups that this process is in, where they are the user's to write to. Asks this host.
    pub fn detect_own() -> Self {
        let groups = read_kernel_file(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let writable = |path: &Path| {
            let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            let may = |path: &Path, access| rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
            may(path, access) && may(&path.join("cgroup.procs"), Access::WRITE_OK)
        };
        let controllers = |root: &Path| read_kernel_file(&root.join("cgroup.controllers")).unwrap_or_default();
        Self::detect().below(&groups, writable, controllers)
    }

    /// Each hierarchy from the group that `groups` (the text of `/proc/self/cgroup`) names; without those that are not writable.
    pub(super) fn below(&self, groups: &str, writable: impl Fn(&Path) -> bool, controllers_of: impl Fn(&Path) -> String) -> Self {
        let place = |root: &Path, name: &str| {
            let own = of_groups(groups, name)?;
            // A supervisor that made room for its sandboxes is one below.
            let own = own.strip_suffix(SUPERVISORS).unwrap_or(own);
            let path = root.join(own.trim_matches('/'));
            writable(&path).then_some(path)
        };
        let named = |controller: Controller| CONTROLLERS.iter().find(|(other, _)| *other == controller).map_or("", |(_, name)| name);
        let one = self.one.iter().filter_map(|(controller, root)| Some((*controller, place(root, named(*controller))?))).collect();
        let two = self.two.as_deref().and_then(|root| place(root, ""));
        let mut found = Self { one, two, delegate: String::new() };
        found.find_delegate(controllers_of);
        found
    }

    /// Those in which a process is at one and the same path, and that path: what a container's groups are. None if it is in none of its own.
    pub fn of_process(&self, groups: &str) -> Option<(Self, PathBuf)> {
        let of = |name: &str| of_groups(groups, name);
        let own = of("memory").or_else(|| of(""))?;
        let at_own = |controller: Controller| CONTROLLERS.iter().any(|(other, name)| *other == controller && of(name) == Some(own));
        let one = self.one.iter().filter(|(controller, _)| at_own(*controller)).cloned().collect();
        let two = self.two.clone().filter(|_| of("") == Some(own));
        let relative = PathBuf::from(own.trim_start_matches('/'));
        let known = Self { one, two, delegate: self.delegate.clone() };
        (!relative.as_os_str().is_empty()).then_some((known, relative))
    }

    /// Where a controller is.
    pub fn of(&self, controller: Controller) -> Option<(&Path, Version)> {
        if let Some((_, path)) = self.one.iter().find(|(other, _)| *other == controller) {
            return Some((path, Version::One));
        }
        let (_, name) = CONTROLLERS.iter().find(|(other, _)| *other == controller)?;
        let given = self.delegate.split(' ').any(|entry| entry.strip_prefix('+') == Some(name));
        self.two.as_deref().filter(|_| given).map(|path| (path, Version::Two))
    }

    /// Every hierarchy that a sandbox needs a group in, each once. The freezer only where version 2 cannot freeze.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        let mut roots: Vec<&Path> = Vec::new();
        let needed = |controller: Controller| match controller {
            Controller::Freezer => self.two.is_none(),
            // Version 2 tells the time too; no group is made for that.
            Controller::Account => false,
            _ => true,
        };
        let one = self.one.iter().filter(|(controller, _)| needed(*controller));
        for path in one.map(|(_, path)| path.as_path()).chain(self.two.as_deref()) {
            if !roots.contains(&path) {
                roots.push(path);
            }
        }
        roots.into_iter()
    }

    /// The version 2 hierarchy.
    pub fn unified(&self) -> Option<&Path> {
        self.two.as_deref()
    }

    /// What to give on below a root, if it is version 2's and has anything to give.
    pub fn delegated(&self, root: &Path) -> Option<String> {
        (self.two.as_deref() == Some(root) && !self.delegate.is_empty()).then(|| self.delegate.clone())
    }

    /// The one hierarchy that an exec'd process has a group in: version 1's of processes, which it can enter without
    /// waiting, else version 2's.
    #[must_use]
    pub fn for_exec(&self) -> Self {
        let pids: Vec<_> = self.one.iter().filter(|(controller, _)| *controller == Controller::Pids).cloned().collect();
        let two = if pids.is_empty() { self.two.clone() } else { None };
        Self { one: pids, two, delegate: String::new() }
    }

    /// Without version 1's hierarchy of CPU time, unless another controller shares it.
    #[must_use]
    pub fn without_cpu(&self) -> Self {
        let one = self.one.iter().filter(|(controller, _)| *controller != Controller::Cpu).cloned().collect();
        Self { one, two: self.two.clone(), delegate: self.delegate.clone() }
    }

    /// Whether the number of processes is limited.
    pub fn limits_processes(&self) -> bool {
        self.of(Controller::Pids).is_some()
    }

    /// Limits that this host cannot enforce.
    pub fn missing(&self) -> Vec<&'static str> {
        let limits = |controller: Controller| !matches!(controller, Controller::Freezer | Controller::Account);
        let missing = |(controller, _): &&(Controller, &str)| limits(*controller) && self.of(*controller).is_none();
        CONTROLLERS.iter().filter(missing).map(|(_, name)| *name).collect()
    }

    /// In words: `v1`, `v2`, `hybrid` or `none`.
    pub fn describe(&self) -> &'static str {
        match (self.one.is_empty(), self.two.is_some()) {
            (true, true) => "v2",
            (false, true) => "hybrid",
            (false, false) => "v1",
            (true, false) => "none",
        }
    }
}
