//! Reads the table.

/// A system call and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its number on x86-64, if it exists there.
    pub x86_64: Option<u32>,
    /// Its number on aarch64, if it exists there.
    pub aarch64: Option<u32>,
    /// What becomes of it.
    pub rule: Rule,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The kernel serves it.
    Allow,
    /// It fails with EPERM.
    Refuse,
    /// What the first alternative says whose conditions all hold, else EPERM.
    If(Vec<Alternative>),
}

/// What becomes of a call under conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The error that it fails with; None: the kernel serves it.
    pub errno: Option<u16>,
}

/// A test of the low 32 bits of one argument (0 to 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All bits of the mask are 0.
    Clear {
        /// Argument index.
        argument: u32,
        /// Bits that must be 0.
        mask: u32,
    },
    /// Equals one of the values.
    OneOf {
        /// Argument index.
        argument: u32,
        /// Values that pass.
        values: Vec<u32>,
    },
    /// The bits under the mask equal none of the values.
    NoneOf {
        /// Argument index.
        argument: u32,
        /// Bits looked at.
        mask: u32,
        /// Values that fail.
        values: Vec<u32>,
    },
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seccomp table, line {line}: cannot read {text:?}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// The part that cannot be read.
    pub text: String,
}

/// Reads a table: see the head of `data/seccomp.txt` for its form.
pub fn parse(text: &str) -> Result<Vec<Call>, ParseError> {
    let mut calls = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            calls.push(parse_line(line).ok_or_else(|| ParseError { line: index + 1, text: line.to_owned() })?);
        }
    }
    Ok(calls)
}

fn parse_line(line: &str) -> Option<Call> {
    let mut words = line.splitn(4, ' ');
    let name = words.next()?.to_owned();
    let x86_64 = optional_number(words.next()?)?;
    let aarch64 = optional_number(words.next()?)?;
    let rule = match words.next()? {
        "allow" => Rule::Allow,
        "eperm" => Rule::Refuse,
        other => Rule::If(other.split('|').map(alternative).collect::<Option<_>>()?),
    };
    Some(Call { name, x86_64, aarch64, rule })
}

fn alternative(text: &str) -> Option<Alternative> {
    let (conditions, errno) = match text.split_once(" errno ") {
        Some((conditions, errno)) => (conditions, Some(errno.trim().parse().ok()?)),
        None => (text, None),
    };
    Some(Alternative { conditions: conditions.split('&').map(condition).collect::<Option<_>>()?, errno })
}

fn condition(text: &str) -> Option<Condition> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["clear", argument, mask] => Some(Condition::Clear { argument: index(argument)?, mask: number(mask)? }),
        ["oneof", argument, list] => Some(Condition::OneOf { argument: index(argument)?, values: values(list)? }),
        ["noneof", argument, mask, list] => {
            Some(Condition::NoneOf { argument: index(argument)?, mask: number(mask)?, values: values(list)? })
        }
        _ => None,
    }
}

fn values(list: &str) -> Option<Vec<u32>> {
    list.split(',').map(number).collect()
}

fn index(text: &str) -> Option<u32> {
    number(text).filter(|index| *index < 6)
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn optional_number(text: &str) -> Option<Option<u32>> {
    if text == "-" { Some(None) } else { number(text).map(Some) }
}
