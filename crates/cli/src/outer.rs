//! An ordinary user's sandboxes need a user namespace around them; what to do on a host that gives none.

use crate::args::{ImageVerb, SuiteVerb, TaskVerb, Verb, VolumeVerb};
use crate::engines::EngineName;
use crate::exit::{FAILED_TO_RUN, Failure};
use cofferdam_engine_host::cgroup::scope;
use cofferdam_sys::{Error, outer};
use std::io::ErrorKind;

/// Enters it for a command that makes sandboxes here. Root needs none.
pub fn enter(verb: &Verb) -> Result<(), Failure> {
    match wanted(verb) {
        Some(Wanted { subordinate, needed: true }) => enter_for_sandboxes(subordinate).map_err(|error| explain(&error)),
        Some(Wanted { subordinate, needed: false }) => match outer::enter(subordinate) {
            // Nothing has changed yet.
            Err(error) if error.call.starts_with("unshare") => Ok(()),
            entered => entered.map_err(|error| explain(&error)),
        },
        None => Ok(()),
    }
}

/// With control groups, where this host's service manager gives some. The spawner must not be there yet: it belongs into them.
pub fn enter_for_sandboxes(subordinate: bool) -> Result<(), Error> {
    let asked = if outer::is_host_root() { None } else { scope::ask() };
    let entered = outer::enter(subordinate);
    if let Some(asked) = asked {
        asked.wait();
    }
    entered
}

struct Wanted {
    /// Other users than one are likely: their ids take a moment to get.
    subordinate: bool,
    /// Whether there is nothing to be done without.
    needed: bool,
}

fn wanted(verb: &Verb) -> Option<Wanted> {
    let native = |engine: EngineName| engine != EngineName::Docker;
    match verb {
        Verb::Run(arguments) if native(arguments.engine) => Some(Wanted { subordinate: arguments.has_users(), needed: true }),
        Verb::Monitor(arguments) if native(arguments.run.engine) => Some(Wanted { subordinate: arguments.run.has_users(), needed: true }),
        Verb::Task(TaskVerb::Run(arguments)) if native(arguments.engine) => Some(Wanted { subordinate: true, needed: true }),
        Verb::Suite(SuiteVerb::Run(arguments)) if arguments.engine.is_none_or(native) => Some(Wanted { subordinate: true, needed: true }),
        Verb::EscapeTest(arguments) if native(arguments.engine) => Some(Wanted { subordinate: false, needed: true }),
        Verb::Task(TaskVerb::Validate { .. }) | Verb::Image(ImageVerb::Build(_)) => Some(Wanted { subordinate: true, needed: true }),
        Verb::Bench(_) => Some(Wanted { subordinate: false, needed: true }),
        // An image may be built or pulled for it.
        Verb::Task(TaskVerb::Render(_)) => Some(Wanted { subordinate: true, needed: false }),
        // What a sandbox wrote there may be other users' of it.
        Verb::Volume(VolumeVerb::Rm { .. } | VolumeVerb::Export { .. } | VolumeVerb::Import { .. }) => {
            Some(Wanted { subordinate: true, needed: false })
        }
        // Layers may hold directories that their owner may not write to.
        Verb::Image(ImageVerb::Pull(_) | ImageVerb::Load(_) | ImageVerb::Import(_) | ImageVerb::Rm { .. } | ImageVerb::Gc { .. }) => {
            Some(Wanted { subordinate: false, needed: false })
        }
        _ => None,
    }
}

/// Why there is none, and what helps.
pub fn explain(error: &Error) -> Failure {
    let setting = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let (why, remedy) = if setting("/proc/sys/user/max_user_namespaces") == "0" || error.source.kind() == ErrorKind::StorageFull {
        ("this host allows no more user namespaces".to_owned(), "sudo sysctl -w user.max_user_namespaces=15000".to_owned())
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        ("this host gives user namespaces to root only".to_owned(), "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned())
    } else if let Some(profile) = confined_by(&setting("/proc/self/attr/apparmor/current")) {
        (format!("AppArmor's profile {profile} forbids user namespaces"), "add the rule 'userns,' to it".to_owned())
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        let remedy = "give this program an AppArmor profile (guide, \"Without root\"), or: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
        ("AppArmor restricts user namespaces on this host".to_owned(), remedy.to_owned())
    } else {
        let why = "this host or the container around it forbids user namespaces".to_owned();
        (why, "allow them, or run the command as root (sudo cofferdam …)".to_owned())
    };
    let message = format!("no sandbox without root: {why} ({error})");
    Failure::new(FAILED_TO_RUN, "unsupported", message).remedy(format!("{remedy}; cofferdam doctor tells what else is missing"))
}

/// The profile that enforces something on this process, of what the kernel says about it: `NAME (enforce)`, or `unconfined`. The one that
/// Ubuntu changes to where it restricts user namespaces is nobody's to change.
fn confined_by(label: &str) -> Option<&str> {
    label.strip_suffix(" (enforce)").filter(|name| *name != "unprivileged_userns")
}

#[cfg(test)]
mod tests {
    use super::confined_by;

    #[test]
    fn only_a_profile_that_is_enforced_is_named() {
        assert_eq!(confined_by("/usr/bin/cofferdam (enforce)"), Some("/usr/bin/cofferdam"));
        for label in ["", "unconfined", "cofferdam (unconfined)", "cofferdam (complain)", "unprivileged_userns (enforce)"] {
            assert_eq!(confined_by(label), None, "{label}");
        }
    }
}
