//! Everything that CI runs.

use crate::fuzz;
use crate::packages;
use crate::shell::{self, Step, binary, command, output, succeeds, target};
use crate::tidy;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Runs it; ends with a line `N passed, N failed`.
pub fn run_all() -> Result<(u64, u64), String> {
    packages::for_tests()?;
    tidy::run()?;
    shell::run(&["cargo", "fmt", "--all", "--check"])?;
    // No package of its own: the build script of `sys` compiles it.
    shell::run(&["rustfmt", "--edition", "2024", "--check", "crates/sys/init/main.rs"])?;
    shell::run(&["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    shell::run(&["cargo", "build", "--release", "--package", "cofferdam-cli", "--target", &target()])?;
    cross_check()?;
    let size = output(&["sh", "-c", &format!("stat -c %s {}", binary().display())])?;
    eprintln!("{}: {} bytes", binary().display(), size.trim());
    fuzz::run(&[])?;
    tests()
}

/// The other architecture, the freestanding program included. Foreign code in C is compiled on the way and goes nowhere: a cross compiler
/// for another C library will do.
fn cross_check() -> Step {
    const TARGET: &str = "aarch64-unknown-linux-musl";
    packages::rust_target(TARGET)?;
    let mut check =
        command(&["cargo", "check", "--target", TARGET, "--package", "cofferdam-engine-native", "--package", "cofferdam-probe"]);
    if std::env::consts::ARCH != "aarch64" {
        check.env("CC_aarch64_unknown_linux_musl", "aarch64-linux-gnu-gcc").env("AR_aarch64_unknown_linux_musl", "aarch64-linux-gnu-ar");
    }
    eprintln!("+ cargo check --target {TARGET}");
    let status = check.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("cargo check --target {TARGET} ended with {status}")) }
}

/// The command.
pub fn run() -> Step {
    let (passed, failed) = run_all()?;
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { Ok(()) } else { Err(format!("{failed} tests failed")) }
}

/// Runs every test, with nextest where it is installed, and counts.
fn tests() -> Result<(u64, u64), String> {
    let words: &[&str] = if succeeds(&["cargo", "nextest", "--version"]) {
        &["cargo", "nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail", "--final-status-level", "fail"]
    } else {
        &["cargo", "test", "--workspace", "--no-fail-fast"]
    };
    eprintln!("+ {}", words.join(" "));
    let program = std::path::absolute(binary()).map_err(|e| e.to_string())?;
    let mut child = command(words)
        .env("COFFERDAM_BIN", program)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let (mut passed, mut failed) = (0, 0);
    let stderr = child.stderr.take().ok_or("no error output")?;
    for line in BufReader::new(stderr).lines() {
        let line = line.map_err(|e| e.to_string())?;
        eprintln!("{line}");
        if line.contains("Summary [") || line.starts_with("test result:") {
            passed += number_before(&line, " passed");
            failed += number_before(&line, " failed") + number_before(&line, " timed out");
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if !status.success() && failed == 0 {
        return Err(format!("the tests ended with {status}"));
    }
    Ok((passed, failed))
}

fn number_before(line: &str, word: &str) -> u64 {
    let Some(end) = line.find(word) else { return 0 };
    let digits: String = line[..end].chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn reads_both_runners() {
        let nextest = "     Summary [  36.492s] 65 tests run: 64 passed (1 slow), 1 failed, 0 skipped";
        assert_eq!((number_before(nextest, " passed"), number_before(nextest, " failed")), (64, 1));
        let cargo = "test result: ok. 12 passed; 0 failed; 0 ignored";
        assert_eq!((number_before(cargo, " passed"), number_before(cargo, " failed")), (12, 0));
    }
}
