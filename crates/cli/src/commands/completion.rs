//! `cofferdam completion`.

use crate::args::Cli;
use crate::exit::Failure;
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints a script for this shell.
pub fn run(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "cofferdam", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
