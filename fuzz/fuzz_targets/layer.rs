//! Layers: whatever an archive holds, nothing appears beside its root.
#![no_main]

use cofferdam_trust::unpack::{Budget, unpack};
use libfuzzer_sys::fuzz_target;
use std::os::fd::AsFd;

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let root = directory.path().join("root");
    std::fs::create_dir(&root).expect("made");
    let opened = std::fs::File::open(&root).expect("open");
    let _ = unpack(data, opened.as_fd(), None, Budget { bytes: 1 << 20, entries: 200, ratio: 10 });
    assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 1);
});
