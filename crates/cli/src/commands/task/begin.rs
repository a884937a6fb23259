//! `task init`: a task to begin with.

use crate::args::Global;
use crate::exit::{FAILED, Failure};
use cofferdam_model::Name;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const TASK: &str = "version: 1
id: ID
instruction: |
  src/greet.sh greets the whole world. Make it greet the name in its first argument, and the world only without one.
difficulty: easy
workspace: {src: ./src, tests: ./tests}      # tests are never in the agent's sandbox
verify:
  command: [sh, tests/test.sh]               # in a fresh sandbox, on what the agent left
  fail_to_pass: [greets a name]              # each needs a line `PASSED name`
  pass_to_pass: [greets the world]
solution: {command: [cp, solution/greet.sh, src/greet.sh]}   # for: task run --agent oracle
artifacts: [\"output/**\", \"src/**\"]
";
const SOURCE: &str = "#!/bin/sh\necho \"Hello, world\"\n";
const SOLUTION: &str = "#!/bin/sh\necho \"Hello, ${1:-world}\"\n";
const TEST: &str = "#!/bin/sh
chmod 700 tests   # the candidate runs here too, and is not to read what is expected
check() {
    name=$1 expected=$2
    shift 2
    # The candidate runs as a program of its own and as another user: what it prints is compared, never believed.
    got=$(setpriv --reuid=10001 --regid=10001 --clear-groups sh src/greet.sh \"$@\")
    if [ \"$got\" = \"$expected\" ]; then echo \"PASSED $name\"; else echo \"FAILED $name\"; fi
}
check \"greets the world\" \"Hello, world\"
check \"greets a name\" \"Hello, Ada\" Ada
";

/// Writes it; a directory that holds something is left alone.
pub fn init(global: &Global, directory: &Path) -> Result<ExitCode, Failure> {
    let whole = std::path::absolute(directory)?;
    let name = whole.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let id: Name = name.parse().map_err(|error| Failure::usage(format!("{error}")).remedy("name a directory that may be a task's id"))?;
    if whole.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} is not empty", directory.display());
        return Err(Failure::new(FAILED, "io", message).remedy("name a new directory"));
    }
    let task = TASK.replace("ID", id.as_str());
    let files = [("task.yaml", task.as_str()), ("src/greet.sh", SOURCE), ("solution/greet.sh", SOLUTION), ("tests/test.sh", TEST)];
    for (path, text) in files {
        let path = whole.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
    }
    if !global.quiet {
        crate::output::note!("cofferdam: {} is there; see that it is sound: cofferdam task validate {}", id, directory.display());
    }
    Ok(ExitCode::SUCCESS)
}
