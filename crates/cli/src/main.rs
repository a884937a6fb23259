//! The `cofferdam` command.
//!
//! Raw arguments become typed ones in [`args`]; a verb is a file under [`commands`]; everything printed goes through
//! [`output`]; errors become exit statuses in [`exit`]. Start reading at [`commands::run`].
#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod context;
mod debian;
mod definitions;
mod engines;
mod exit;
mod host;
mod images;
mod outer;
mod output;
mod registries;
mod repository;
mod terminal;
mod toolchain;

use cofferdam_engine_native::Ahead;
use cofferdam_gate::wire::Reach;
use std::ffi::OsString;
use std::process::ExitCode;

/// The C library's allocator gives small pieces back to the kernel at once, which interrupts the other CPUs each time.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|verb| verb == "probe") {
        return commands::probe::run(&arguments[2..]);
    }
    let begin = || if makes_sandbox(&arguments) { Ahead::begin(probable_reach(&arguments)) } else { None };
    // An ordinary user's process has first to be where it may.
    let root = cofferdam_sys::outer::is_host_root();
    let ahead = if root { begin() } else { None };
    match args::Cli::from_words(&arguments) {
        Ok(cli) => {
            let form = cli.global.output;
            let done = outer::enter(&cli.verb).and_then(|()| commands::dispatch(cli, if root { ahead } else { begin() }));
            done.unwrap_or_else(|failure| failure.report(form))
        }
        Err(error) => exit::usage(&error),
    }
}

/// Whether this command will want a sandbox, as far as can be seen before its arguments are parsed.
fn makes_sandbox(arguments: &[OsString]) -> bool {
    let by_daemon = |pair: &[OsString]| pair[0] == "--engine" && pair[1] == "docker";
    if arguments.windows(2).any(by_daemon) || arguments.iter().any(|word| word == "--engine=docker") {
        return false;
    }
    let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let mut value = false;
    let verb = words.find(|word| {
        let is_option = word.starts_with('-');
        let is_verb = !is_option && !value;
        value = matches!(*word, "-o" | "--output" | "--data-dir");
        is_verb
    });
    match verb {
        Some("monitor") => true,
        Some("run") => {
            !words.take_while(|word| word.starts_with('-') && *word != "--").any(|word| matches!(word, "-d" | "--detach" | "--owner"))
        }
        _ => false,
    }
}

/// Where its network will lead, as far as can be seen. A wrong guess costs a network namespace that nobody uses.
fn probable_reach(arguments: &[OsString]) -> Reach {
    let words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut reach = Reach::Nothing;
    for word in words {
        match word {
            "--learn" | "full_web" | "--network=full_web" => return Reach::OpenGate,
            "--allow" | "--policy" | "limited_web" | "package_only" => reach = Reach::Gate,
            _ if word.starts_with("--allow=") || word.starts_with("--policy=") || word.starts_with("--network=") => reach = Reach::Gate,
            _ => {}
        }
    }
    reach
}
