//! Commands for those who work on Cofferdam: `cargo xtask quickstart | test | tidy | bench | crash | fuzz | images | dist`.

mod bench;
mod crash;
mod dist;
mod fuzz;
mod images;
mod packages;
mod quickstart;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "cargo xtask COMMAND

  quickstart   build, run the main job on a real example, show what was contained and what was blocked
  test         install what the tests need, then run everything that CI runs
  tidy         check layers, names and sizes
  bench        measure against other systems, in one run; writes docs/benchmarks.md
  crash        let a suite's runner, disk and power fail, ten times as often as CI does: crash [RUNS [SEED]]
  fuzz         the parsers that meet a sandbox's bytes first, a minute each: fuzz [SECONDS]
  images       build every definition in images/ twice, compare the results, and with umoci: images [NAME...]
  dist         build the static binary, twice, and check that both are the same";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let result = match command.as_str() {
        "quickstart" => quickstart::run(),
        "test" => test::run(),
        "tidy" => tidy::run(),
        "bench" => bench::run(),
        "fuzz" => fuzz::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        "crash" => crash::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        "images" => images::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        "dist" => dist::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {command}: {why}");
            ExitCode::FAILURE
        }
    }
}
