//! The `cofferdam` command.
//!
//! Raw arguments become typed ones in [`args`]; a verb is a file under [`commands`]; everything printed goes through
//! [`output`]; errors become exit statuses in [`exit`]. Start reading at [`commands::run`].
#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod exit;
mod host;
mod output;
mod terminal;
mod toolchain;

use clap::Parser;
use std::process::ExitCode;

/// The C library's allocator gives small pieces back to the kernel at once, which interrupts the other CPUs each time.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|verb| verb == "probe") {
        return commands::probe::run(&arguments[2..]);
    }
    match args::Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            let form = cli.global.output;
            commands::dispatch(cli).unwrap_or_else(|failure| failure.report(form))
        }
        Err(error) => exit::usage(&error),
    }
}
