//! Identifiers: 128 random bits, written as 32 hexadecimal digits, 12 of them shown.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Digits of an id that are shown to people.
pub const SHOWN_DIGITS: usize = 12;

/// Text that is no id, or no prefix of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: 32 hexadecimal digits are wanted")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u128);

        impl $name {
            /// From 128 random bits.
            pub const fn from_random(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// The digits that are shown to people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(SHOWN_DIGITS);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                match u128::from_str_radix(text, 16) {
                    Ok(value) if text.len() == 32 && lower => Ok(Self(value)),
                    _ => Err(IdError(text.to_owned())),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// One sandbox.
    SandboxId
);
id!(
    /// One installation: a data directory.
    InstallId
);
id!(
    /// One attempt at a task.
    AttemptId
);
id!(
    /// One run of a suite.
    SuiteId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let id = SandboxId::from_random([0xAB; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "abababababab");
        for bad in ["", "ab", "ABABABABABABABABABABABABABABABAB", "+bababababababababababababababab", "g".repeat(32).as_str()] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad}");
        }
    }
}
