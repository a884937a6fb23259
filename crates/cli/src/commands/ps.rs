//! `cofferdam ps`.

use crate::args::{Global, PsArgs};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{age, one, printable, table};
use cofferdam_lifecycle::data::now;
use cofferdam_model::{Phase, SandboxRecord};
use std::process::ExitCode;

/// Lists them.
pub fn run(global: Global, arguments: &PsArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut records = store.sandbox_list()?;
    records.retain(|record| arguments.all || !record.phase.is_final());
    records.retain(|record| arguments.labels.iter().all(|(key, value)| record.labels.get(key) == Some(value)));
    let conditions = arguments.filters.iter().map(|(key, value)| Condition::of(key, value)).collect::<Result<Vec<_>, _>>()?;
    records.retain(|record| conditions.iter().all(|condition| condition.holds(record)));
    if let Some(format) = &arguments.format {
        for record in &records {
            println!("{}", formatted(format, &serde_json::to_value(record).map_err(std::io::Error::from)?)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if context.global.quiet {
        for record in &records {
            println!("{}", if arguments.no_trunc { record.id.to_string() } else { record.id.short() });
        }
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["ID", "NAME", "PHASE", "AGE", "IMAGE", "COMMAND"];
    one(context.global.output, &records, |out| {
        table(out, &head, &records.iter().map(|record| row(record, arguments.no_trunc)).collect::<Vec<_>>())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A condition of `--filter`.
enum Condition {
    Name(String),
    Phase(String),
    Image(String),
    Engine(String),
    Network(String),
    Exited(i32),
    Label(String, Option<String>),
}

impl Condition {
    fn of(key: &str, value: &str) -> Result<Self, Failure> {
        let value = value.to_owned();
        Ok(match key {
            "name" => Self::Name(value),
            "phase" => Self::Phase(value),
            "image" => Self::Image(value),
            "engine" => Self::Engine(value),
            "network" => Self::Network(value),
            "exited" => {
                Self::Exited(value.parse().map_err(|_| Failure::usage(format!("--filter exited={value}: an exit status is wanted")))?)
            }
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value, None),
            },
            other => {
                let known = "name, phase, image, engine, network, exited, label";
                return Err(Failure::usage(format!("--filter {other}: there are {known}")));
            }
        })
    }

    fn holds(&self, record: &SandboxRecord) -> bool {
        match self {
            Self::Name(part) => record.name.as_ref().is_some_and(|name| name.as_str().contains(part)),
            Self::Phase(phase) => record.phase.name() == phase,
            Self::Image(image) => record.image.to_string() == *image,
            Self::Engine(engine) => record.engine == *engine,
            Self::Network(level) => record.network.to_string() == *level,
            Self::Exited(code) => record.exit_code == Some(*code),
            Self::Label(key, value) => record.labels.get(key).is_some_and(|other| value.as_ref().is_none_or(|value| value == other)),
        }
    }
}

/// A text with `{field}` and `{field.field}` replaced; `{{` and `}}` stand for braces.
fn formatted(text: &str, record: &serde_json::Value) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if from.starts_with("{{") || from.starts_with("}}") {
            out.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let field = from.strip_prefix('{').and_then(|from| from.split_once('}'));
        let (field, after) = field.ok_or_else(|| Failure::usage(format!("--format {text}: a brace stands alone; write it twice")))?;
        let value = field.split('.').try_fold(record, |value, key| value.get(key));
        let known = || record.as_object().map_or_else(String::new, |object| object.keys().cloned().collect::<Vec<_>>().join(", "));
        let value = value.ok_or_else(|| Failure::usage(format!("--format {{{field}}}: there are {}", known())))?;
        out.push_str(&printable(
            &value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned),
        ));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn row(record: &SandboxRecord, whole: bool) -> Vec<String> {
    const SHOWN: usize = 50;
    let phase = match (record.phase, record.exit_code) {
        (Phase::Completed, Some(code)) => format!("completed ({code})"),
        (phase, _) => record.reason.filter(|_| phase.is_final()).map_or_else(|| phase.to_string(), |reason| format!("{phase} ({reason})")),
    };
    let mut command = record.command.join(" ");
    if command.chars().count() > SHOWN {
        command = command.chars().take(SHOWN - 1).chain(['…']).collect();
    }
    let name = record.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let id = if whole { record.id.to_string() } else { record.id.short() };
    vec![id, name, phase, age(record.created_at, now()), record.image.to_string(), command]
}
