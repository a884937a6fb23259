//! Quantities as users write them: `512MiB`, `1.5`, `5m`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Text that is no quantity of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct QuantityError {
    text: String,
    wanted: &'static str,
}

macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = QuantityError;

            fn try_from(text: String) -> Result<Self, QuantityError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// A number of bytes, above 0. Written with an IEC (`MiB`) or SI (`MB`) unit, or Docker's `m` and `g` (binary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(u64);

const BYTE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("B", 1),
    ("b", 1),
];

impl Bytes {
    /// So many mebibytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// From a number of bytes; None for 0.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Self(bytes)) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), wanted: "a size above 0, such as 512MiB or 2GiB" };
        let unit = BYTE_UNITS.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)));
        let lower = text.to_ascii_lowercase();
        let (number, factor) = match unit {
            Some(found) => found,
            None => match lower.strip_suffix(['g', 'm', 'k', 't']) {
                Some(_) => return lower.parse().map_err(|_: QuantityError| error()),
                None => (text, 1),
            },
        };
        let value = decimal(number.trim_end(), factor).ok_or_else(error)?;
        Self::new(value).ok_or_else(error)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &BYTE_UNITS[..4] {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

text_serde!(Bytes);

/// CPU time per time, in thousandths of one CPU, above 0. Written `1.5` or `1500m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "CpuText", into = "f64")]
pub struct Cpus(u32);

#[derive(Deserialize)]
#[serde(untagged)]
enum CpuText {
    Number(f64),
    Text(String),
}

impl TryFrom<CpuText> for Cpus {
    type Error = QuantityError;

    fn try_from(text: CpuText) -> Result<Self, QuantityError> {
        match text {
            CpuText::Number(number) => number.to_string().parse(),
            CpuText::Text(text) => text.parse(),
        }
    }
}

impl From<Cpus> for f64 {
    fn from(cpus: Cpus) -> Self {
        f64::from(cpus.0) / 1000.0
    }
}

impl Cpus {
    /// From thousandths; None for 0.
    pub const fn from_millis(millis: u32) -> Option<Self> {
        if millis == 0 { None } else { Some(Self(millis)) }
    }

    /// Thousandths of a CPU.
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), wanted: "a number of CPUs above 0, such as 0.5 or 2" };
        let (number, factor) = text.strip_suffix('m').map_or((text, 1000), |number| (number, 1));
        let millis = decimal(number, factor).and_then(|value| u32::try_from(value).ok()).ok_or_else(error)?;
        Self::from_millis(millis).ok_or_else(error)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(*self))
    }
}

/// A length of time, above 0, to the millisecond. Written `500ms`, `90s`, `5m`, `1h30m`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

const SPAN_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    /// So many seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count * 1000)
    }

    /// From milliseconds; None for 0.
    pub const fn from_millis(millis: u64) -> Option<Self> {
        if millis == 0 { None } else { Some(Self(millis)) }
    }

    /// Milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// As the standard library's type.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), wanted: "a time above 0, such as 30s, 5m or 1h30m" };
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let factor = SPAN_UNITS.iter().find(|(known, _)| *known == unit).ok_or_else(error)?.1;
            let part = decimal(number, factor).ok_or_else(error)?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = tail;
        }
        if total == 0 { Err(error()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, factor) in SPAN_UNITS {
            if rest >= *factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

text_serde!(Span);

/// `number × factor` for an unsigned decimal of at most 9 places, rounded down; None if it is none or too large.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10u128.pow(fraction.len() as u32);
    let value = whole.checked_mul(u128::from(factor))?.checked_add(part * u128::from(factor) / scale)?;
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        let cases = [
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("100", 100),
            ("2g", 2 << 30),
            ("512M", 512 << 20),
            ("1kB", 1000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<Bytes>().map(Bytes::get), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "-1", "MiB", "1XB", "1 2", "99999999999TiB", "0x10", "1e3", ".", "NaN"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes::mebibytes(1536).to_string(), "1536MiB");
    }

    #[test]
    fn cpus() {
        for (text, millis) in [("1", 1000), ("0.5", 500), (".25", 250), ("1500m", 1500)] {
            assert_eq!(text.parse::<Cpus>().map(Cpus::millis), Ok(millis), "{text}");
        }
        for bad in ["", "0", "0.0001", "-1", "two", "inf"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans() {
        for (text, millis) in [("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("1.5s", 1500), ("30d", 2_592_000_000)] {
            assert_eq!(text.parse::<Span>().map(Span::millis), Ok(millis), "{text}");
        }
        for bad in ["", "5", "m", "0s", "5 m", "5x", "-5s", "1h-5m"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span(5_400_250).to_string(), "1h30m250ms");
    }
}
