//! Runs inside a sandbox and reports what it can and cannot do.
//!
//! Invariants: knows nothing outside the sandbox but what its arguments say; changes nothing that outlives the sandbox.
//! Every probe is a function that tries something and tells what happened; [`all`] lists them with the control that
//! stops them. References (B2.24 …) are to section b of the published list of probes, `docs/escape-test.md`.

mod confinement;
mod files;
mod identity;
mod network;
mod report;
mod resources;
mod syscalls;

pub use report::{Finding, Outcome};
pub use resources::hoard;
pub use syscalls::x32_call_is_refused;

/// Something to try.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// Its reference.
    pub reference: &'static str,
    /// The control that, left out, lets it through where that is safe to show.
    pub control: Option<&'static str>,
    /// Tries it.
    pub attempt: fn() -> Finding,
}

/// Every probe, in the order they are run: what could disturb the others comes last.
pub fn all() -> Vec<Probe> {
    let groups = [identity::PROBES, confinement::PROBES, files::PROBES, network::PROBES, resources::PROBES];
    let mut probes: Vec<Probe> = groups.into_iter().flatten().copied().collect();
    probes.splice(0..0, syscalls::PROBES.iter().copied());
    probes
}

/// Runs the probes whose names are given (all if none is), and prints one JSON object a line. True if each was contained.
pub fn run(names: &[String]) -> bool {
    let mut contained = true;
    for probe in all().iter().filter(|probe| names.is_empty() || names.iter().any(|name| name == probe.name)) {
        let Finding { outcome, detail } = (probe.attempt)();
        contained &= outcome != Outcome::Open;
        let line = serde_json::json!({ "probe": probe.name, "reference": probe.reference, "outcome": outcome, "detail": detail });
        println!("{line}");
    }
    contained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = all().iter().map(|probe| probe.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count >= 70, "{count} probes");
    }

    /// Outside of any sandbox the probes must find something open: else they could not fail.
    #[test]
    fn the_host_is_open() {
        let open = |name: &str| {
            let probe = all().into_iter().find(|probe| probe.name == name).unwrap_or_else(|| panic!("{name} exists"));
            (probe.attempt)().outcome == Outcome::Open
        };
        for name in ["seccomp", "no-new-privileges", "mountinfo-paths", "proc-cmdline"] {
            assert!(open(name), "{name}");
        }
    }
}
