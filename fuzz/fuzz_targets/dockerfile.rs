//! Dockerfiles and the variables in them.
#![no_main]

use cofferdam_trust::dockerfile::{Dockerfile, Variables, expand, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = Dockerfile::parse("Dockerfile", text) {
        let lines = text.lines().count();
        assert!(!file.stages.is_empty());
        assert!(file.stages.iter().flat_map(|stage| &stage.steps).all(|step| step.line <= lines));
    }
    let variables: Variables = [("A".to_owned(), "a b".to_owned())].into();
    let _ = expand(text, &variables, '\\');
    let _ = words(text, &variables, '`');
});
