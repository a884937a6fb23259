//! The crash matrix at length.

use crate::packages;
use crate::shell::{self, Step, command, target};

/// Runs of each of the five families, where nothing is said: ten times as many as CI has.
const RUNS: &str = "400";

/// Runs it; how many runs a family has, and the first seed, may be said.
pub fn run(words: &[String]) -> Step {
    let runs = words.first().map_or(RUNS, String::as_str);
    let seed = words.get(1).map_or("0", String::as_str);
    packages::for_tests()?;
    shell::run(&["cargo", "build", "--release", "--package", "cofferdam-cli", "--target", &target()])?;
    eprintln!("+ the crash matrix, five families of {runs} runs from seed {seed} on");
    let mut tests = command(&["cargo", "test", "--package", "cofferdam-tests", "--", "crash_matrix", "--test-threads", "2"]);
    let status = tests.env("COFFERDAM_CRASH_RUNS", runs).env("COFFERDAM_CRASH_SEED", seed).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("it ended with {status}")) }
}
