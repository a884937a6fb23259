//! An ordinary user's sandboxes need a user namespace around them; what to do on a host that gives none.

use crate::args::{ImageVerb, SuiteVerb, TaskVerb, Verb, VolumeVerb};
use crate::engines::EngineName;
use crate::exit::{FAILED_TO_RUN, Failure};
use cofferdam_sys::{Error, outer};
use std::io::ErrorKind;

/// Enters it for a command that makes sandboxes here. Root needs none.
pub fn enter(verb: &Verb) -> Result<(), Failure> {
    match wanted(verb) {
        Some(Wanted { subordinate, needed }) => match outer::enter(subordinate) {
            // Nothing has changed yet.
            Err(error) if !needed && error.call.starts_with("unshare") => Ok(()),
            entered => entered.map_err(|error| explain(&error)),
        },
        None => Ok(()),
    }
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
        ("this host allows no more user namespaces", "sudo sysctl -w user.max_user_namespaces=15000")
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        ("this host gives user namespaces to root only", "sudo sysctl -w kernel.unprivileged_userns_clone=1")
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        ("AppArmor restricts user namespaces on this host", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    } else {
        ("this host or the container around it forbids user namespaces", "allow them, or run the command as root (sudo cofferdam …)")
    };
    let message = format!("no sandbox without root: {why} ({error})");
    Failure::new(FAILED_TO_RUN, "unsupported", message).remedy(format!("{remedy}; cofferdam doctor tells what else is missing"))
}
