//! Arguments of commands that show sandboxes, and of those that bring something out of them.

use super::key_value;
use clap::Args;
use cofferdam_model::Span;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Ended ones too.
    #[arg(short, long)]
    pub all: bool,
    /// Only those with this label.
    #[arg(short, long = "label", value_name = "K=V", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Only those: name=TEXT (part of it), phase=PHASE, image=IMAGE, engine=ENGINE, network=LEVEL, label=K[=V], exited=CODE. All conditions hold.
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = key_value)]
    pub filters: Vec<(String, String)>,
    /// A line for each, with {field} replaced: any field of the JSON form, such as '{id} {limits.memory}'.
    #[arg(long, value_name = "TEXT", conflicts_with = "output")]
    pub format: Option<String>,
    /// Whole ids.
    #[arg(long)]
    pub no_trunc: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// On this new branch, as one commit [default: cofferdam/NAME]; neither index nor working tree is touched.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["patch", "tree"])]
    pub branch: Option<String>,
    /// The commit's message.
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["patch", "tree"])]
    pub message: Option<String>,
    /// As a patch in this file; - is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "tree")]
    pub patch: Option<PathBuf>,
    /// Into the working tree. If something there was changed meanwhile, nothing is written.
    #[arg(long)]
    pub tree: bool,
    /// Overwrite what was changed meanwhile.
    #[arg(long, requires = "tree")]
    pub force: bool,
    /// Sandbox: name, id or prefix of an id.
    pub sandbox: String,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// One look, then end.
    #[arg(long)]
    pub no_stream: bool,
    /// Time between looks.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: Span,
    /// Sandboxes: name, id or prefix of an id [default: all that run].
    pub sandboxes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on as more is written.
    #[arg(short, long)]
    pub follow: bool,
    /// Say when each piece was written.
    #[arg(short, long)]
    pub timestamps: bool,
    /// Sandbox: name, id or prefix of an id.
    pub sandbox: String,
}
