//! What holds on which engine, side by side: `docs/conformance.md`. Each suite tells what it found when `UPDATE_SNAPSHOTS` is set; the
//! last one writes the table.

use super::{Check, checks};
use std::fs;
use std::io;
use std::path::PathBuf;

/// A check that passed.
pub const HOLDS: &str = "holds";
const HEAD: &str = "# What holds on which engine\n\nThe conformance suite (`crates/engine/src/conformance`) on both engines, as root; made by\n\
                    `UPDATE_SNAPSHOTS=1 cargo nextest run -p cofferdam-engine-native suite::` and then the same with `-p cofferdam-engine-docker`.\n\
                    Attempts to get out one by one: [escape-tests.md](escape-tests.md).\n\n| check | promise | native | docker |\n|---|---|---|---|\n";

fn place(parts: &[&str]) -> PathBuf {
    parts.iter().fold(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")), |path, part| path.join(part))
}

/// Keeps what an engine's suite found of a check, if the table is to be made.
pub fn tell(engine: &str, check: &str, outcome: &str) -> io::Result<()> {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_none() {
        return Ok(());
    }
    let directory = place(&["target", "conformance", engine]);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(check), outcome)
}

/// Writes it of what was told, if it is to be made. Else looks whether it has every check.
pub fn write() -> io::Result<()> {
    let path = place(&["docs", "conformance.md"]);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_none() {
        let text = fs::read_to_string(path)?;
        let missing = checks().into_iter().find(|check| !text.contains(&format!("| {} | {} |", check.name, check.promise)));
        return missing.map_or(Ok(()), |check| Err(io::Error::other(format!("docs/conformance.md lacks {}", check.name))));
    }
    let told = |engine: &str, check: &str| {
        let path = place(&["target", "conformance", engine, check]);
        fs::read_to_string(&path).map_err(|error| io::Error::other(format!("{}: {error}: run that engine's suite first", path.display())))
    };
    let row = |check: Check| {
        Ok(format!("| {} | {} | {} | {} |\n", check.name, check.promise, told("native", check.name)?, told("docker", check.name)?))
    };
    let rows = checks().into_iter().map(row).collect::<io::Result<String>>()?;
    fs::write(path, HEAD.to_owned() + &rows)
}
