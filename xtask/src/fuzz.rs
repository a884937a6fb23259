//! The parsers that meet a sandbox's bytes first, fuzzed: `fuzz/gate`, with libFuzzer, on the stable compiler.

use crate::shell::{Step, command};
use std::path::Path;
use std::process::{Child, Stdio};

const DIRECTORY: &str = "fuzz/gate";
const TARGETS: &[&str] = &["policy", "dns", "hello", "requests"];
/// So long each, where nothing else is said.
const SECONDS: u32 = 60;
/// As many as most machines have processors for.
const TOGETHER: usize = 2;
/// What makes a program tell the fuzzer where it has been: cargo-fuzz's flags, without a sanitizer, which only a nightly compiler has. There is no
/// `unsafe` in what is fuzzed.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1";

/// The command: `fuzz [SECONDS]`.
pub fn run(words: &[String]) -> Step {
    let seconds = match words.first() {
        Some(word) => word.parse().map_err(|_| format!("{word}: a number of seconds is wanted"))?,
        None => SECONDS,
    };
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = command(&["cargo", "build", "--release", "--target", &target, "--manifest-path", "fuzz/gate/Cargo.toml"]);
    eprintln!("+ cargo build in {DIRECTORY}");
    let built = build.env("RUSTFLAGS", FLAGS).status().map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Err(format!("cargo build in {DIRECTORY} ended with {built}"));
    }
    for some in TARGETS.chunks(TOGETHER) {
        let started: Result<Vec<_>, String> = some.iter().map(|name| start(name, &target, seconds)).collect();
        for (name, child) in started? {
            finish(name, child)?;
        }
    }
    Ok(())
}

fn start<'a>(name: &'a str, target: &str, seconds: u32) -> Result<(&'a str, Child), String> {
    let corpus = Path::new(DIRECTORY).join("corpus").join(name);
    let artifacts = Path::new(DIRECTORY).join("artifacts").join(name);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let program = Path::new(DIRECTORY).join("target").join(target).join("release").join(name);
    eprintln!("+ fuzz {name} for {seconds} s");
    let child = std::process::Command::new(&program)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-max_len=24576", "-timeout=10", "-print_final_stats=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    Ok((name, child))
}

/// How many inputs were tried, or what was found.
fn finish(name: &str, child: Child) -> Step {
    const LAST_LINES: usize = 40;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().collect();
        return Err(format!("fuzz {name} found something:\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")));
    }
    let tried = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).map_or("?", str::trim);
    eprintln!("fuzz {name}: {tried} inputs");
    Ok(())
}
