//! One instruction's text to what it says.

use super::lines::Line;
use super::mounts::{self, RunMount};

/// What an instruction says. Text that may hold variables is kept as it stands; its line's step expands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Begins a stage.
    From(From),
    /// Names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Environment: the text of each name and value.
    Env(Vec<(String, String)>),
    /// A command.
    Run(Run),
    /// Files of the context or a stage; `add` unpacks archives.
    Copy(Copy),
    /// Where commands start.
    Workdir(String),
    /// Who they are.
    User(String),
    /// The image's first words.
    Entrypoint(Form),
    /// Its further words.
    Cmd(Form),
    /// Labels.
    Label(Vec<(String, String)>),
    /// Ports.
    Expose(String),
    /// Volumes.
    Volume(Vec<String>),
    /// The shell of commands that are text.
    Shell(Vec<String>),
    /// How its health is checked: Docker's structure; None is NONE.
    Healthcheck(Option<serde_json::Value>),
    /// The signal that asks it to end.
    Stopsignal(String),
    /// For who builds on it.
    Onbuild(String),
    /// Who maintains it.
    Maintainer(String),
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image or stage; may hold variables.
    pub image: String,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// For another platform than this machine's; may hold variables.
    pub platform: Option<String>,
}

/// A command as words, or as text for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Words.
    Exec(Vec<String>),
    /// Text.
    Shell(String),
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub form: Form,
    /// Its mounts.
    pub mounts: Vec<RunMount>,
    /// `--network`: `default` or `none`.
    pub no_network: bool,
    /// Its here-documents.
    pub heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its delimiter.
    pub name: String,
    /// Its text.
    pub body: String,
    /// Whether variables in it are replaced.
    pub expand: bool,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// ADD: archives are unpacked.
    pub add: bool,
    /// What.
    pub sources: Vec<Source>,
    /// Where to; may hold variables.
    pub target: String,
    /// A stage or image.
    pub from: Option<String>,
    /// `USER[:GROUP]`; may hold variables.
    pub chown: Option<String>,
    /// Octal; may hold variables.
    pub chmod: Option<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path or pattern; may hold variables.
    Path(String),
    /// A here-document.
    Text(Heredoc),
}

/// Reads one.
pub fn parse(line: &Line) -> Result<Instruction, String> {
    let rest = line.rest.as_str();
    let needs = || Err(format!("{} needs an argument", line.keyword));
    if rest.is_empty() && line.keyword != "CMD" {
        return needs();
    }
    Ok(match line.keyword.as_str() {
        "FROM" => Instruction::From(from(rest)?),
        "ARG" => Instruction::Arg(raw_words(rest, line.escape).iter().map(|word| arg(word)).collect::<Result<_, _>>()?),
        "ENV" => Instruction::Env(pairs(rest, line.escape)?),
        "LABEL" => Instruction::Label(pairs(rest, line.escape)?),
        "RUN" => Instruction::Run(run(line)?),
        "COPY" | "ADD" => Instruction::Copy(copy(line)?),
        "WORKDIR" => Instruction::Workdir(rest.to_owned()),
        "USER" => Instruction::User(rest.to_owned()),
        "ENTRYPOINT" => Instruction::Entrypoint(form(rest)),
        "CMD" => Instruction::Cmd(form(rest)),
        "EXPOSE" => Instruction::Expose(rest.to_owned()),
        "VOLUME" => Instruction::Volume(match form(rest) {
            Form::Exec(words) => words,
            Form::Shell(text) => raw_words(&text, line.escape),
        }),
        "SHELL" => match form(rest) {
            Form::Exec(words) if !words.is_empty() => Instruction::Shell(words),
            _ => return Err("SHELL takes words: SHELL [\"/bin/bash\", \"-c\"]".into()),
        },
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest)?),
        "STOPSIGNAL" => Instruction::Stopsignal(rest.to_owned()),
        "ONBUILD" => Instruction::Onbuild(onbuild(rest)?),
        "MAINTAINER" => Instruction::Maintainer(rest.to_owned()),
        other => return Err(format!("{other} is no instruction{}", nearest(other))),
    })
}

fn nearest(word: &str) -> String {
    const KNOWN: &[&str] = &[
        "FROM",
        "ARG",
        "ENV",
        "LABEL",
        "RUN",
        "COPY",
        "ADD",
        "WORKDIR",
        "USER",
        "ENTRYPOINT",
        "CMD",
        "EXPOSE",
        "VOLUME",
        "SHELL",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "ONBUILD",
        "MAINTAINER",
    ];
    let near = KNOWN.iter().map(|known| (cofferdam_model::yaml::distance(word, known), known)).min();
    near.filter(|(distance, _)| *distance <= 2).map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default()
}

/// `--name=value` flags that stand first.
fn flags(mut rest: &str) -> (Vec<(&str, &str)>, &str) {
    let mut found = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (word, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        found.push(word.split_once('=').unwrap_or((word, "")));
        rest = after.trim_start();
    }
    (found, rest)
}

fn from(rest: &str) -> Result<From, String> {
    let (flags, rest) = flags(rest);
    let mut platform = None;
    for (name, value) in flags {
        match name {
            "platform" => platform = Some(value.to_owned()),
            other => return Err(format!("FROM has no flag --{other}")),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (*image, Some(name.to_ascii_lowercase())),
        _ => return Err("FROM IMAGE or FROM IMAGE AS NAME is wanted".into()),
    };
    Ok(From { image: image.to_owned(), name, platform })
}

fn arg(word: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
    if is_name(name) { Ok((name.to_owned(), value)) } else { Err(format!("{name:?} is no name of an argument")) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// `K=V K=V`, or the old `K V`.
fn pairs(rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(rest, escape);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| format!("{rest}: K=V is wanted"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: K=V is wanted"))?;
        if key.is_empty() { Err(format!("{word}: K=V is wanted")) } else { Ok((key.to_owned(), value.to_owned())) }
    };
    words.iter().map(pair).collect()
}

/// Words with their quotes and variables as they stand.
fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut escaped) = (String::new(), None, false);
    for c in text.chars() {
        if !escaped && quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        match (c, quote) {
            _ if escaped => escaped = false,
            (c, None | Some('"')) if c == escape => escaped = true,
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// JSON is words; everything else is text.
fn form(rest: &str) -> Form {
    let words = rest.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(rest).ok()).flatten();
    words.map_or_else(|| Form::Shell(rest.to_owned()), Form::Exec)
}

fn run(line: &Line) -> Result<Run, String> {
    let (flags, rest) = flags(&line.rest);
    let (mut mounts, mut no_network) = (Vec::new(), false);
    for (name, value) in flags {
        match (name, value) {
            ("mount", value) => mounts.push(mounts::parse(value)?),
            ("network", "none") => no_network = true,
            ("network", "default") => {}
            ("network", other) => {
                return Err(format!("RUN --network={other} is not supported: what a build reaches is asked by image build --network"));
            }
            ("security", _) => return Err("RUN --security is not supported: a build has no more rights than any sandbox".into()),
            (other, _) => return Err(format!("RUN has no flag --{other}")),
        }
    }
    if rest.is_empty() {
        return Err("RUN needs a command".into());
    }
    Ok(Run { form: form(rest), mounts, no_network, heredocs: line.heredocs.clone() })
}

fn copy(line: &Line) -> Result<Copy, String> {
    let add = line.keyword == "ADD";
    let (flags, rest) = flags(&line.rest);
    let mut copy = Copy { add, sources: Vec::new(), target: String::new(), from: None, chown: None, chmod: None, exclude: Vec::new() };
    for (name, value) in flags {
        let value = value.trim_matches(['"', '\'']);
        match name {
            "from" if !add => copy.from = Some(value.to_owned()),
            "chown" => copy.chown = Some(value.to_owned()),
            "chmod" => copy.chmod = Some(value.to_owned()),
            "exclude" => copy.exclude.push(value.to_owned()),
            // A layer of its own is what every COPY gets here.
            "link" => {}
            other => return Err(format!("{} --{other} is not supported", line.keyword)),
        }
    }
    let mut words = match form(rest) {
        Form::Exec(words) => words,
        Form::Shell(text) => raw_words(&text, line.escape),
    };
    copy.target = words.pop().unwrap_or_default();
    let mut heredocs = line.heredocs.iter();
    for word in words {
        if word.starts_with("<<") {
            let text = heredocs.next().ok_or("a here-document is not there")?;
            copy.sources.push(Source::Text(text.clone()));
        } else if add && (word.contains("://") || word.starts_with("git@")) {
            return Err(format!("ADD {word}: fetching is not supported; use RUN with a program that checks what it fetches"));
        } else {
            copy.sources.push(Source::Path(word));
        }
    }
    if copy.sources.is_empty() || copy.target.is_empty() {
        return Err(format!("{} needs something to copy and a place for it", line.keyword));
    }
    Ok(copy)
}

/// Docker's structure: `Test`, and times in nanoseconds.
fn healthcheck(rest: &str) -> Result<Option<serde_json::Value>, String> {
    let (flags, rest) = flags(rest);
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if kind.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    if !kind.eq_ignore_ascii_case("cmd") || command.trim().is_empty() {
        return Err("HEALTHCHECK CMD COMMAND or HEALTHCHECK NONE is wanted".into());
    }
    let test: Vec<String> = match form(command.trim()) {
        Form::Exec(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        Form::Shell(text) => vec!["CMD-SHELL".into(), text],
    };
    let mut check = serde_json::json!({ "Test": test });
    for (name, value) in flags {
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            other => return Err(format!("HEALTHCHECK has no flag --{other}")),
        };
        let number: u64 = if name == "retries" {
            value.parse().map_err(|_| format!("--retries={value}: a number is wanted"))?
        } else {
            nanoseconds(value).ok_or_else(|| format!("--{name}={value}: a time such as 30s is wanted"))?
        };
        check[key] = number.into();
    }
    Ok(Some(check))
}

/// Go's durations: `1m30s`.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let units: [(&str, u64); 6] =
            [("ms", 1_000_000), ("us", 1000), ("ns", 1), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty()).then_some(total)
}

fn onbuild(rest: &str) -> Result<String, String> {
    let keyword = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if ["ONBUILD", "FROM", "MAINTAINER"].contains(&keyword.as_str()) {
        return Err(format!("ONBUILD {keyword} is not allowed"));
    }
    Ok(rest.to_owned())
}
