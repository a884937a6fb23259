//! Image names, and the patterns that are matched against paths: what is read prints as what it is, and reads as the same again.
#![no_main]

use cofferdam_model::ImageRef;
use cofferdam_model::image::Reference;
use cofferdam_trust::pattern::{Ignore, name_matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let printed = reference.to_string();
        assert_eq!(printed.parse::<Reference>().as_ref(), Ok(&reference), "{printed}");
        assert!(!reference.repository().contains("..") && !reference.repository().starts_with('/'), "{printed}");
    }
    let _ = text.parse::<ImageRef>();
    let (pattern, name) = text.split_once('\n').unwrap_or((text, ""));
    name_matches(pattern, name);
    Ignore::parse(pattern).excludes(name);
});
