//! Toolchains of this host, found from PATH and what the tools say of themselves.

use crate::exit::{FAILED, Failure};
use cofferdam_trust::Toolchain;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A toolchain by name (rust, node, python, go) or directory.
pub fn find(name: &str) -> Result<(Toolchain, Vec<(String, String)>), Failure> {
    let home = crate::host::home();
    let (trees, programs, environment) = match name {
        "rust" => {
            let root = ask("rustc", &["--print", "sysroot"])?;
            (vec![root.clone()], vec![root.join("bin")], Vec::new())
        }
        "go" => {
            let root = ask("go", &["env", "GOROOT"])?;
            (vec![root.clone()], vec![root.join("bin")], vec![("GOROOT".to_owned(), root.display().to_string())])
        }
        "node" => {
            let program = ask("node", &["-p", "process.execPath"])?;
            let root = prefix_of(&program);
            (vec![root.clone()], vec![root.join("bin")], Vec::new())
        }
        "python" => {
            let root = ask("python3", &["-c", "import sys; print(sys.base_prefix)"])?;
            (vec![root.clone()], vec![root.join("bin")], Vec::new())
        }
        path if path.contains('/') => {
            let root = PathBuf::from(path);
            (vec![root.clone()], vec![root.join("bin")], Vec::new())
        }
        other => {
            let message = format!("toolchain {other:?} is not known");
            return Err(Failure::usage(message).remedy("use rust, node, python, go, or a directory such as /opt/tool"));
        }
    };
    Ok((Toolchain::new(trees, programs, home.as_deref())?, environment))
}

/// `…/bin/node` → `…`.
fn prefix_of(program: &Path) -> PathBuf {
    program.parent().and_then(Path::parent).map_or_else(|| program.to_owned(), Path::to_owned)
}

fn ask(program: &str, arguments: &[&str]) -> Result<PathBuf, Failure> {
    let missing = |why: String| Failure::new(FAILED, "toolchain", format!("toolchain: {program} {}: {why}", arguments.join(" ")));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(|error| missing(error.to_string()).remedy(format!("install {program}, or put it on PATH")))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !text.starts_with('/') {
        return Err(missing(format!("{} and printed {text:?}", output.status)));
    }
    Ok(PathBuf::from(text))
}

/// Where the host's PATH has a program; for hints only.
pub fn on_host(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| path.is_file())
}
