//! Roman numerals, 1 to 3999.

const PARTS: [(u32, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

/// A number as a Roman numeral.
pub fn to_roman(mut number: u32) -> Option<String> {
    if !(1..4000).contains(&number) {
        return None;
    }
    let mut text = String::new();
    for (value, part) in PARTS {
        while number >= value {
            text.push_str(part);
            number -= value;
        }
    }
    Some(text)
}

/// A Roman numeral as a number: the one whose numeral it is.
pub fn from_roman(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut total = 0;
    for (value, part) in PARTS {
        while let Some(shorter) = rest.strip_prefix(part) {
            rest = shorter;
            total += value;
        }
    }
    (rest.is_empty() && to_roman(total).as_deref() == Some(text)).then_some(total)
}
