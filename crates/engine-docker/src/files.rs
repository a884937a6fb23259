//! Our files of a container on the host.

use crate::container::TREES;
use cofferdam_engine::{EngineError, SandboxSpec};
use cofferdam_engine_host::device::system;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::process;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes pid 1, where it will find its socket, and what trees of the host are mounted onto.
pub fn write_own(spec: &SandboxSpec) -> Result<(), EngineError> {
    let host = |error| EngineError::host("write the container's own files", error);
    let contained = spec.directory.join("contained");
    fs::create_dir_all(&contained).map_err(host)?;
    let init = contained.join("init");
    fs::write(&init, cofferdam_sys::INIT_PROGRAM).map_err(host)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o555)).map_err(host)?;
    let trees = contained.join(TREES);
    fs::create_dir(&trees).map_err(host)?;
    for (number, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| !mount.source.is_volume()) {
        let place = trees.join(number.to_string());
        if mount.source.is_directory() { fs::create_dir(place) } else { fs::write(place, "") }.map_err(host)?;
    }
    // Whatever this process's umask is: a remapped container's root is nobody here.
    [&contained, &trees].iter().try_for_each(|directory| fs::set_permissions(directory, fs::Permissions::from_mode(0o755))).map_err(host)
}

/// Removes them.
pub fn remove_own(directory: &Path) {
    let _ = fs::remove_dir_all(directory.join("contained"));
}

/// Does what makes files in a container. Where the daemon remaps users, what is made there belongs to one of the container's, who this process
/// is not: then a thread of its own does it as the container's root.
pub fn as_its_root<T: Send>(ids: &Ids, work: impl FnOnce() -> Result<T, EngineError> + Send) -> Result<T, EngineError> {
    let root = ids.outside((0, 0));
    if root == (0, 0) {
        return work();
    }
    let panicked = |_| EngineError::host("make files in the container", std::io::Error::other("its thread panicked"));
    std::thread::scope(|scope| {
        let work = || {
            process::see_files_as(root, &[], true).map_err(system)?;
            work()
        };
        scope.spawn(work).join().map_err(panicked)?
    })
}
