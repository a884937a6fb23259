//! Debian packages and indices: whatever they hold, reading them ends with a value or an error.
#![no_main]

use cofferdam_trust::debian::{DebFile, Lock};
use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    file.write_all(data).expect("written");
    if let Ok(package) = DebFile::open(file.path()) {
        let _ = package.control();
        if let Ok(data) = package.data() {
            let _ = data.take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Lock::read("lock.json", text);
        let _ = cofferdam_model::image::Base::parse("base.yaml", text);
    }
});
