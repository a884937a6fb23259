//! Users and groups inside a sandbox.

use crate::unpack::{Found, Lowers};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The default user's id (and group id).
pub const DEFAULT_ID: u32 = 10001;
/// The default user's name.
pub const DEFAULT_NAME: &str = "agent";
/// Ids above this do not exist inside: a sandbox has 65,536 of them, and the last two are nobody's.
const HIGHEST_ID: u32 = 65_533;
const LARGEST_FILE: u64 = 1 << 20;

const STANDARD_USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const STANDARD_GROUPS: &str = "root:x:0:\ntty:x:5:\nutmp:x:43:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\n";

/// The account files of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    passwd: String,
    group: String,
}

/// A user inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups that the image's own files give it.
    pub groups: Vec<u32>,
    /// Name, or the number in words.
    pub name: String,
    /// Home directory.
    pub home: String,
}

/// A user that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error("user {0:?} is not in the image's /etc/passwd; use a name from there, or a number from 0 to 65533")]
    UnknownUser(String),
    /// No such group.
    #[error("group {0:?} is not in the image's /etc/group; use a name from there, or a number from 0 to 65533")]
    UnknownGroup(String),
}

impl Accounts {
    /// root, nobody and the default user.
    pub fn standard() -> Self {
        Self::with_default_user(STANDARD_USERS.to_owned(), STANDARD_GROUPS.to_owned())
    }

    /// The image's own accounts, and the default user if it has none. Unreadable or oversized files count as absent.
    pub fn of_image(root: BorrowedFd<'_>) -> Self {
        let passwd = read_inside(root, "etc/passwd").unwrap_or_else(|| STANDARD_USERS.to_owned());
        let group = read_inside(root, "etc/group").unwrap_or_else(|| STANDARD_GROUPS.to_owned());
        Self::with_default_user(passwd, group)
    }

    /// The same of an image in layers.
    pub fn of_layers(layers: &Lowers) -> Self {
        let read = |path: &str| match layers.look(Path::new(path)) {
            Ok(Found::File(_, fd)) => text_of(fd.into()),
            _ => None,
        };
        let passwd = read("etc/passwd").unwrap_or_else(|| STANDARD_USERS.to_owned());
        let group = read("etc/group").unwrap_or_else(|| STANDARD_GROUPS.to_owned());
        Self::with_default_user(passwd, group)
    }

    fn with_default_user(mut passwd: String, mut group: String) -> Self {
        for file in [&mut passwd, &mut group] {
            if !file.is_empty() && !file.ends_with('\n') {
                file.push('\n');
            }
        }
        if by_name(&passwd, DEFAULT_NAME).is_none() && by_id(&passwd, DEFAULT_ID).is_none() {
            let _ = writeln!(passwd, "{DEFAULT_NAME}:x:{DEFAULT_ID}:{DEFAULT_ID}:agent:/home/{DEFAULT_NAME}:/bin/sh");
        }
        if by_name(&group, DEFAULT_NAME).is_none() && by_id(&group, DEFAULT_ID).is_none() {
            let _ = writeln!(group, "{DEFAULT_NAME}:x:{DEFAULT_ID}:");
        }
        Self { passwd, group }
    }

    /// The text of `/etc/passwd`.
    pub fn passwd(&self) -> &str {
        &self.passwd
    }

    /// The text of `/etc/group`.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// `NAME[:GROUP]` or `UID[:GID]`; None is the default user. Never falls back to uid 0.
    pub fn resolve(&self, text: Option<&str>) -> Result<User, UserError> {
        let Some(text) = text else {
            return self.user(DEFAULT_NAME).or_else(|_| self.user(&DEFAULT_ID.to_string()));
        };
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let mut found = self.user(user)?;
        if let Some(group) = group {
            found.gid = self.group_id(group)?;
            found.groups.clear();
        }
        Ok(found)
    }

    fn user(&self, text: &str) -> Result<User, UserError> {
        let entry = match id_of(text) {
            Some(uid) => by_id(&self.passwd, uid),
            None => by_name(&self.passwd, text),
        };
        let unknown = || UserError::UnknownUser(text.to_owned());
        if let Some(fields) = entry {
            let uid = fields.get(2).and_then(|f| id_of(f)).ok_or_else(unknown)?;
            let gid = fields.get(3).and_then(|f| id_of(f)).ok_or_else(unknown)?;
            let home = fields.get(5).filter(|home| home.starts_with('/')).map_or("/", |home| home);
            let name = fields[0].to_owned();
            return Ok(User { uid, gid, groups: self.groups_of(&name, gid), name, home: home.to_owned() });
        }
        let uid = id_of(text).ok_or_else(unknown)?;
        Ok(User { uid, gid: uid, groups: Vec::new(), name: text.to_owned(), home: "/".to_owned() })
    }

    fn group_id(&self, text: &str) -> Result<u32, UserError> {
        let known = by_name(&self.group, text).and_then(|fields| fields.get(2).and_then(|f| id_of(f)));
        known.or_else(|| id_of(text)).ok_or_else(|| UserError::UnknownGroup(text.to_owned()))
    }

    fn groups_of(&self, name: &str, own: u32) -> Vec<u32> {
        let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|entry| entry == name));
        let ids = entries(&self.group).filter(member).filter_map(|fields| fields.get(2).and_then(|f| id_of(f)));
        ids.filter(|gid| *gid != own).take(64).collect()
    }
}

fn entries(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3)
}

fn by_name<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    entries(file).find(|fields| fields[0] == name)
}

fn by_id(file: &str, id: u32) -> Option<Vec<&str>> {
    entries(file).find(|fields| id_of(fields[2]) == Some(id))
}

fn id_of(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= HIGHEST_ID)
}

/// A regular file of the image, found without leaving it; None if it is absent, too large, or no file.
fn read_inside(root: BorrowedFd<'_>, path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).ok()?;
    text_of(fd.into())
}

fn text_of(file: std::fs::File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_user_is_not_root() {
        let user = Accounts::standard().resolve(None).expect("a default user");
        assert_eq!((user.uid, user.gid, user.name.as_str(), user.home.as_str()), (10001, 10001, "agent", "/home/agent"));
    }

    #[test]
    fn names_and_numbers() {
        let accounts = Accounts::with_default_user("www:x:33:34::/var/www:/bin/sh".into(), "www:x:34:\nextra:x:50:www\n".into());
        let www = accounts.resolve(Some("www")).expect("by name");
        assert_eq!((www.uid, www.gid, www.groups.as_slice()), (33, 34, &[50][..]));
        assert_eq!(accounts.resolve(Some("33")).expect("by number").name, "www");
        assert_eq!(accounts.resolve(Some("33:0")).expect("with group").gid, 0);
        assert_eq!(accounts.resolve(Some("4242")).expect("unlisted number").gid, 4242);
    }

    #[test]
    fn odd_users_are_refused_and_never_become_root() {
        let odd = ["", "-1", "+0", "4294967296", "4294967295", "65534", "65535", " 0", "0x0", "nosuch", "nosuch:0", "agent:nosuch", ":0"];
        for text in odd {
            assert!(Accounts::standard().resolve(Some(text)).is_err(), "{text:?}");
        }
        let hostile = Accounts::with_default_user("evil:x:-1:0::/:\nbig:x:4294967296:0::/:\nshort:x\n".into(), String::new());
        for name in ["evil", "big", "short"] {
            assert!(hostile.resolve(Some(name)).is_err(), "{name}");
        }
    }
}
