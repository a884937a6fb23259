//! Requests of an HTTP connection: the same verdict however they are cut into pieces, and none for another host.
#![no_main]

use cofferdam_gate::head::{Head, look};
use cofferdam_gate::requests::Requests;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((pieces, data)) = data.split_first() else { return };
    let begin = || Requests::new("a.test".parse().expect("a name"), 80);
    let whole = begin().take(data).is_ok();
    let mut cut = begin();
    let size = usize::from(*pieces % 17) + 1;
    let by_pieces = data.chunks(size).try_for_each(|piece| cut.take(piece)).is_ok();
    assert_eq!(whole, by_pieces, "in pieces of {size}");
    if let Head::To(host, ..) = look(data)
        && whole
    {
        assert_eq!(host.to_string(), "a.test", "what is passed on is for the name that was allowed");
    }
});
