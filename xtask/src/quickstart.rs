//! What a newcomer runs first.

use crate::packages;
use crate::shell::{self, Step, binary, command, target};
use std::path::Path;

/// Builds, runs a real task and an attempt to reach the network, shows the record.
pub fn run_steps(program: &str, data: &Path) -> Step {
    let step = |title: &str, words: &[&str], expected: Option<i32>| -> Step {
        println!("\n== {title}\n$ cofferdam {}", words.join(" "));
        let status = command(&[program]).args(words).env("COFFERDAM_DATA_DIR", data).status().map_err(|e| e.to_string())?;
        if expected.is_none_or(|code| status.code() == Some(code)) {
            Ok(())
        } else {
            Err(format!("cofferdam {} ended with {status}", words.join(" ")))
        }
    };
    step("A command in a hardened container", &["run", "--", "sh", "-c", "id; echo written > file; ls -l file"], Some(0))?;
    step("It is alone: no network, and what it tried is told", &["run", "--", "python3", "-c", TRY_NETWORK], None)?;
    step(
        "A real task: the reference solution, verified in a fresh sandbox",
        &["task", "run", "examples/tasks/c-ring-buffer", "--agent", "oracle"],
        Some(0),
    )?;
    step("Doing nothing earns nothing", &["task", "run", "examples/tasks/c-ring-buffer", "--agent", "nop"], Some(1))?;
    step("What this host can enforce", &["doctor"], Some(0))?;
    step("The record", &["events"], Some(0))
}

const TRY_NETWORK: &str = "import urllib.request\ntry: urllib.request.urlopen('https://example.com', timeout=5)\nexcept OSError as error: print('refused:', error)";

/// The command.
pub fn run() -> Step {
    packages::for_build()?;
    shell::run(&["cargo", "build", "--release", "--package", "cofferdam-cli", "--target", &target()])?;
    let program = std::path::absolute(binary()).map_err(|e| e.to_string())?;
    let data = std::env::temp_dir().join(format!("cofferdam-quickstart-{}", std::process::id()));
    let result = run_steps(&program.display().to_string(), &data);
    let _ = std::fs::remove_dir_all(&data);
    result?;
    println!("\nThe program is {}. Copy it to /usr/local/bin and you are done.", binary().display());
    Ok(())
}
