#[path = "/workspace/src/roman.rs"]
mod roman;

use roman::{from_roman, to_roman};

#[test]
fn examples() {
    for (number, text) in [(1, "I"), (4, "IV"), (9, "IX"), (14, "XIV"), (40, "XL"), (90, "XC"), (400, "CD"), (1994, "MCMXCIV"), (3999, "MMMCMXCIX")] {
        assert_eq!(to_roman(number).as_deref(), Some(text));
        assert_eq!(from_roman(text), Some(number));
    }
}

#[test]
fn round_trip() {
    for number in 1..4000 {
        assert_eq!(from_roman(&to_roman(number).expect("in range")), Some(number));
    }
}

#[test]
fn nonsense() {
    assert_eq!(to_roman(0), None);
    assert_eq!(to_roman(4000), None);
    for text in ["", "IIII", "VX", "IC", "MMMM", "ABC", "iv", "VV", "IXI", "XCX"] {
        assert_eq!(from_roman(text), None, "{text}");
    }
}
