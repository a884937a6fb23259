//! ClientHello: a verdict on a beginning is the verdict on everything that begins so.
#![no_main]

use cofferdam_gate::hello::{Hello, look};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = look(data);
    let mut cut = 0;
    while cut < data.len() {
        match look(&data[..cut]) {
            Hello::More => {}
            decided => {
                assert_eq!(decided, whole, "at {cut} of {}", data.len());
                break;
            }
        }
        // Every cut near the beginning, fewer after that: each look reads all that is there.
        cut += 1 + cut / 16;
    }
});
