//! What a sandbox has written: in the upper directory that the daemon gave its root, and in the places above that (`places`).

use crate::container::OWN;
use cofferdam_engine::{EngineError, SandboxSpec};
use cofferdam_engine_host::upperside::{Side, Upperside};
use cofferdam_sys::ids::Ids;
use rustix::fs::{Mode, OFlags, open};
use std::ffi::OsString;
use std::fs::read_to_string;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Settings of overlays that the daemon leaves as the kernel has them. With one of these what is in an upper directory is not all of it.
const NOTES: [&str; 2] = ["redirect_dir", "metacopy"];
/// Mounted over: of the image only a place is needed.
const MOUNTED: [&str; 2] = ["etc/passwd", "etc/group"];

/// Whether an upper directory has all that was written.
pub fn is_whole() -> bool {
    let is_on = |name: &str| read_to_string(format!("/sys/module/overlay/parameters/{name}")).is_ok_and(|text| text.trim() == "Y");
    !NOTES.iter().any(|name| is_on(name))
}

/// The upper directory of a container's root, if it has one that this process can see. `told`: what the daemon says of that, if it was asked.
pub fn root_of(pid: u32, told: Option<PathBuf>) -> Option<OwnedFd> {
    let read = |name: &str| read_to_string(format!("/proc/{pid}/{name}")).ok();
    if !is_whole() {
        return None;
    }
    // Of many layers a daemon says where they are from its own directory, and the kernel says the same.
    let path = told.or_else(|| upper_directory(&read("mountinfo")?)).filter(|path| path.is_absolute())?;
    // It is a path of the daemon's, whose child holds the container: this process may be in another container, or have other mounts.
    let parent = read("status")?.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())?;
    let path = Path::new("/proc").join(parent.to_string()).join("root").join(path.strip_prefix("/").ok()?);
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Whether a daemon may tell its layers from a directory of its own, since there are so many that their whole names are too long.
pub fn is_to_be_asked(spec: &SandboxSpec) -> bool {
    const SURELY_FEW: usize = 20;
    spec.image.layers().len() > SURELY_FEW
}

/// Where the topmost overlay at `/` has what is written, in the text of `mountinfo`.
fn upper_directory(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let mut words = line.split_once(" - ")?.1.split(' ');
    let kind = words.next()?;
    let options = words.nth(1)?;
    let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    (kind == "overlay").then(|| PathBuf::from(OsString::from_vec(unescaped(upper))))
}

/// `mountinfo` has spaces and the like as octal numbers.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

/// What differs from the image, when it is asked for.
pub fn changes(root: OwnedFd, places: Vec<Side>, ids: &Ids, spec: &SandboxSpec) -> Upperside {
    let sides = [Side::upper(root, Path::new(""))].into_iter().chain(places).collect();
    let mounted: &[&str] = if spec.bare { &[] } else { &MOUNTED };
    Upperside::of(sides, None, ids.clone(), spec.clone()).without(&[OWN]).without(mounted)
}

/// Why nothing can be said of that.
pub fn untold() -> EngineError {
    EngineError::Unsupported {
        what: "changes of a sandbox as a layer".into(),
        why: "this daemon's containers are no overlays that this process can see, or have redirect_dir or metacopy set for them".into(),
        remedy: "use the storage driver overlay2, or --engine native".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_directory_is_that_of_the_topmost_root() {
        let line = |at: &str, kind: &str, options: &str| format!("29 1 0:26 / {at} rw,relatime shared:1 - {kind} overlay {options}\n");
        let root = line("/", "overlay", "rw,lowerdir=/l/a:/l/b,upperdir=/var/lib/a\\040b/diff,workdir=/w");
        let other = line("/tmp", "overlay", "rw,lowerdir=/l,upperdir=/other,workdir=/w");
        let found = upper_directory(&format!("{}{root}{other}", line("/", "ext4", "rw")));
        assert_eq!(found, Some(PathBuf::from("/var/lib/a b/diff")));
        assert_eq!(upper_directory(&line("/", "ext4", "rw,upperdir=/x")), None);
        assert_eq!(upper_directory(&line("/", "overlay", "ro,lowerdir=/l/a:/l/b")), None);
    }
}
