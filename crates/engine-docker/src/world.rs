//! Paths as the daemon knows them: where Cofferdam itself runs in one of the daemon's containers, its own paths mean something else there.

use crate::daemon::is_missing;
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, MountPoint};
use bollard::query_parameters::InspectContainerOptions;
use cofferdam_engine::EngineError;
use std::path::{Path, PathBuf};

const ID_CHARACTERS: usize = 64;
const SHORT_CHARACTERS: usize = 12;
const REMEDY: &str = "run it with --privileged --pid host --cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup -v DATA:/var/lib/cofferdam";

/// What this process sees of the daemon's host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum World {
    /// The same as the daemon.
    #[default]
    Shared,
    /// What its container was given: directories inside, and where they are for the daemon. The longest first.
    Container(Vec<(PathBuf, PathBuf)>),
}

impl World {
    /// Asks the daemon about the container that this process is in, if it is in one.
    pub async fn find(client: &Docker) -> Result<Self, EngineError> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let guess = || {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            (Path::new("/.dockerenv").exists() && is_hexadecimal(&name, SHORT_CHARACTERS)).then_some(name)
        };
        let Some(id) = own_container(&mounts).map(str::to_owned).or_else(guess) else { return Ok(Self::Shared) };
        match client.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(found) => Self::of(&found, is_capable()),
            // A container of another daemon, which started this one: they share what there is.
            Err(error) if is_missing(&error) => Ok(Self::Shared),
            Err(error) => Err(crate::daemon::failed("look for the container that Cofferdam runs in", error)),
        }
    }

    fn of(found: &ContainerInspectResponse, is_capable: bool) -> Result<Self, EngineError> {
        let sees_all = found.host_config.as_ref().is_some_and(|host| host.pid_mode.as_deref() == Some("host"));
        if !sees_all || !is_capable {
            return Err(EngineError::Unsupported {
                what: "the engine docker in this container".into(),
                why: "it can neither see nor enter the containers that it would start".into(),
                remedy: REMEDY.into(),
            });
        }
        let mut places: Vec<(PathBuf, PathBuf)> = found.mounts.iter().flatten().filter_map(place).collect();
        places.sort_by_key(|(inside, _)| std::cmp::Reverse(inside.components().count()));
        Ok(Self::Container(places))
    }

    /// What the daemon calls a path of this process's; it exists.
    pub fn of_daemon(&self, path: &Path) -> Result<PathBuf, EngineError> {
        let Self::Container(places) = self else { return Ok(path.to_owned()) };
        // A link may lead from one mount to another.
        let real = path.canonicalize().map_err(|error| EngineError::host(format!("look at {}", path.display()), error))?;
        let found = places.iter().find_map(|(inside, outside)| {
            let rest = real.strip_prefix(inside).ok()?;
            // Joined with nothing a path would get a slash at its end.
            Some(if rest.as_os_str().is_empty() { outside.clone() } else { outside.join(rest) })
        });
        found.ok_or_else(|| EngineError::Unsupported {
            what: format!("{} on the engine docker", path.display()),
            why: "it is in the container that Cofferdam runs in, where the daemon does not see it".into(),
            remedy: "mount a directory of the host, or a volume, there".into(),
        })
    }
}

/// Whether this process may enter other containers and set up what is theirs.
fn is_capable() -> bool {
    const NEEDED: &[u32] = &[1, 12, 18, 19, 21]; // DAC_OVERRIDE, NET_ADMIN, SYS_CHROOT, SYS_PTRACE, SYS_ADMIN
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().all(|number| held >> number & 1 == 1)
}

/// A mount with a place on the daemon's disk.
fn place(mount: &MountPoint) -> Option<(PathBuf, PathBuf)> {
    let source = mount.source.as_deref().filter(|source| source.starts_with('/'))?;
    Some((PathBuf::from(mount.destination.as_deref()?), PathBuf::from(source)))
}

/// The daemon mounts files of a container's own directory into it: `…/containers/ID/hostname`.
fn own_container(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let file = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&place);
        let id = root.rsplit('/').nth(1)?;
        (file && root.contains("/containers/") && is_hexadecimal(id, ID_CHARACTERS)).then_some(id)
    })
}

fn is_hexadecimal(text: &str, characters: usize) -> bool {
    text.len() == characters && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_found() {
        let id = "0123456789abcdef".repeat(4);
        let line = format!("701 690 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw");
        assert_eq!(own_container(&format!("690 1 0:50 / / rw - overlay overlay rw\n{line}\n")), Some(id.as_str()));
        assert_eq!(own_container(&line.replace("/etc/hostname", "/mnt/x")), None, "anybody may mount that elsewhere");
        assert_eq!(own_container("690 1 0:50 / / rw - overlay overlay rw"), None);
    }

    #[test]
    fn paths_are_those_of_the_deepest_mount() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().canonicalize().expect("exists");
        for name in ["data/deep/x", "data/other", "own"] {
            std::fs::create_dir_all(base.join(name)).expect("made");
        }
        std::os::unix::fs::symlink(base.join("data/deep"), base.join("own/link")).expect("linked");
        let mount = |inside: &str, outside: &str| MountPoint {
            source: Some(outside.to_owned()),
            destination: Some(base.join(inside).display().to_string()),
            ..MountPoint::default()
        };
        let found = ContainerInspectResponse {
            host_config: Some(bollard::models::HostConfig { pid_mode: Some("host".into()), ..Default::default() }),
            mounts: Some(vec![mount("data", "/srv/data"), mount("data/deep", "/volumes/deep/_data")]),
            ..Default::default()
        };
        let world = World::of(&found, true).expect("may");
        let of = |name: &str| world.of_daemon(&base.join(name));
        assert_eq!(of("data/other").expect("seen"), Path::new("/srv/data/other"));
        assert_eq!(of("data").expect("seen"), Path::new("/srv/data"));
        assert_eq!(of("data/deep/x").expect("seen"), Path::new("/volumes/deep/_data/x"));
        assert_eq!(of("own/link/x").expect("seen"), Path::new("/volumes/deep/_data/x"));
        assert!(of("own").expect_err("its own").to_string().contains("does not see it"));
        assert_eq!(World::Shared.of_daemon(Path::new("/no/such")).expect("as it is"), Path::new("/no/such"));
        let less = ContainerInspectResponse { host_config: Some(bollard::models::HostConfig::default()), ..Default::default() };
        for refused in [World::of(&less, true), World::of(&found, false)] {
            assert!(refused.expect_err("may not").to_string().contains("neither see nor enter"));
        }
    }
}
