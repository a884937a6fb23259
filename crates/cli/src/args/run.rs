//! Arguments of `run`.

use super::{TrustArgs, key_value};
use crate::engines::EngineName;
use clap::{Args, ValueEnum};
use cofferdam_model::{Bytes, Cpus, Difficulty, ImageRef, Name, NetworkLevel, Span};
use std::path::PathBuf;

const REACH: &str = "What it may reach: isolated, package_only, limited_web, full_web [default: isolated; limited_web with --allow]";

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What the sandbox starts from: host, an image such as python:3.12 (pulled if it is not here), or a directory that holds a root
    /// file system or an OCI image layout.
    #[arg(long, default_value = "host", value_name = "IMAGE")]
    pub image: ImageRef,
    /// Name: [a-z0-9-], 63 characters at most.
    #[arg(long)]
    pub name: Option<Name>,
    /// Limits of a difficulty: easy, medium, hard, expert, nightmare.
    #[arg(long)]
    pub difficulty: Option<Difficulty>,
    /// Memory, swap off, such as 512MiB [default: 80 % of the machine's].
    #[arg(short, long)]
    pub memory: Option<Bytes>,
    /// CPUs, such as 1.5 [default: all].
    #[arg(long)]
    pub cpus: Option<Cpus>,
    /// Bytes that may be written, such as 2GiB [default: half the memory].
    #[arg(long)]
    pub disk: Option<Bytes>,
    /// Processes and threads.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Option<u32>,
    /// Wall time, such as 5m [default: none].
    #[arg(long)]
    pub timeout: Option<Span>,
    #[arg(long, value_name = "LEVEL", help = REACH)]
    pub network: Option<NetworkLevel>,
    /// Let it reach this: HOST[:PORT], *.HOST[:PORT], ADDRESS/PREFIX:PORT, preset:NAME (port 443 if none is said).
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Never let it reach this, whatever allows it.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub deny: Vec<String>,
    /// Policy file; --allow and --deny add to it.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Let it reach every public destination, and print the policy that would have been enough.
    #[arg(long, conflicts_with_all = ["network", "allow", "policy"])]
    pub learn: bool,
    /// Publish a port: what connects to this port of the host's loopback reaches that port inside.
    #[arg(short, long, value_name = "[ADDRESS:]PORT:PORT")]
    pub publish: Vec<String>,
    /// Tools of the host that live outside /usr: rust, node, python, go, or a directory.
    #[arg(long = "toolchain", value_name = "NAME|DIR")]
    pub toolchains: Vec<String>,
    /// Label.
    #[arg(short, long = "label", value_name = "K=V", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Program instead of the image's own.
    #[arg(long, value_name = "CMD")]
    pub entrypoint: Option<String>,
    /// Fail unless these controls are enforced (see engine info).
    #[arg(long = "require", value_name = "CONTROL[,...]")]
    pub require: Vec<String>,
    /// Show a tree of the host inside, read-only unless :rw is said; or a named volume, writable unless :ro is said, made if there is none.
    #[arg(short = 'v', long = "volume", value_name = "PATH|NAME:DST[:ro|:rw]")]
    pub volumes: Vec<String>,
    /// Persistent memory of an agent: this named volume at /memory, which `MEMORY_DIR` says.
    #[arg(long, value_name = "NAME")]
    pub memory_volume: Option<Name>,
    /// Work on a copy of this repository (any directory): it is at /workspace/repo, what is written stays in the sandbox; see diff and apply.
    #[arg(long, value_name = "DIR", conflicts_with = "rm")]
    pub repo: Option<PathBuf>,
    /// Put what the sandbox changed of the repository on this new branch when it has ended; the working tree is not touched.
    #[arg(long, value_name = "NAME", requires = "repo", conflicts_with = "detach")]
    pub branch: Option<String>,
    /// Environment: K=V, or K to take the caller's.
    #[arg(short, long = "env", value_name = "K=V")]
    pub env: Vec<String>,
    /// File of K=V lines.
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside [default: the image's, else /workspace].
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User inside [default: the image's, else agent, 10001].
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Keep standard input open when detached.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal (detected in the foreground).
    #[arg(short, long)]
    pub tty: bool,
    /// Whose command it is: it runs in a sandbox that is kept for this owner's commands, made by the first one, and shared with no other owner.
    #[arg(long, value_name = "NAME")]
    pub owner: Option<Name>,
    /// How long that sandbox is kept: agent: until it is released, with a grace, or unused for a while; task: until it is released; call: not at
    /// all [default: agent with --owner].
    #[arg(long, value_enum, value_name = "STRATEGY", requires = "owner")]
    pub lifecycle: Option<Lifecycle>,
    /// Leave it running and print its id.
    #[arg(short, long)]
    pub detach: bool,
    /// Keep its bytes when it has ended, as for a named sandbox.
    #[arg(long, conflicts_with = "rm")]
    pub keep: bool,
    /// Remove it when it has ended, a named or detached one too.
    #[arg(long)]
    pub rm: bool,
    /// Taken for the sake of habit: every sandbox has a pid 1 that reaps and passes signals on.
    #[arg(long)]
    pub init: bool,
    /// What makes the sandbox: native (no daemon), docker (the daemon on this host), auto (native where it can).
    #[arg(long, value_enum, default_value_t)]
    pub engine: EngineName,
    /// Collect files of /workspace when it has ended, such as 'output/**'.
    #[arg(long = "artifact", value_name = "GLOB")]
    pub artifacts: Vec<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Command and arguments [default: the image's].
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// How long a sandbox is kept for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lifecycle {
    /// One command.
    Call,
    /// Until it is released.
    Task,
    /// Until it is released, with a grace, or unused for a while.
    Agent,
}

impl Lifecycle {
    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Task => "task",
            Self::Agent => "agent",
        }
    }
}

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Whose sandboxes.
    pub owner: Name,
    /// Without a grace.
    #[arg(long)]
    pub now: bool,
}

#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Id of the sandbox.
    #[arg(long)]
    pub id: String,
    #[command(flatten)]
    pub run: RunArgs,
}

impl RunArgs {
    /// How long its sandbox is kept.
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.unwrap_or(if self.owner.is_some() { Lifecycle::Agent } else { Lifecycle::Call })
    }

    /// Whether more users than one are likely inside: an image brings its own.
    pub fn has_users(&self) -> bool {
        self.user.is_some() || self.image != ImageRef::Host
    }
}
