//! The host key: one for each data directory, made when it is first needed.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the host key's clients know the hosts by.
pub const HOSTS: &str = "*.cofferdam";

/// A host key.
#[derive(Debug)]
pub struct HostKey {
    pub(crate) key: PrivateKey,
}

/// Where a data directory has its host key, and the file that tells clients of it.
#[derive(Debug)]
pub struct HostKeyFiles {
    /// The key, as OpenSSH writes it.
    pub text: String,
    /// What `UserKnownHostsFile` is to name.
    pub known_hosts: PathBuf,
}

impl HostKey {
    /// From what OpenSSH writes.
    pub fn parse(text: &str) -> io::Result<Self> {
        PrivateKey::from_openssh(text).map(|key| Self { key }).map_err(io::Error::other)
    }
}

impl HostKeyFiles {
    /// Those in this directory; made from `seed` if there are none.
    pub fn open(directory: &Path, seed: impl FnOnce() -> [u8; 32]) -> io::Result<Self> {
        let file = directory.join("host_key");
        if !file.exists() {
            make(directory, &file, seed())?;
        }
        let text = fs::read_to_string(&file)?;
        let HostKey { key } = HostKey::parse(&text)?;
        let known_hosts = directory.join("known_hosts");
        let line = format!("{HOSTS} {}\n", key.public_key().to_openssh().map_err(io::Error::other)?);
        // Its directory is this user's alone; what stands there otherwise is made right.
        if fs::read_to_string(&known_hosts).ok().as_deref() != Some(&line) {
            whole(&known_hosts, line.as_bytes(), true)?;
        }
        Ok(Self { text, known_hosts })
    }
}

fn make(directory: &Path, file: &Path, seed: [u8; 32]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, "cofferdam").map_err(io::Error::other)?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    whole(file, text.as_bytes(), false)
}

/// Under its name only when it is whole; the first that is made stays unless `replace`.
fn whole(file: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let making = file.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&making);
    let mut out = fs::File::options().write(true).create_new(true).mode(0o600).open(&making)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    if replace {
        return fs::rename(&making, file);
    }
    let linked = fs::hard_link(&making, file);
    fs::remove_file(&making)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_what_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ssh");
        let first = HostKeyFiles::open(&path, || [1; 32]).expect("made");
        let again = HostKeyFiles::open(&path, || [2; 32]).expect("read");
        assert_eq!(first.text, again.text);
        let known = fs::read_to_string(first.known_hosts).expect("there");
        assert!(known.starts_with("*.cofferdam ssh-ed25519 AAAA"), "{known}");
        fs::write(path.join("host_key"), "rubbish").expect("written");
        assert!(HostKeyFiles::open(&path, || [3; 32]).is_err(), "never replaced");
    }
}
