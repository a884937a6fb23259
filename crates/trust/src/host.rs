//! Image `host`: the host's own programs, read-only, with an `/etc` that holds what programs need and nothing that
//! tells on the host: no accounts, no keys, no configuration of services.

use crate::accounts::Accounts;
use crate::copy::copy_tree;
use crate::image::HostTree;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// PATH of a process that is given none.
pub const PATH_VALUE: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Copied from the host's `/etc` where they exist: loader, certificates, alternatives, time zone, name services'
/// fixed tables, locale, and what language runtimes keep there.
const CARRIED: &[&str] = &[
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "host.conf",
    "inputrc",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "maven",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vim",
    "xattr.conf",
];

/// Mode 0555 is for those that hold nothing: where no capability counts (NFS), nothing could be made or removed in them.
const EMPTY_DIRECTORIES: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o755),
    ("sys/devices", 0o755),
    ("sys/devices/system", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
];

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";
const PROFILE: &str = "# sandbox profile\n[ -z \"$PS1\" ] || PS1='\\u@\\h:\\w\\$ '\n";

/// Trees that make up the system on this host: `/usr`, and the old top-level directories where they are no links.
pub fn trees() -> Vec<HostTree> {
    let is_directory = |path: &&str| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32"]
        .iter()
        .filter(|path| is_directory(path))
        .map(|path| HostTree { path: PathBuf::from(path) })
        .collect()
}

/// The lower directory with the private `/etc`. Made once for each state of the host's own files and kept under `base`;
/// safe against two makers at once and against a crash half-way: it appears under its name only when it is whole.
pub fn prepare(base: &Path) -> io::Result<PathBuf> {
    let ready = base.join(format!("{:016x}", fingerprint()));
    if ready.is_dir() {
        return Ok(ready);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(base)?;
    // A directory of this maker's own: threads of one process make it at once too.
    let own = tempfile::Builder::new().prefix("making-").tempdir_in(base)?;
    let making = own.path().join("root");
    build(&making)?;
    match fs::rename(&making, &ready) {
        Err(_) if ready.is_dir() => {}
        other => other?,
    }
    remove_outdated(base, &ready);
    Ok(ready)
}

/// What the private `/etc` is made from, by change time: a package installed on the host makes a new one.
fn fingerprint() -> u64 {
    const VERSION: u32 = 3;
    let mut hasher = DefaultHasher::new();
    VERSION.hash(&mut hasher);
    for path in ["/etc", "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/pki", "/etc/localtime", "/usr", "/"] {
        let state = fs::symlink_metadata(path).map(|m| (m.mtime(), m.mtime_nsec(), m.ino())).ok();
        state.hash(&mut hasher);
    }
    hasher.finish()
}

/// Directories of earlier states that nothing is making any more. A sandbox that still uses one keeps its files: they
/// are open.
fn remove_outdated(base: &Path, ready: &Path) {
    const SETTLED_SECONDS: u64 = 600;
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let old =
            entry.metadata().and_then(|m| m.modified()).is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > SETTLED_SECONDS));
        if entry.path() != ready && old {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn build(root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for (directory, mode) in EMPTY_DIRECTORIES {
        let path = root.join(directory);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/run/lock", root.join("var/lock"))?;
    for name in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
        match fs::symlink_metadata(Path::new("/").join(name)) {
            Ok(metadata) if metadata.is_symlink() => symlink(fs::read_link(Path::new("/").join(name))?, root.join(name))?,
            Ok(metadata) if metadata.is_dir() => fs::create_dir(root.join(name))?,
            _ => {}
        }
    }
    configuration(&root.join("etc"))
}

fn configuration(etc: &Path) -> io::Result<()> {
    fs::create_dir(etc)?;
    fs::set_permissions(etc, fs::Permissions::from_mode(0o755))?;
    for name in CARRIED {
        let source = Path::new("/etc").join(name);
        let target = etc.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        copy_tree(&source, &target)?;
    }
    if let Ok(zone) = fs::canonicalize("/etc/localtime") {
        if zone.starts_with("/usr") {
            symlink(zone, etc.join("localtime"))?;
        } else {
            fs::copy(zone, etc.join("localtime"))?;
        }
    }
    let accounts = Accounts::standard();
    fs::write(etc.join("passwd"), accounts.passwd())?;
    fs::write(etc.join("group"), accounts.group())?;
    fs::write(etc.join("nsswitch.conf"), NSSWITCH)?;
    fs::write(etc.join("profile"), PROFILE)?;
    symlink("/proc/self/mounts", etc.join("mtab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_what_programs_need_and_no_accounts() {
        let base = std::env::temp_dir().join(format!("cofferdam-host-{}", std::process::id()));
        let root = prepare(&base).expect("prepared");
        assert!(root.join("etc/ld.so.cache").exists());
        assert!(root.join("etc/nsswitch.conf").exists());
        for secret in ["shadow", "ssh", "ssl/private", "sudoers", "hostname", "machine-id", "resolv.conf", "fstab"] {
            assert!(!root.join("etc").join(secret).exists(), "{secret}");
        }
        let passwd = fs::read_to_string(root.join("etc/passwd")).expect("accounts");
        assert_eq!(passwd, Accounts::standard().passwd(), "none of the host's accounts");
        assert_eq!(prepare(&base).expect("again"), root);
        fs::remove_dir_all(&base).expect("removed");
    }

    /// On NFS nobody but the server says who may write.
    #[test]
    fn every_directory_that_holds_something_is_writable_to_its_owner() {
        fn look(directory: &Path) {
            let entries: Vec<_> = fs::read_dir(directory).expect("listed").flatten().collect();
            let mode = fs::symlink_metadata(directory).expect("there").permissions().mode();
            assert!(entries.is_empty() || mode & 0o300 == 0o300, "{} has mode {mode:o}", directory.display());
            entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| look(&entry.path()));
        }
        let directory = tempfile::tempdir().expect("a directory");
        look(&prepare(&directory.path().join("host")).expect("prepared"));
    }

    #[test]
    fn many_makers_at_once_make_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("host");
        let made: Vec<PathBuf> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| prepare(&base).expect("prepared"))).collect();
            makers.into_iter().map(|maker| maker.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|path| *path == made[0] && path.join("dev").is_dir() && path.join("etc/passwd").is_file()));
        assert_eq!(fs::read_dir(&base).expect("listed").count(), 1, "nothing half-made is left");
    }
}
