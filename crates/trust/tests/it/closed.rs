//! Layers whose directories their owner may not write to, where no capability counts: as on NFS. Needs root.

use cofferdam_trust::removal::remove_tree;
use cofferdam_trust::unpack::{Budget, unpack};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tar::{Builder, EntryType, Header};

fn archive(entries: &[(&str, EntryType, u32)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, mode) in entries {
        let mut header = Header::new_gnu();
        header.set_path(name).expect("a name");
        header.set_entry_type(*kind);
        if *kind == EntryType::Symlink {
            header.set_link_name("elsewhere").expect("a name");
        }
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).expect("appended");
    }
    builder.into_inner().expect("an archive")
}

/// In a thread that may do no more than the owner of its files may.
fn as_owner(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).expect("read");
            sets.effective &= !(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).expect("given up");
            work();
        });
        thread.join().expect("no panic");
    });
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn they_are_unpacked_and_removed() {
    let (dir, file) = (EntryType::Directory, EntryType::Regular);
    let entries =
        [("usr/", dir, 0o555), ("usr/lib/", dir, 0o500), ("usr/lib/file", file, 0o444), ("usr/x", file, 0o600), ("closed/", dir, 0o000)];
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    fs::create_dir(&root).expect("made");
    as_owner(|| {
        let denied = fs::create_dir(root.join("a")).and_then(|()| fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o500)));
        denied.expect("made");
        assert!(fs::write(root.join("a/b"), "").is_err(), "else this shows nothing");
        remove_tree(&root.join("a")).expect("removed");
        let opened = fs::File::open(&root).expect("opened");
        unpack(&archive(&entries)[..], opened.as_fd(), None, Budget::default()).expect("unpacked");
        for (name, _, wanted) in entries {
            if name != "usr/lib/file" {
                assert_eq!(mode(&root.join(name)), wanted, "{name}");
            }
        }
        remove_tree(&root).expect("removed");
        assert!(!root.exists());
    });
}

/// What takes the place of such a directory does not get its permissions.
#[test]
fn what_takes_their_place_keeps_its_own() {
    let entries = [
        ("a/", EntryType::Directory, 0o500),
        ("a/b/", EntryType::Directory, 0o000),
        ("a", EntryType::Symlink, 0o777),
        ("c/", EntryType::Directory, 0o500),
        ("c", EntryType::Regular, 0o640),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    fs::create_dir(&root).expect("made");
    fs::create_dir(directory.path().join("elsewhere")).expect("made");
    symlink("../elsewhere", root.join("elsewhere")).expect("made");
    let before = mode(&directory.path().join("elsewhere"));
    let opened = fs::File::open(&root).expect("opened");
    unpack(&archive(&entries)[..], opened.as_fd(), None, Budget::default()).expect("unpacked");
    assert!(root.join("a").is_symlink());
    assert_eq!((mode(&root.join("c")), mode(&directory.path().join("elsewhere"))), (0o640, before));
}
