//! The habits that a machine can check: who may import whom, sizes, names, where `unsafe` is.

use crate::shell::{Step, output};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What each crate of ours may import of ours.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &[]),
    ("policy", &["model"]),
    ("probe", &["model", "sys"]),
    ("trust", &["model", "policy", "sys"]),
    ("store", &["model"]),
    ("gate", &["model", "policy", "sys"]),
    ("engine", &["model", "policy", "sys", "trust"]),
    ("ssh", &["model", "sys", "trust", "engine"]),
    ("engine-host", &["model", "policy", "sys", "trust", "engine", "gate"]),
    ("engine-native", &["model", "policy", "sys", "trust", "engine", "engine-host", "gate"]),
    ("engine-docker", &["model", "policy", "sys", "trust", "engine", "engine-host", "gate"]),
    ("lifecycle", &["model", "policy", "sys", "trust", "store", "gate", "engine", "ssh"]),
    (
        "cli",
        &[
            "model",
            "policy",
            "sys",
            "probe",
            "trust",
            "store",
            "gate",
            "engine",
            "engine-host",
            "engine-native",
            "engine-docker",
            "lifecycle",
            "ssh",
        ],
    ),
    ("tests", &[]),
];

/// Crates of others that one crate of ours may name.
const QUARANTINED: &[(&str, &[&str])] = &[
    ("libc", &["sys"]),
    ("lzma-rust2", &["trust"]),
    ("rusqlite", &["store"]),
    ("serde-saphyr", &["model"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("dlmalloc", &["cli"]),
    ("jiff", &["model"]),
    ("parquet", &["cli"]),
    ("schemars", &["model"]),
    ("toml", &["model"]),
    ("idna", &["policy"]),
    ("psl", &["policy"]),
    ("socket2", &["gate"]),
    ("bollard", &["engine-docker"]),
    ("russh", &["ssh"]),
    ("futures-util", &["cli", "engine-docker"]),
    ("sigstore-verify", &["trust"]),
    ("sigstore-trust-root", &["trust"]),
    ("ureq", &["trust"]),
    ("hickory-resolver", &["gate"]),
    ("rustls", &["gate", "trust"]),
    ("tar", &["trust"]),
];

const UNSAFE: &str = concat!("un", "safe ");
const UNSAFE_BLOCK: &str = concat!("un", "safe {");
const FORBIDDEN_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];
const LONGEST_FILE: usize = 700;
const WANTED_FILE: usize = 450;
const LONGEST_FUNCTION: usize = 70;
const LONGEST_INLINE_TESTS: usize = 200;
const LONGEST_SCRIPT: usize = 500;

/// Checks everything; says all that is wrong.
pub fn run() -> Step {
    let mut wrong = Vec::new();
    layers(&mut wrong)?;
    for file in output(&["git", "ls-files", "--cached", "--others", "--exclude-standard"])?.lines() {
        check_file(file, &mut wrong);
    }
    for line in &wrong {
        eprintln!("tidy: {line}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} things are out of order", wrong.len())) }
}

fn layers(wrong: &mut Vec<String>) -> Step {
    let metadata: Value =
        serde_json::from_str(&output(&["cargo", "metadata", "--format-version=1", "--no-deps"])?).map_err(|e| e.to_string())?;
    let table: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(short) = name.strip_prefix("cofferdam-") else { continue };
        seen.insert(short.to_owned());
        let Some(allowed) = table.get(short) else {
            wrong.push(format!("crate {short} is not in the layer table (xtask/src/tidy.rs and ARCHITECTURE.md)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            if let Some(ours) = other.strip_prefix("cofferdam-")
                && !allowed.contains(&ours)
            {
                wrong.push(format!("{short} imports {ours}: not allowed by the layer table"));
            }
            if let Some((_, owners)) = QUARANTINED.iter().find(|(crate_name, _)| *crate_name == other)
                && !owners.contains(&short)
            {
                wrong.push(format!("{short} names {other}: only {} may", owners.join(", ")));
            }
        }
    }
    for (name, _) in LAYERS {
        if !seen.contains(*name) {
            wrong.push(format!("the layer table names {name}, which does not exist"));
        }
    }
    Ok(())
}

fn check_file(file: &str, wrong: &mut Vec<String>) {
    let path = Path::new(file);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if FORBIDDEN_NAMES.contains(&stem) {
        wrong.push(format!("{file}: a file is named after what it does"));
    }
    let Ok(text) = std::fs::read_to_string(path) else { return };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => check_rust(file, &text, wrong),
        Some("ts" | "tsx") if text.lines().count() > LONGEST_SCRIPT => wrong.push(format!("{file}: over {LONGEST_SCRIPT} lines")),
        _ => {}
    }
}

fn check_rust(file: &str, text: &str, wrong: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.iter().position(|line| line.trim() == "#[cfg(test)]").filter(|at| lines.get(at + 1).is_some_and(|l| l.ends_with('{')));
    let body = &lines[..tests.unwrap_or(lines.len())];
    if body.len() > LONGEST_FILE {
        wrong.push(format!("{file}: {} lines, {LONGEST_FILE} is the most ({WANTED_FILE} is wanted)", body.len()));
    } else if body.len() > WANTED_FILE {
        eprintln!("tidy: note: {file}: {} lines, {WANTED_FILE} are wanted", body.len());
    }
    if let Some(at) = tests
        && lines.len() - at > LONGEST_INLINE_TESTS
    {
        wrong.push(format!("{file}: {} lines of tests: move them to a file of their own", lines.len() - at));
    }
    functions(file, body, wrong);
    if !file.starts_with("crates/sys/") && body.iter().any(|line| line.trim_start().starts_with(UNSAFE) || line.contains(UNSAFE_BLOCK)) {
        wrong.push(format!("{file}: unsafe code belongs into crates/sys"));
    }
    if file.starts_with("crates/sys/") && !file.ends_with("build.rs") {
        unsafe_has_reasons(file, body, wrong);
    }
}

/// From a line that begins a function to the line that closes it at the same depth.
fn functions(file: &str, lines: &[&str], wrong: &mut Vec<String>) {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let starts = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "];
        if starts.iter().any(|start| words.starts_with(start)) {
            let close = format!("{}}}", " ".repeat(indent));
            let end = (at..lines.len())
                .find(|end| lines[*end] == close || (lines[*end].ends_with('}') && *end == at) || lines[*end].ends_with(';') && *end == at);
            if let Some(end) = end {
                if end - at + 1 > LONGEST_FUNCTION {
                    wrong.push(format!("{file}:{}: a function of {} lines, {LONGEST_FUNCTION} is the most", at + 1, end - at + 1));
                }
                at = end;
            }
        }
        at += 1;
    }
}

/// Every unsafe block says why it is sound, at most a few lines above it.
fn unsafe_has_reasons(file: &str, lines: &[&str], wrong: &mut Vec<String>) {
    const NEAR: usize = 8;
    for (at, line) in lines.iter().enumerate() {
        if line.contains(UNSAFE_BLOCK) && !line.trim_start().starts_with("//") {
            let near = &lines[at.saturating_sub(NEAR)..=at];
            if !near.iter().any(|line| line.contains("SAFETY:")) {
                wrong.push(format!("{file}:{}: unsafe without a SAFETY line", at + 1));
            }
        }
    }
}
