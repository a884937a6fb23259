//! `-v` and `--memory-volume`: what of the host is shown inside.

use crate::args::RunArgs;
use crate::context::Context;
use crate::exit::Failure;
use crate::host::home;
use cofferdam_engine::{Mount, MountSource};
use cofferdam_lifecycle::volume::Volumes;
use cofferdam_model::{Name, VolumeUse};
use cofferdam_trust::User;
use std::path::{Path, PathBuf};

/// Where an agent's memory is inside.
pub const MEMORY: &str = "/memory";

/// Mounts, and which of them are named volumes.
#[derive(Debug, Default)]
pub struct Mounts {
    pub mounts: Vec<Mount>,
    pub volumes: Vec<VolumeUse>,
}

/// One `-v`.
struct Wanted<'a> {
    source: &'a str,
    target: PathBuf,
    writable: Option<bool>,
}

impl Mounts {
    /// What the arguments ask for, for a sandbox of this user.
    pub fn of(context: &Context, arguments: &RunArgs, user: &User) -> Result<Self, Failure> {
        let mut mounts = Self::default();
        for text in &arguments.volumes {
            let Wanted { source, target, writable } = parse(text)?;
            if is_path(source) {
                let source = MountSource::open(Path::new(source), home().as_deref(), context.data.path())?;
                mounts.mounts.push(Mount { source, target, writable: writable.unwrap_or(false) });
            } else {
                let name = source.parse::<Name>().map_err(|error| {
                    Failure::usage(format!("--volume {text}: {error}")).remedy(format!("for a file or directory say ./{source}"))
                })?;
                mounts.volume(context, user, VolumeUse { name, target, writable: writable.unwrap_or(true) })?;
            }
        }
        if let Some(name) = &arguments.memory_volume {
            mounts.volume(context, user, VolumeUse { name: name.clone(), target: MEMORY.into(), writable: true })?;
        }
        Ok(mounts)
    }

    fn volume(&mut self, context: &Context, user: &User, wanted: VolumeUse) -> Result<(), Failure> {
        let name = &wanted.name;
        let (source, made) = Volumes::of(&context.data).source(name, (user.uid, user.gid))?;
        if made {
            super::volume::record(context, name, "volume.created")?;
        }
        if made && Path::new(name.as_str()).exists() {
            crate::output::note!("cofferdam: note: {name} is a new named volume; for what is called so here say ./{name}");
        }
        self.mounts.push(Mount { source, target: wanted.target.clone(), writable: wanted.writable });
        self.volumes.push(wanted);
        Ok(())
    }
}

/// As Docker tells a path from a name.
fn is_path(source: &str) -> bool {
    source.contains('/') || source.starts_with('.') || source.starts_with('~')
}

/// `SRC:DST[:ro|:rw]`.
fn parse(text: &str) -> Result<Wanted<'_>, Failure> {
    let wrong = || Failure::usage(format!("--volume {text}: PATH:DST or NAME:DST is wanted, with :ro or :rw after it"));
    let (rest, writable) = match (text.strip_suffix(":rw"), text.strip_suffix(":ro")) {
        (Some(rest), _) => (rest, Some(true)),
        (None, Some(rest)) => (rest, Some(false)),
        (None, None) => (text, None),
    };
    let (source, target) = rest.rsplit_once(':').ok_or_else(wrong)?;
    if source.is_empty() || !target.starts_with('/') {
        return Err(wrong());
    }
    Ok(Wanted { source, target: PathBuf::from(target), writable })
}
