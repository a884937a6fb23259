//! A suite for other programs: lines of JSON, Parquet, Harbor's job directory.

mod columns;
mod harbor;

use super::report::cost;
use super::{Whole, find};
use crate::args::{Export, Global};
use crate::commands::task;
use crate::config;
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::task::{Artifact, FILES, manifest};
use cofferdam_model::Task;
use cofferdam_store::{AttemptRecord, ItemRecord, ItemState, SuiteRecord};
use cofferdam_trust::content::sha256;
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes of recorded steps that a row holds; what is more stays beside the artifacts.
const MOST_TRAJECTORY: u64 = 8 << 20;

/// One attempt with everything that is exported of it.
pub struct Row {
    /// What the suite asked for.
    pub item: ItemRecord,
    /// What came of it.
    pub attempt: AttemptRecord,
    /// The task as its file says now, if it can be read.
    pub task: Option<Task>,
    /// `train`, `validation` or `test`.
    pub split: &'static str,
    /// What it cost, if there are rates.
    pub cost: Option<f64>,
    /// What was kept.
    pub artifacts: Vec<Artifact>,
    /// Recorded steps, as the agent wrote them.
    pub trajectory: Option<String>,
    /// Where what was kept lies.
    pub directory: PathBuf,
}

/// Writes every attempt that was made.
pub fn run(global: Global, arguments: &Export) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = find(&mut store, arguments.suite.suite.as_deref())?;
    let whole = Whole::read(&mut store, record)?;
    let suite = whole.record.clone();
    let rows = rows(&context, whole, arguments.seed)?;
    match arguments.format.as_str() {
        "harbor" => {
            let target = directory(&arguments.to)?;
            harbor::write(&suite, &rows, &target)?;
        }
        "parquet" if arguments.to.is_dir() => {
            for split in SPLITS {
                let part: Vec<&Row> = rows.iter().filter(|row| row.split == split).collect();
                whole_file(&arguments.to.join(format!("{split}.parquet")), &columns::parquet(&suite, &part)?)?;
            }
        }
        "parquet" => whole_file(&arguments.to, &columns::parquet(&suite, &rows.iter().collect::<Vec<_>>())?)?,
        _ => {
            let mut lines = Vec::new();
            for row in &rows {
                serde_json::to_writer(&mut lines, &columns::json(&suite, row)).map_err(std::io::Error::from)?;
                lines.push(b'\n');
            }
            whole_file(&arguments.to, &lines)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn directory(to: &Path) -> Result<PathBuf, Failure> {
    if to == Path::new("-") {
        return Err(Failure::usage("--format harbor writes a directory: name it with --to"));
    }
    if to.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(FAILED, "io", format!("{} is not empty", to.display())).remedy("name a new directory"));
    }
    std::fs::create_dir_all(to)?;
    Ok(to.to_owned())
}

fn rows(context: &Context, whole: Whole, seed: u64) -> Result<Vec<Row>, Failure> {
    let costs = config::load()?.costs;
    let mut tasks: HashMap<PathBuf, Option<Task>> = HashMap::new();
    let mut rows = Vec::new();
    for (item, attempt) in whole.items {
        let Some(attempt) = attempt.filter(|_| item.state == ItemState::Done) else { continue };
        let read = || task::read(&item.item.path).ok().map(|(task, _)| task);
        let task = tasks.entry(item.item.path.clone()).or_insert_with(read).clone();
        let directory = context.data.artifacts().join(attempt.id.to_string());
        rows.push(Row {
            split: split(item.item.task.as_str(), seed),
            cost: cost(&costs, &attempt, task.as_ref()),
            artifacts: manifest(&directory.join(FILES)),
            trajectory: trajectory(&directory, &attempt),
            item,
            attempt,
            task,
            directory,
        });
    }
    Ok(rows)
}

/// Every recorded file, one after the other, up to a bound.
fn trajectory(directory: &Path, attempt: &AttemptRecord) -> Option<String> {
    let mut text = String::new();
    for path in &attempt.trajectories {
        let path = directory.join(path);
        let length = std::fs::metadata(&path).ok()?.len();
        if text.len() as u64 + length > MOST_TRAJECTORY {
            break;
        }
        text += &String::from_utf8_lossy(&std::fs::read(&path).ok()?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    (!text.is_empty()).then_some(text)
}

const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// A task is in one part whatever else the suite holds: all its attempts with it.
fn split(task: &str, seed: u64) -> &'static str {
    const PARTS: u8 = 10;
    let digest = sha256(format!("{seed} {task}").as_bytes());
    let draw = u8::from_str_radix(&digest.hex()[..2], 16).unwrap_or(0) % PARTS;
    match draw {
        0 => "test",
        1 => "validation",
        _ => "train",
    }
}

/// All of it, or nothing under this name.
fn whole_file(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if file == Path::new("-") {
        std::io::stdout().lock().write_all(bytes)?;
        return Ok(());
    }
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // For others to read, as far as the user's mask lets them.
    let mode = std::fs::Permissions::from_mode(0o666);
    let mut out = tempfile::Builder::new().prefix(".cofferdam-").permissions(mode).tempfile_in(parent)?;
    out.write_all(bytes)?;
    out.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// The agent's name, for other programs.
pub fn agent(suite: &SuiteRecord) -> &str {
    suite.agent_command.as_deref().map_or(suite.agent.as_str(), |_| "command")
}
