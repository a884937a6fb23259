//! Host names in one form: lower case, ASCII labels of letters, digits, `-` and `_`, no dot at the end.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A host name in canonical form: what DNS, TLS and HTTP carry is compared in this form only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Text that is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no host name: {why}{}", near.as_ref().map(|near| format!("; write {near:?}")).unwrap_or_default())]
pub struct NameError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
    /// The nearest valid form, if there is one.
    pub near: Option<String>,
}

fn refuse<T>(text: &str, why: &'static str, near: Option<String>) -> Result<T, NameError> {
    Err(NameError { text: text.to_owned(), why, near: near.filter(|near| near.parse::<HostPattern>().is_ok()) })
}

impl HostName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What arrives from a client in a query, a `ClientHello` or a `Host` header: as strict as in a file, but for case, which
    /// carries no meaning there, and one dot at the end, which only says that the name is complete.
    pub fn from_wire(text: &str) -> Result<Self, NameError> {
        let complete = text.strip_suffix('.').unwrap_or(text);
        complete.to_ascii_lowercase().parse()
    }

    /// Whether this name lies below that one: at least one label more.
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// The names above it, nearest first: `b.c`, `c` for `a.b.c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            rest = rest.split_once('.')?.1;
            Some(rest)
        })
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(near) = no_bare_name(text) {
            return refuse(text, "a name alone is wanted, without scheme, path, user or port", near);
        }
        if !text.is_ascii() {
            let near = idna::domain_to_ascii_strict(text).ok();
            return refuse(text, "international names are written in their ASCII form", near);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return refuse(text, "names are written in lower case", Some(text.to_ascii_lowercase()));
        }
        if let Some(stripped) = text.strip_suffix('.') {
            return refuse(text, "it ends in a dot", Some(stripped.to_owned()));
        }
        if text.is_empty() {
            return refuse(text, "it is empty", None);
        }
        if text.len() > LONGEST_NAME {
            return refuse(text, "it is longer than 253 bytes", None);
        }
        for label in text.split('.') {
            check_label(text, label)?;
        }
        // What ends in a number is an address to some programs and a name to others (WHATWG URL, "ends in a number").
        let last = text.rsplit('.').next().unwrap_or(text);
        let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if hex || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse(text, "it ends in a number: some programs take it for an address", None);
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_label(text: &str, label: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if label.is_empty() {
        return refuse(text, "it has an empty label (two dots, or a dot in front)", None);
    }
    if label.len() > LONGEST_LABEL {
        return refuse(text, "a label is longer than 63 bytes", None);
    }
    if !label.bytes().all(allowed) {
        return refuse(text, "only letters, digits, '-', '_' and dots may stand in it", None);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return refuse(text, "a label begins or ends with '-'", None);
    }
    Ok(())
}

/// If there is more than a name: what would be left of it as one.
fn no_bare_name(text: &str) -> Option<Option<String>> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit('@').next().unwrap_or(host);
    (host.len() != text.len()).then(|| Some(host.to_owned()))
}

impl TryFrom<String> for HostName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or every name below one (`*.example.com`: at least one label more).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This name.
    Exact(HostName),
    /// Every name below this one, and not this one.
    Below(HostName),
}

impl HostPattern {
    /// Whether it stands for this name.
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => name.is_below(parent),
        }
    }

    /// Whether everybody may register names right below it: `*.github.io` is everyone's.
    pub fn is_below_public_suffix(&self) -> bool {
        match self {
            Self::Exact(_) => false,
            Self::Below(parent) => psl::suffix_str(parent.as_str()).is_some_and(|suffix| suffix == parent.as_str()),
        }
    }
}

impl FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(parent) = text.strip_prefix("*.") {
            let parent: HostName = match parent.parse() {
                Ok(parent) => parent,
                Err(NameError { why, near, .. }) => return refuse(text, why, near.map(|near| format!("*.{near}"))),
            };
            if !parent.as_str().contains('.') {
                return refuse(text, "it stands for a whole top-level domain", None);
            }
            return Ok(Self::Below(parent));
        }
        if text == "*" {
            return refuse(text, "it stands for every name: that is network full_web", None);
        }
        if text.contains('*') {
            let near = text.rsplit('*').next().map(|rest| format!("*.{}", rest.trim_start_matches(['.', '-'])));
            return refuse(text, "'*' stands only alone and first, for whole labels", near);
        }
        text.parse().map(Self::Exact)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}
