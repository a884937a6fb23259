//! Debian archives: what a release offers, and its packages.
//!
//! A release is believed because its signature is right (`gpgv`, Debian's keyring); an index because the release names its digest; a
//! package because the index, and later the lock file, names its.

use super::lock::{Lock, LockedPackage, LockedSuite};
use super::resolve::{Catalogue, ResolveError};
use crate::content::{Content, ContentError, Hasher, sha256};
use crate::registry::RegistryError;
use crate::registry::RegistryOptions;
use crate::registry::http::{Http, Method};
use cofferdam_model::image::{Base, DebianSource, Digest};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Architectures that a lock file covers.
pub const ARCHITECTURES: &[&str] = &["amd64", "arm64"];
const KEYRINGS: &[&str] = &["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
const LARGEST_RELEASE: u64 = 4 << 20;
const LARGEST_INDEX: u64 = 512 << 20;
const LARGEST_PACKAGE: u64 = 2 << 30;
const TRANSFERS: usize = 6;
const TRIES: u32 = 4;

/// Where Debian's archive is fetched from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// URL of the archive.
    pub main: String,
    /// URL of the archive of security updates.
    pub security: Option<String>,
}

/// An archive that does not give what it should.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be reached, or answers otherwise.
    #[error("Debian archive: {0}")]
    Transfer(#[from] RegistryError),
    /// What it gave is not what was asked for.
    #[error("Debian archive: {url}: {why}")]
    Wrong {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The transfer broke.
    #[error("Debian archive: {url}: {source}; try again")]
    Cut {
        /// Where.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A release whose signature is not right.
    #[error("{url} is not signed by a key of {keyring}: {why}", keyring = keyring.display())]
    Signature {
        /// The release.
        url: String,
        /// The keys.
        keyring: PathBuf,
        /// What `gpgv` says.
        why: String,
    },
    /// What checks signatures is not here.
    #[error("{0} is not here, and signatures of Debian's releases are checked by it; apt-get install gpgv debian-archive-keyring")]
    NoVerifier(&'static str),
    /// The packages cannot be had.
    #[error("{architecture}: {source}")]
    Resolve {
        /// For which machines.
        architecture: String,
        /// Why not.
        source: ResolveError,
    },
    /// A package that the archive has no more.
    #[error("{file} is in the archive no more: newer versions took its place; see them with cofferdam image lock, take them with --update")]
    Gone {
        /// Its path.
        file: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A thread that fetched ended without a result.
    #[error("Debian archive: a transfer ended without a result; try again")]
    Lost,
    /// The kernel refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Fetches.
pub struct Archive<'a> {
    mirrors: &'a Mirrors,
    content: &'a Content,
    clients: Mutex<BTreeMap<String, Arc<Http>>>,
    now: i64,
}

/// A release, checked.
struct Release {
    fields: BTreeMap<String, String>,
    files: BTreeMap<String, (String, u64)>,
    digest: Digest,
}

impl<'a> Archive<'a> {
    /// From these mirrors into this store; `now` in seconds since 1970.
    pub const fn new(mirrors: &'a Mirrors, content: &'a Content, now: i64) -> Self {
        Self { mirrors, content, clients: Mutex::new(BTreeMap::new()), now }
    }

    /// What the base needs as the archive is today.
    pub fn lock(&self, base: &Base) -> Result<Lock, ArchiveError> {
        let mut lock = Lock::empty(base);
        let Some(source) = base.debian.as_ref().filter(|_| !base.packages.is_empty()) else { return Ok(lock) };
        let mut releases = Vec::new();
        for (suite, security) in self.suites(source) {
            let release = self.release(&suite, security)?;
            let date = release.fields.get("Date").cloned().unwrap_or_default();
            lock.suites.push(LockedSuite {
                suite: suite.clone(),
                version: release.fields.get("Version").cloned(),
                date,
                digest: release.digest.clone(),
            });
            releases.push((suite, security, release));
        }
        for architecture in ARCHITECTURES {
            let mut catalogue = Catalogue::default();
            for (suite, security, release) in &releases {
                for component in &source.components {
                    let name = format!("{component}/binary-{architecture}/Packages.xz");
                    catalogue.add(&self.index(suite, *security, release, &name)?, *security);
                }
            }
            let found = catalogue.resolve(&base.packages, base.scripts);
            let found = found.map_err(|source| ArchiveError::Resolve { architecture: (*architecture).to_owned(), source })?;
            let locked: Result<Vec<LockedPackage>, ArchiveError> = found.into_iter().map(|package| self.locked(package)).collect();
            lock.packages.insert((*architecture).to_owned(), locked?);
        }
        Ok(lock)
    }

    fn locked(&self, package: &super::resolve::Package) -> Result<LockedPackage, ArchiveError> {
        LockedPackage::of(package)
            .ok_or_else(|| ArchiveError::Wrong { url: self.mirrors.main.clone(), why: format!("{} has no digest", package.name) })
    }

    fn suites(&self, source: &DebianSource) -> Vec<(String, bool)> {
        let mut suites = vec![(source.suite.clone(), false), (format!("{}-updates", source.suite), false)];
        if self.mirrors.security.is_some() {
            suites.push((format!("{}-security", source.suite), true));
        }
        suites
    }

    fn base(&self, security: bool) -> &str {
        let security = self.mirrors.security.as_deref().filter(|_| security);
        security.unwrap_or(&self.mirrors.main).trim_end_matches('/')
    }

    /// A release file whose signature is right and whose time has not passed.
    fn release(&self, suite: &str, security: bool) -> Result<Release, ArchiveError> {
        let url = format!("{}/dists/{suite}/InRelease", self.base(security));
        let signed = self.get(&url, LARGEST_RELEASE)?;
        let text = signed_text(&url, &signed)?;
        let wrong = |why: String| ArchiveError::Wrong { url: url.clone(), why };
        let release = parse_release(&text, sha256(&signed));
        // Exactly: the release itself in place of its security updates would hide them, and carries no date to fail by.
        let named = |key: &str| release.fields.get(key).is_some_and(|value| value == suite);
        if !named("Codename") && !named("Suite") {
            return Err(wrong("it is the release of another suite".into()));
        }
        if let Some(until) = release.fields.get("Valid-Until")
            && seconds(until).is_none_or(|until| until < self.now)
        {
            return Err(wrong(format!("it was valid until {until}: the mirror is out of date")));
        }
        Ok(release)
    }

    fn index(&self, suite: &str, security: bool, release: &Release, name: &str) -> Result<String, ArchiveError> {
        let listed = release.files.get(name);
        let url = |path: &str| format!("{}/dists/{suite}/{path}", self.base(security));
        let wrong = |why: &str| ArchiveError::Wrong { url: url(name), why: why.into() };
        let Some((sha, size)) = listed else { return Err(wrong("the release does not list it")) };
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let packed = self.get(&url(&format!("{directory}/by-hash/SHA256/{sha}")), LARGEST_INDEX)?;
        if packed.len() as u64 != *size || sha256(&packed).hex() != sha {
            return Err(wrong("it has other bytes than the release says"));
        }
        let mut text = Vec::new();
        let read = crate::layout::xz(packed.as_slice()).take(LARGEST_INDEX).read_to_end(&mut text);
        read.map_err(|error| wrong(&error.to_string()))?;
        String::from_utf8(text).map_err(|_| wrong("it is no text"))
    }

    /// Fetches what is not here yet, several at a time. `told` hears of each.
    pub fn fetch(&self, packages: &[LockedPackage], told: &(dyn Fn(&str) + Sync)) -> Result<(), ArchiveError> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), ArchiveError> {
            while let Some(package) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !self.content.has_blob(&package.digest) {
                    self.fetch_one(package)?;
                    told(&format!("{} {}", package.name, package.version));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..TRANSFERS).map(|_| scope.spawn(work)).collect();
            let ends: Vec<Result<(), ArchiveError>> =
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(ArchiveError::Lost))).collect();
            ends.into_iter().collect()
        })
    }

    fn fetch_one(&self, package: &LockedPackage) -> Result<(), ArchiveError> {
        let _lock = self.content.lock(&package.digest)?;
        if self.content.has_blob(&package.digest) {
            return Ok(());
        }
        let url = format!("{}/{}", self.base(package.security), package.file);
        let parent = self.content.directory("partial")?;
        let io = |source| ArchiveError::Content(ContentError::Io { path: parent.clone(), source });
        let mut file = tempfile::Builder::new().prefix("package-").tempfile_in(&parent).map_err(io)?;
        let fetched = again(|| {
            file.as_file_mut().set_len(0).and_then(|()| io::Seek::rewind(&mut file)).map_err(io)?;
            self.stream(&url, package.size.min(LARGEST_PACKAGE), &mut file)
        });
        match fetched {
            Ok(digest) if digest == package.digest => {}
            Ok(digest) => {
                return Err(ArchiveError::Wrong { url, why: format!("it has digest {digest}, the lock file says {}", package.digest) });
            }
            Err(ArchiveError::Transfer(RegistryError::NotFound { .. })) => return Err(ArchiveError::Gone { file: package.file.clone() }),
            Err(error) => return Err(error),
        }
        let path = file.into_temp_path().keep().map_err(|error| io(error.error))?;
        Ok(self.content.adopt_blob(&path, &package.digest)?)
    }

    fn stream(&self, url: &str, most: u64, out: &mut impl Write) -> Result<Digest, ArchiveError> {
        let wrong = |why: String| ArchiveError::Wrong { url: url.to_owned(), why };
        let (mut hasher, mut total, mut buffer) = (Hasher::default(), 0, vec![0; 256 << 10]);
        let mut reader = self.open(url)?;
        loop {
            let read = reader.read(&mut buffer).map_err(|source| ArchiveError::Cut { url: url.to_owned(), source })?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            total += read as u64;
            if total > most {
                return Err(wrong(format!("it is larger than {most} bytes")));
            }
            hasher.update(&buffer[..read]);
            out.write_all(&buffer[..read]).map_err(|error| wrong(error.to_string()))?;
        }
    }

    fn get(&self, url: &str, most: u64) -> Result<Vec<u8>, ArchiveError> {
        again(|| {
            let mut bytes = Vec::new();
            self.stream(url, most, &mut bytes).map(|_| bytes)
        })
    }

    /// The connections to a mirror, made once.
    fn client(&self, scheme: &str, host: &str) -> Result<Arc<Http>, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = format!("{scheme}://{host}");
        if let Some(client) = clients.get(&name) {
            return Ok(client.clone());
        }
        let options = RegistryOptions { host: host.to_owned(), plain_http: scheme == "http", ..RegistryOptions::default() };
        let client = Arc::new(Http::new(host, &options)?);
        clients.insert(name, client.clone());
        Ok(client)
    }

    fn open(&self, url: &str) -> Result<Box<dyn Read>, ArchiveError> {
        let wrong = |why: &str| ArchiveError::Wrong { url: url.to_owned(), why: why.into() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it is no URL"))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| wrong("it is no URL"))?;
        if scheme != "https" && scheme != "http" {
            return Err(wrong("mirrors are reached by http and https"));
        }
        let client = self.client(scheme, host)?;
        let response = client.request(&Method::Get, &format!("/{path}"), &[], None)?;
        match response.status {
            200 => Ok(Box::new(response.into_reader())),
            404 | 410 => Err(RegistryError::NotFound { registry: host.to_owned(), what: format!("/{path}") }.into()),
            status => Err(RegistryError::Status { registry: host.to_owned(), what: format!("/{path}"), status }.into()),
        }
    }
}

/// Tries a transfer again that may go better another time.
fn again<T>(mut transfer: impl FnMut() -> Result<T, ArchiveError>) -> Result<T, ArchiveError> {
    let mut wait = Duration::from_millis(250);
    for _ in 1..TRIES {
        match transfer() {
            Err(
                ArchiveError::Cut { .. }
                | ArchiveError::Transfer(RegistryError::Unreachable { .. } | RegistryError::Broken { .. } | RegistryError::Status { .. }),
            ) => {}
            other => return other,
        }
        std::thread::sleep(wait);
        wait *= 2;
    }
    transfer()
}

/// The part of a release that its signature covers, as `gpgv` gives it out.
fn signed_text(url: &str, signed: &[u8]) -> Result<String, ArchiveError> {
    let keyring = KEYRINGS.iter().map(Path::new).find(|path| path.is_file()).ok_or(ArchiveError::NoVerifier("debian-archive-keyring"))?;
    let directory = tempfile::tempdir().map_err(|source| ArchiveError::Io { path: std::env::temp_dir(), source })?;
    let (input, output) = (directory.path().join("InRelease"), directory.path().join("Release"));
    std::fs::write(&input, signed).map_err(|source| ArchiveError::Io { path: input.clone(), source })?;
    let ended = Command::new("gpgv").arg("--keyring").arg(keyring).arg("--output").arg(&output).arg(&input).env("LC_ALL", "C").output();
    let ended = match ended {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ArchiveError::NoVerifier("gpgv")),
        other => other.map_err(|source| ArchiveError::Io { path: "gpgv".into(), source })?,
    };
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let why = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("gpgv says no").trim_start_matches("gpgv: ").to_owned();
        return Err(ArchiveError::Signature { url: url.to_owned(), keyring: keyring.to_owned(), why });
    }
    let bytes = std::fs::read(&output).map_err(|source| ArchiveError::Io { path: output, source })?;
    String::from_utf8(bytes).map_err(|_| ArchiveError::Wrong { url: url.to_owned(), why: "it is no text".into() })
}

fn parse_release(text: &str, digest: Digest) -> Release {
    let (mut fields, mut files, mut section) = (BTreeMap::new(), BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(entry) = line.strip_prefix(' ') {
            let words: Vec<&str> = entry.split_whitespace().collect();
            if let (true, [sha, size, name]) = (section == "SHA256", words.as_slice()) {
                files.insert((*name).to_owned(), ((*sha).to_owned(), size.parse().unwrap_or(0)));
            }
        } else if let Some((key, value)) = line.split_once(':') {
            key.clone_into(&mut section);
            fields.insert(key.to_owned(), value.trim().to_owned());
        }
    }
    Release { fields, files, digest }
}

/// `Sat, 12 Sep 2026 07:55:41 UTC` in seconds since 1970.
pub(super) fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split_whitespace().collect();
    let [_, day, month, year, time, zone] = words.as_slice() else { return None };
    if !matches!(*zone, "UTC" | "GMT" | "+0000") {
        return None;
    }
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    // Days from the civil calendar: years begin in March, eras have 400 years.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_releases() {
        assert_eq!(seconds("Sat, 12 Sep 2026 07:55:41 UTC"), Some(1_789_199_741));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(seconds("Thu, 29 Feb 2024 00:00:00 UTC"), Some(1_709_164_800));
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn an_unsigned_release_is_refused() {
        let error = signed_text("http://mirror.example/InRelease", b"Suite: trixie\n").expect_err("refused").to_string();
        assert!(error.contains("is not signed by a key of"), "{error}");
    }

    #[test]
    fn digests_stand_in_their_section() {
        let text = "Suite: stable\nMD5Sum:\n 00 1 main/x\nSHA256:\n aa 12 main/binary-amd64/Packages.xz\n";
        let release = parse_release(text, sha256(b""));
        assert_eq!(release.files.get("main/binary-amd64/Packages.xz"), Some(&("aa".to_owned(), 12)));
        assert_eq!(release.files.len(), 1);
    }
}
