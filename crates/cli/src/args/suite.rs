//! Arguments of `suite`.

use crate::engines::EngineName;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum SuiteVerb {
    /// Attempt every task of a directory or a suite file.
    Run(SuiteRunArgs),
    /// List suites.
    List,
    /// Show a suite, attempt by attempt.
    Show(SuiteArg),
    /// Begin nothing new of a suite; what runs ends.
    Cancel(SuiteArg),
    /// Sum a suite up.
    Report {
        #[command(flatten)]
        suite: SuiteArg,
        /// Write a page for a browser.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Write every attempt of a suite for other programs.
    Export(Export),
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub suite: SuiteArg,
    /// Form: jsonl (one JSON object a line), parquet (one file, or one for each part of the split if --to is a directory), harbor (a job
    /// directory as Harbor leaves it).
    #[arg(long, default_value = "jsonl", value_parser = ["jsonl", "parquet", "harbor"])]
    pub format: String,
    /// File or directory; - is standard output.
    #[arg(long, value_name = "PATH", default_value = "-")]
    pub to: PathBuf,
    /// Draws the split into train, validation and test: 80, 10 and 10 % of the tasks.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct SuiteArg {
    /// Suite: id or prefix of an id [default: the newest].
    pub suite: Option<String>,
}

#[derive(Debug, Args)]
pub struct SuiteRunArgs {
    /// Directory of tasks, or suite file.
    #[arg(required_unless_present = "resume")]
    pub source: Option<PathBuf>,
    /// Who attempts them: oracle (the reference solutions), nop (nothing), task (each task's own command) [default: task].
    #[arg(long)]
    pub agent: Option<String>,
    /// A command line to attempt them with, run by sh in /workspace.
    #[arg(long, value_name = "CMD", conflicts_with = "agent")]
    pub agent_cmd: Option<String>,
    /// Most attempts at a time [default: 10, or what the machine admits].
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// How often each task is attempted [default: 1].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub attempts: Option<u32>,
    /// Only tasks whose id is like this, such as 'fix-*'; may be given more than once.
    #[arg(long, value_name = "GLOB")]
    pub filter: Vec<String>,
    /// What makes the sandboxes: native, docker, auto [default: auto].
    #[arg(long, value_enum)]
    pub engine: Option<EngineName>,
    /// Go on with a suite that was stopped or lost its runner: its id, or the newest.
    #[arg(long, value_name = "SUITE", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["agent", "agent_cmd", "attempts", "filter", "engine"])]
    pub resume: Option<String>,
}
