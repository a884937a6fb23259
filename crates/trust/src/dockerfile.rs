//! Dockerfiles: text to instructions. Nothing here runs or reads anything.
//!
//! Grammar: the Dockerfile reference (docs.docker.com/reference/dockerfile), syntax 1. What this release does not build is refused
//! by name, with its line.

mod expand;
mod instruction;
mod lines;
mod mounts;

pub use expand::{Variables, expand, words};
pub use instruction::{Copy, Form, From, Heredoc, Instruction, Run, Source};
pub use mounts::{MountKind, RunMount};

/// A parsed Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// ARGs before the first FROM, with their defaults.
    pub arguments: Vec<(String, Option<String>)>,
    /// Its stages.
    pub stages: Vec<Stage>,
}

/// From one FROM to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// What it begins with.
    pub from: From,
    /// The line of its FROM.
    pub line: usize,
    /// What it does, each with its line and its text.
    pub steps: Vec<Step>,
}

/// An instruction in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line, from 1.
    pub line: usize,
    /// As it was written, continued lines joined.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// A Dockerfile that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {why}")]
pub struct DockerfileError {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

const LARGEST: usize = 1 << 20;
const MOST_STEPS: usize = 1000;

impl Dockerfile {
    /// Parses one. `file` stands in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DockerfileError> {
        let wrong = |line: usize, why: String| DockerfileError { file: file.to_owned(), line, why };
        if text.len() > LARGEST {
            return Err(wrong(1, format!("it is larger than {LARGEST} bytes")));
        }
        let mut parsed = Self::default();
        let logical = lines::logical(text).map_err(|(line, why)| wrong(line, why))?;
        if logical.len() > MOST_STEPS {
            return Err(wrong(1, format!("it has more than {MOST_STEPS} instructions")));
        }
        for line in logical {
            let number = line.number;
            let instruction = instruction::parse(&line).map_err(|why| wrong(number, why))?;
            match (instruction, parsed.stages.last_mut()) {
                (Instruction::From(from), _) => {
                    let name = from.name.clone();
                    if name.is_some() && parsed.stages.iter().any(|stage| stage.name == name) {
                        return Err(wrong(number, format!("there are two stages called {}", name.unwrap_or_default())));
                    }
                    parsed.stages.push(Stage { name, from, line: number, steps: Vec::new() });
                }
                (Instruction::Arg(arguments), None) => parsed.arguments.extend(arguments),
                (_, None) => return Err(wrong(number, "FROM comes first (only ARG may stand before it)".into())),
                (instruction, Some(stage)) => stage.steps.push(Step { line: number, text: line.shown(), instruction }),
            }
        }
        if parsed.stages.is_empty() {
            return Err(wrong(1, "it has no FROM".into()));
        }
        Ok(parsed)
    }

    /// A stage by name or number, among the first `before`.
    pub fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let among = &self.stages[..before.min(self.stages.len())];
        let named = among.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
        named.or_else(|| name.parse().ok().filter(|number| *number < among.len()))
    }
}

#[cfg(test)]
mod tests;
