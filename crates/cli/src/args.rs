//! What can be typed.

mod gate;
mod image;
mod run;
mod shown;
mod suite;
mod task;
mod volume;

pub use gate::GateArgs;
pub use image::{BuildArgs, ImageVerb, ImportArgs, LoadArgs, LockArgs, PullArgs, SbomFormat, TrustArgs, VerifyArgs};
pub use run::{Lifecycle, MonitorArgs, ReleaseArgs, RunArgs};
pub use shown::{ApplyArgs, LogsArgs, PsArgs, StatsArgs};
pub use suite::{Export, SuiteArg, SuiteRunArgs, SuiteVerb};
pub use task::{RenderFormat, TaskRenderArgs, TaskRunArgs, TaskVerb};
pub use volume::VolumeVerb;

use crate::engines::EngineName;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam_model::Span;
use std::ffi::OsString;
use std::path::PathBuf;

/// Run untrusted work in watertight containers.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, disable_help_subcommand = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// Print more: as --verbose, before the command (behind `run`, -v is a volume).
    #[arg(short = 'v', action = clap::ArgAction::Count, help_heading = "Global options")]
    pub more: u8,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The same with `run` as the only command. To build a parser of every command takes longer than many a sandbox's program.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", disable_help_subcommand = true)]
struct RunOnly {
    #[command(flatten)]
    global: Global,
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    more: u8,
    #[command(subcommand)]
    verb: RunVerb,
}

#[derive(Debug, Subcommand)]
enum RunVerb {
    Run(Box<RunArgs>),
}

impl Cli {
    /// Parses a command line. Errors and help come from the whole parser.
    pub fn from_words(words: &[OsString]) -> Result<Self, clap::Error> {
        let parsed = if words.iter().any(|word| word == "run") { RunOnly::try_parse_from(words).ok() } else { None };
        match parsed {
            Some(RunOnly { global, more, verb: RunVerb::Run(arguments) }) => Ok(Self { global, more, verb: Verb::Run(arguments) }),
            None => Self::try_parse_from(words),
        }
    }
}

/// Taken by every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Form of printed data.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Form::Table, help_heading = "Global options")]
    pub output: Form,
    /// Print less.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Print more.
    #[arg(long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// No colours (also: `NO_COLOR`).
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
    /// Answer yes to every question.
    #[arg(long, global = true, help_heading = "Global options")]
    pub yes: bool,
    /// Data directory [default: /var/lib/cofferdam for root, else ~/.local/share/cofferdam].
    #[arg(long, global = true, env = "COFFERDAM_DATA_DIR", hide_env = true, value_name = "DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a new sandbox.
    Run(Box<RunArgs>),
    /// Run one more command in a running sandbox.
    Exec(ExecArgs),
    /// Let go of the sandboxes that are kept for an owner (run --owner).
    Release(ReleaseArgs),
    /// Connect to the main process of a running sandbox (leave with Ctrl-P Ctrl-Q).
    Attach(SandboxArg),
    /// List sandboxes.
    Ps(PsArgs),
    /// Show everything recorded of sandboxes.
    Inspect(SandboxesArg),
    /// Show what running sandboxes use, again and again.
    Stats(StatsArgs),
    /// Show on the whole screen what runs, what it uses and what is decided; attach, stop, kill, pause.
    Top,
    /// Show the published ports of a sandbox.
    Ports(SandboxArg),
    /// Print what belongs into ~/.ssh/config, so that ssh, scp, rsync, git and editors reach sandboxes: ssh NAME.cofferdam.
    SshConfig {
        /// Sandboxes to list one by one, for programs that list hosts [default: those that run].
        sandboxes: Vec<String>,
    },
    /// Wait until sandboxes have ended and print their exit statuses.
    Wait(SandboxesArg),
    /// Print what a sandbox wrote.
    Logs(LogsArgs),
    /// Copy files: SANDBOX:PATH HOST-PATH, or HOST-PATH SANDBOX:PATH.
    Cp(CpArgs),
    /// Show what a sandbox changed: of the repository that it had a copy of (run --repo) as a patch, else of its image: A added, C changed,
    /// D deleted.
    Diff(SandboxArg),
    /// Bring back what a sandbox changed of a repository (run --repo): on a new branch, as a patch, or into the tree.
    Apply(ApplyArgs),
    /// Make an image of a sandbox as it is now.
    Snapshot {
        /// Sandbox: name, id or prefix of an id.
        sandbox: String,
        /// What the image is to be called.
        name: cofferdam_model::image::Reference,
    },
    /// Print the record: what happened, who did it, why.
    Events(EventsArgs),
    /// Stop sandboxes: TERM, then KILL after the grace period.
    Stop(StopArgs),
    /// Kill sandboxes, or send a signal to their main process.
    Kill(KillArgs),
    /// Stop every instruction of sandboxes.
    Pause(SandboxesArg),
    /// Let paused sandboxes go on.
    Resume(SandboxesArg),
    /// Remove ended sandboxes: their bytes and names; the record stays.
    Rm(RmArgs),
    /// Remove every ended sandbox and what dead supervisors left.
    Prune,
    /// Images: pull, verify, build, list.
    #[command(subcommand)]
    Image(ImageVerb),
    /// Named volumes: directories that outlive sandboxes.
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Tasks: run, validate, list.
    #[command(subcommand)]
    Task(TaskVerb),
    /// Suites: many attempts at many tasks.
    #[command(subcommand)]
    Suite(SuiteVerb),
    /// Engines that can run sandboxes here.
    #[command(subcommand)]
    Engine(EngineVerb),
    /// Check, by behaviour, what this host can enforce.
    Doctor(DoctorArgs),
    /// Try to break out of real sandboxes, with each control on and off.
    EscapeTest(EscapeArgs),
    /// Measure this host: start, exec, many at once.
    Bench(BenchArgs),
    /// Print a completion script.
    Completion {
        /// Shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
    /// Policies: what a sandbox may reach.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// The gate's process.
    #[command(hide = true)]
    Gate(GateArgs),
    /// What ssh runs to reach a sandbox.
    #[command(hide = true)]
    SshProxy(SandboxArg),
    /// The supervisor of a detached sandbox.
    #[command(hide = true)]
    Monitor(Box<MonitorArgs>),
}

impl Verb {
    /// Whether it does nothing but print.
    pub const fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::Ps(_)
                | Self::Stats(_)
                | Self::Ports(_)
                | Self::Inspect(_)
                | Self::Logs(_)
                | Self::Events(_)
                | Self::Policy(_)
                | Self::Engine(_)
                | Self::Completion { .. }
                | Self::Version
        )
    }
}

#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Check a policy file and show what it allows.
    Check {
        /// Policy file.
        file: PathBuf,
    },
    /// Say what would happen to a connection, and by which rule.
    Explain {
        /// Policy file, or a sandbox.
        policy: String,
        /// HOST or HOST:PORT.
        destination: String,
    },
    /// Let a running sandbox reach more, from now on.
    Allow {
        /// Sandbox: name, id or prefix of an id.
        sandbox: String,
        /// HOST[:PORT], *.HOST[:PORT], ADDRESS/PREFIX:PORT, preset:NAME.
        #[arg(required = true, value_name = "HOST[:PORT]")]
        entries: Vec<String>,
        /// Write it into the policy file that the sandbox was given, or the file of its task, too.
        #[arg(long)]
        always: bool,
    },
    /// Change the policy of a running sandbox in an editor (VISUAL, EDITOR, vi): connections that the new one does not allow are closed.
    Edit {
        /// Sandbox: name, id or prefix of an id.
        sandbox: String,
        /// Edit the policy file that the sandbox was given, or the file of its task, and keep it.
        #[arg(long)]
        always: bool,
    },
    /// Replace the policy of a running sandbox: connections that the new one does not allow are closed.
    Replace {
        /// Sandbox: name, id or prefix of an id.
        sandbox: String,
        /// Policy file.
        file: PathBuf,
    },
    /// Show what was allowed and denied.
    Log {
        /// Only of this sandbox.
        sandbox: Option<String>,
        /// Go on as it happens.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Give it a terminal (detected).
    #[arg(short, long)]
    pub tty: bool,
    /// Keep standard input open.
    #[arg(short, long)]
    pub interactive: bool,
    /// Environment: K=V, or K to take the caller's.
    #[arg(short, long = "env", value_name = "K=V")]
    pub env: Vec<String>,
    /// Working directory inside.
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User inside.
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// End it, with everything it started, after so long.
    #[arg(long)]
    pub timeout: Option<Span>,
    /// Sandbox: name, id or prefix of an id.
    pub sandbox: String,
    /// Command and arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SandboxArg {
    /// Sandbox: name, id or prefix of an id.
    pub sandbox: String,
}

#[derive(Debug, Args)]
pub struct SandboxesArg {
    /// Sandboxes: names, ids or prefixes of ids.
    #[arg(required = true, value_name = "SANDBOX")]
    pub sandboxes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CpArgs {
    /// From: SANDBOX:PATH or a path of the host.
    pub source: String,
    /// To: a path of the host or SANDBOX:PATH.
    pub target: String,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as more happens.
    #[arg(short, long)]
    pub follow: bool,
    /// Only of this sandbox.
    pub sandbox: Option<String>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// How long they may take to end by themselves.
    #[arg(short = 't', long, alias = "time", default_value = "10s")]
    pub grace: Span,
    #[command(flatten)]
    pub which: SandboxesArg,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal for the main process, by name or number, instead of killing everything.
    #[arg(short, long)]
    pub signal: Option<String>,
    #[command(flatten)]
    pub which: SandboxesArg,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Kill those that run.
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub which: SandboxesArg,
}

#[derive(Debug, Subcommand)]
pub enum EngineVerb {
    /// List engines and what they can enforce here.
    Ls,
    /// Show control by control what each engine enforces here.
    Info,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Mend what can be mended.
    #[arg(long)]
    pub fix: bool,
}

#[derive(Debug, Args)]
pub struct EscapeArgs {
    /// Leave out the runs that show each probe working with its control off.
    #[arg(long)]
    pub only_contained: bool,
    /// Where the sandboxes are made: native, docker, auto.
    #[arg(long, value_enum, default_value_t)]
    pub engine: EngineName,
    /// What they start from: any image with a shell and sleep.
    #[arg(long, default_value = "host")]
    pub image: cofferdam_model::ImageRef,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Sandboxes started one after the other.
    #[arg(long, default_value_t = 100)]
    pub starts: u32,
    /// Sandboxes running at once.
    #[arg(long, default_value_t = 100)]
    pub many: u32,
    /// How many of those are being started at a time.
    #[arg(long, default_value_t = 4)]
    pub together: usize,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, _)) if key.starts_with("cofferdam.") => Err("names that begin with cofferdam. are the product's own".into()),
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_dashes_may_be_left_out() {
        for line in [&["cofferdam", "run", "--", "ls", "-l"][..], &["cofferdam", "run", "ls", "-l"]] {
            let Ok(Cli { verb: Verb::Run(run), .. }) = Cli::try_parse_from(line) else { panic!("{line:?}") };
            assert_eq!(run.command, ["ls", "-l"]);
        }
    }
}
