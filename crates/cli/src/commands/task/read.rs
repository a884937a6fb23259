//! Task files and Harbor directories on this host.

use crate::exit::{FAILED, Failure};
use cofferdam_model::Task;
use cofferdam_model::task::HarborFiles;
use std::path::{Path, PathBuf};

/// What a directory with a task holds: our own form first.
pub const DEFINITIONS: [&str; 2] = ["task.yaml", "task.toml"];
const LARGEST_FILE: u64 = 4 << 20;

/// The file that defines the task of a directory, if one does.
pub fn definition(directory: &Path) -> Option<PathBuf> {
    DEFINITIONS.iter().map(|name| directory.join(name)).find(|path| path.is_file())
}

/// A task's file, or the one in a directory.
pub fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { definition(path).unwrap_or_else(|| path.join(DEFINITIONS[0])) } else { path.to_owned() }
}

/// A task, from its file or the one in a directory; with the directory that it stands in.
pub fn read(path: &Path) -> Result<(Task, PathBuf), Failure> {
    let file = file_of(path);
    let shown = file.display().to_string();
    let wrong = |why: String| Failure::new(FAILED, "task", why);
    let text = text_of(&file)?;
    let base = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let base = std::path::absolute(base)?;
    let task = if file.extension().is_some_and(|extension| extension == "toml") {
        Task::from_harbor(&shown, &text, &harbor_files(&base)?).map_err(|error| wrong(error.to_string()))?
    } else {
        Task::parse(&shown, &text).map_err(|error| wrong(error.to_string()))?
    };
    for (field, named) in [("workspace.src", &task.workspace.src), ("workspace.tests", &task.workspace.tests), ("policy", &task.policy)] {
        if let Some(named) = named
            && !base.join(named).exists()
        {
            return Err(wrong(format!("{shown}: {field} {} is not there", named.display())));
        }
    }
    Ok((task, base))
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let wrong = |why: String| Failure::new(FAILED, "task", format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > LARGEST_FILE {
        return Err(wrong(format!("it has {length} bytes, {LARGEST_FILE} are the most")));
    }
    std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))
}

fn harbor_files(base: &Path) -> Result<HarborFiles, Failure> {
    let is_file = |name: &str| base.join(name).is_file();
    let first_line = |name: &str| {
        let text = std::fs::read(base.join(name)).ok()?;
        Some(String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default()).trim_end().to_owned())
    };
    let compose = ["docker-compose.yaml", "docker-compose.yml"];
    Ok(HarborFiles {
        directory: base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        instruction: text_of(&base.join("instruction.md"))?,
        dockerfile: is_file("environment/Dockerfile"),
        compose: compose.iter().any(|name| is_file(&format!("environment/{name}")) || is_file(&format!("tests/{name}"))),
        tests_dockerfile: is_file("tests/Dockerfile"),
        test_script: first_line("tests/test.sh"),
        solve_script: first_line("solution/solve.sh"),
        trajectory: is_file("trajectory.json"),
    })
}
