//! Roman numerals, 1 to 3999.

/// A number as a Roman numeral.
pub fn to_roman(mut number: u32) -> Option<String> {
    let mut text = String::new();
    for (value, letter) in [(1000, 'M'), (500, 'D'), (100, 'C'), (50, 'L'), (10, 'X'), (5, 'V'), (1, 'I')] {
        while number >= value {
            text.push(letter);
            number -= value;
        }
    }
    Some(text)
}

/// A Roman numeral as a number.
pub fn from_roman(text: &str) -> Option<u32> {
    let mut total = 0;
    for letter in text.chars() {
        total += match letter {
            'M' => 1000,
            'D' => 500,
            'C' => 100,
            'L' => 50,
            'X' => 10,
            'V' => 5,
            'I' => 1,
            _ => return None,
        };
    }
    Some(total)
}
