//! Running other programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a step says: nothing, or why it failed.
pub type Step = Result<(), String>;

/// The target of released binaries on this architecture.
pub fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The released binary, where cargo puts it.
pub fn binary() -> PathBuf {
    PathBuf::from("target").join(target()).join("release/cofferdam")
}

/// A command by its words.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a command in the foreground.
pub fn run(words: &[&str]) -> Step {
    eprintln!("+ {}", words.join(" "));
    let status = command(words).status().map_err(|error| format!("{}: {error}", words[0]))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", words.join(" "))) }
}

/// Whether a command succeeds, quietly.
pub fn succeeds(words: &[&str]) -> bool {
    command(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What a command prints.
pub fn output(words: &[&str]) -> Result<String, String> {
    let output = command(words).stderr(Stdio::inherit()).output().map_err(|error| format!("{}: {error}", words[0]))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{} ended with {}", words.join(" "), output.status))
    }
}
