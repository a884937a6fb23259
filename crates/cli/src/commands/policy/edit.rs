//! Policies of running sandboxes, changed by hand and kept.

use super::{of_sandbox, put};
use crate::commands::egress;
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use cofferdam_model::Task;
use cofferdam_policy::egress::{Allow, Policy, PolicyFile, Target};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// `policy edit`.
pub fn run(context: &Context, reference: &str, always: bool) -> Result<ExitCode, Failure> {
    let file = if always { Some(file_of(context, reference)?) } else { None };
    let before = match &file {
        Some(path) => fs::read_to_string(path).map_err(|error| io(path, &error))?,
        None => text_of(&of_sandbox(context, reference)?),
    };
    let scratch = tempfile::Builder::new().prefix("policy-").suffix(".yaml").tempfile()?;
    fs::write(scratch.path(), &before)?;
    open_editor(scratch.path())?;
    let after = fs::read_to_string(scratch.path())?;
    if after == before {
        crate::output::note!("cofferdam: nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    let kept = file.as_ref().map(|path| Kept::of(path, &before)).filter(|kept| kept.is_task);
    let compiled = match kept {
        Some(kept) => kept.compile(&after),
        None => egress::compile_file(scratch.path()),
    };
    match compiled {
        Ok((policy, warnings)) => {
            for warning in warnings {
                crate::output::note!("cofferdam: warning: {warning}");
            }
            let done = put(context, reference, policy)?;
            if let Some(path) = &file {
                write(path, &after)?;
            }
            Ok(done)
        }
        Err(failure) => {
            // What was typed is not lost.
            let (_, kept) = scratch.keep().map_err(|error| Failure::from(error.error))?;
            let message = format!("{}; the old policy stays in force", failure.message());
            Err(Failure::new(FAILED, "policy", message)
                .remedy(format!("what you wrote is in {0}: mend it, then cofferdam policy replace {reference} {0}", kept.display())))
        }
    }
}

/// The policy file of a sandbox with more entries: what else stands there stays as it is, comments too. None if they are there.
pub fn with_more(context: &Context, reference: &str, entries: &[String]) -> Result<Option<(PathBuf, String)>, Failure> {
    let path = file_of(context, reference)?;
    let before = fs::read_to_string(&path).map_err(|error| io(&path, &error))?;
    let kept = Kept::of(&path, &before);
    let mut wanted = kept.allowed(&before)?;
    let mut new = Vec::new();
    for entry in entries {
        let parsed = entry.parse::<Allow>().map_err(|error| Failure::usage(error.to_string()))?;
        if !wanted.contains(&parsed) {
            wanted.push(parsed);
            new.push(entry.as_str());
        }
    }
    if new.is_empty() {
        return Ok(None);
    }
    let after = with_entries(&before, &new);
    // Only if that says what was meant and is a policy: files can be written in more ways than are known here.
    let meant = kept.allowed(&after).is_ok_and(|allowed| allowed == wanted);
    if !meant {
        let message = format!("{}: its list `allow` is written in a way that cannot be added to", path.display());
        return Err(
            Failure::new(FAILED, "policy", message).remedy(format!("add {} by hand: the file is followed as it changes", new.join(", ")))
        );
    }
    kept.compile(&after)?;
    Ok(Some((path, after)))
}

/// A file that says what a sandbox may reach: a policy, or a task with a list of its own.
struct Kept {
    name: String,
    is_task: bool,
}

impl Kept {
    fn of(path: &Path, text: &str) -> Self {
        let name = path.display().to_string();
        let is_task = Task::parse(&name, text).is_ok();
        Self { name, is_task }
    }

    fn allowed(&self, text: &str) -> Result<Vec<Allow>, Failure> {
        if !self.is_task {
            return Ok(self.policy(text)?.source().allow.clone());
        }
        let task = Task::parse(&self.name, text).map_err(|error| Failure::new(FAILED, "task", error.to_string()))?;
        task.allow.iter().map(|entry| entry.parse::<Allow>().map_err(|error| Failure::usage(error.to_string()))).collect()
    }

    fn compile(&self, text: &str) -> Result<(Policy, Vec<String>), Failure> {
        if self.is_task {
            return Ok((egress::compile_task(&self.name, text)?, Vec::new()));
        }
        self.policy(text)?.compile(&egress::presets()?).map_err(|error| Failure::new(FAILED, "policy", error.to_string()))
    }

    fn policy(&self, text: &str) -> Result<PolicyFile, Failure> {
        PolicyFile::parse(&self.name, text).map_err(|error| Failure::new(FAILED, "policy", error.to_string()))
    }
}

fn file_of(context: &Context, reference: &str) -> Result<PathBuf, Failure> {
    let record = Context::find(&mut context.store()?, reference)?;
    record.policy_file.ok_or_else(|| {
        Failure::new(
            FAILED,
            "not_found",
            format!("sandbox {} was given no policy file (run --policy) and no task with a list of destinations", record.id.short()),
        )
        .remedy("leave --always away: the change holds for this sandbox")
    })
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FAILED, "io", format!("{}: {error}", path.display()))
}

/// In place of the file when it is whole, with the same permissions.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let path = path.canonicalize().map_err(|error| io(path, &error))?;
    let replace = || {
        let mut making = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
        making.write_all(text.as_bytes())?;
        making.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        making.as_file().sync_all()?;
        making.persist(&path).map(|_| ()).map_err(|error| error.error)
    };
    replace().map_err(|error| io(&path, &error))
}

/// As git starts it: the shell takes the variable's words apart.
fn open_editor(path: &Path) -> Result<(), Failure> {
    let named = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()));
    let editor = named.unwrap_or_else(|| "vi".into());
    let status = Command::new("sh").args(["-c", &format!("{editor} \"$@\""), &editor]).arg(path).status()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(FAILED, "editor", format!("{editor} ended with {status}; nothing was changed")).remedy("set EDITOR to another"))
}

/// A policy as a file that compiles to it.
fn text_of(policy: &Policy) -> String {
    let level = match (policy.is_open(), policy.rules().is_empty()) {
        (true, _) => "full_web",
        (false, true) => "isolated",
        (false, false) => "limited_web",
    };
    let mut text = format!("version: 1\nnetwork: {level}\n");
    let list = |text: &mut String, key: &str, items: &[String]| {
        if !items.is_empty() {
            let _ = write!(text, "{key}:\n{}", items.concat());
        }
    };
    let rules: Vec<String> = policy
        .rules()
        .iter()
        .map(|rule| {
            let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
            let protocol = rule.protocol.map(|protocol| format!("    protocol: {}\n", protocol.name())).unwrap_or_default();
            let private = if rule.allow_private { "    allow_private: true\n" } else { "" };
            let host = match &rule.target {
                Target::Host(host) => host.to_string(),
                Target::Network(network) => network.to_string(),
            };
            format!("  - host: \"{host}\"\n    ports: [{}]\n{protocol}{private}", ports.join(", "))
        })
        .collect();
    let deny: Vec<String> = policy.deny().iter().map(|deny| format!("  - \"{deny}\"\n")).collect();
    list(&mut text, "egress", &rules);
    list(&mut text, "deny", &deny);
    text
}

/// The text of a policy file with more entries in its list `allow`.
fn with_entries(text: &str, entries: &[&str]) -> String {
    let quoted: Vec<String> = entries.iter().map(|entry| format!("\"{entry}\"")).collect();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let Some(at) = lines.iter().position(|line| line.starts_with("allow:")) else {
        lines.push("allow:".into());
        lines.extend(quoted.iter().map(|entry| format!("  - {entry}")));
        return lines.join("\n") + "\n";
    };
    let value = lines[at]["allow:".len()..].trim().to_owned();
    if let Some(inside) = value.strip_prefix('[') {
        // To the bracket that closes it, on this line or one below.
        let end = (at..lines.len()).find_map(|line| closing(&lines[line], line == at).map(|column| (line, column)));
        if let Some((line, column)) = end {
            let empty = line == at && inside.trim_start().starts_with(']');
            let comma = if empty || lines[line][..column].trim_end().ends_with(',') { "" } else { ", " };
            lines[line].insert_str(column, &format!("{comma}{}", quoted.join(", ")));
        }
    } else {
        let belongs = |line: &String| line.trim().is_empty() || line.starts_with([' ', '\t', '#', '-']);
        let block = lines[at + 1..].iter().take_while(|line| belongs(line)).count();
        let last = (at + 1..=at + block).rev().find(|line| lines[*line].trim_start().starts_with("- "));
        let indent = last.map_or("  ", |line| &lines[line][..lines[line].len() - lines[line].trim_start().len()]).to_owned();
        let place = last.unwrap_or(at) + 1;
        lines.splice(place..place, quoted.iter().map(|entry| format!("{indent}- {entry}")));
    }
    lines.join("\n") + "\n"
}

/// Where a line has a closing bracket outside of quotes and comments; the brackets that open on it are counted.
fn closing(line: &str, first: bool) -> Option<usize> {
    let (mut quote, mut depth) = (None, i32::from(!first));
    for (column, letter) in line.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '#') => return None,
            (None, '[') => depth += 1,
            (None, ']') if depth <= 1 => return Some(column),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_where_they_belong() {
        let head = "version: 1\nnetwork: limited_web\n";
        for (before, after) in [
            ("", "allow:\n  - \"b.test\"\n"),
            ("allow: [a.test] # why\n", "allow: [a.test, \"b.test\"] # why\n"),
            ("allow: []\n", "allow: [\"b.test\"]\n"),
            (
                "allow: [\"[::1]/128:443\",\n  'x.test', # ]\n  y.test]\ndeny: [z.test]\n",
                "allow: [\"[::1]/128:443\",\n  'x.test', # ]\n  y.test, \"b.test\"]\ndeny: [z.test]\n",
            ),
            (
                "allow:\n  # why\n  - a.test\n\n# about deny\ndeny:\n  - z.test\n",
                "allow:\n  # why\n  - a.test\n  - \"b.test\"\n\n# about deny\ndeny:\n  - z.test\n",
            ),
            ("allow:\n- a.test\negress:\n- host: c.test\n", "allow:\n- a.test\n- \"b.test\"\negress:\n- host: c.test\n"),
        ] {
            assert_eq!(with_entries(&format!("{head}{before}"), &["b.test"]), format!("{head}{after}"));
        }
    }

    #[test]
    fn a_policy_is_written_as_what_it_is() {
        let presets = egress::presets().expect("presets");
        for text in [
            "version: 1\nnetwork: limited_web\nallow: [a.test, \"*.b.test:22\", 8.8.8.0/24:80]\ndeny: [x.b.test]\negress:\n- host: c.test\n  ports: [1, 2]\n  protocol: tcp\n  allow_private: true\n",
            "version: 1\nnetwork: full_web\ndeny: [a.test]\n",
            "version: 1\nnetwork: isolated\n",
        ] {
            let compile = |text: &str| PolicyFile::parse("x", text).expect("parsed").compile(&presets).expect("compiled").0;
            let (first, again) = (compile(text), compile(&text_of(&compile(text))));
            let bare = |policy: &Policy| {
                policy
                    .rules()
                    .iter()
                    .map(|rule| (rule.target.clone(), rule.ports.clone(), rule.protocol, rule.allow_private))
                    .collect::<Vec<_>>()
            };
            assert_eq!(bare(&first), bare(&again), "{text}");
            assert_eq!((first.is_open(), first.deny()), (again.is_open(), again.deny()), "{text}");
        }
    }
}
