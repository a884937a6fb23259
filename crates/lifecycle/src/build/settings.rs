//! Instructions that change nothing but how an image's processes are started.

use super::StepError;
use super::stage::{ESCAPE, Stage, meaning};
use cofferdam_trust::dockerfile::{Form, Instruction, expand, words};
use serde_json::json;

impl Stage {
    /// Does what the instruction says; those that make layers are done elsewhere.
    pub(super) fn set(&mut self, instruction: &Instruction) -> Result<(), StepError> {
        let variables = self.variables();
        let text = |text: &str| expand(text, &variables, ESCAPE).map_err(meaning);
        match instruction {
            Instruction::Env(pairs) => {
                // All of one line see the variables as they were before it.
                let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| Ok((text(k)?, text(v)?))).collect::<Result<_, StepError>>()?;
                for (key, value) in &pairs {
                    self.set_env(key, value);
                }
            }
            Instruction::Label(pairs) => {
                for (key, value) in pairs {
                    self.config.labels.insert(text(key)?, text(value)?);
                }
            }
            Instruction::User(user) => self.config.user = text(user)?,
            Instruction::Entrypoint(form) => {
                self.config.entrypoint = command_words(form, &self.shell);
                self.config.cmd.clear();
            }
            Instruction::Cmd(form) => self.config.cmd = command_words(form, &self.shell),
            Instruction::Expose(ports) => {
                for port in words(ports, &variables, ESCAPE).map_err(meaning)? {
                    let ports = ports_of(&port).map_err(meaning)?;
                    self.config.exposed_ports.extend(ports.into_iter().map(|port| (port, json!({}))));
                }
            }
            Instruction::Volume(paths) => {
                for path in paths {
                    self.config.volumes.insert(text(path)?, json!({}));
                }
            }
            Instruction::Shell(words) => {
                self.shell.clone_from(words);
                self.config.shell.clone_from(words);
            }
            Instruction::Healthcheck(check) => {
                self.config.healthcheck = check.clone().or_else(|| Some(json!({ "Test": ["NONE"] })));
            }
            Instruction::Stopsignal(signal) => {
                let signal = text(signal)?;
                cofferdam_engine::signal_number(&signal).ok_or_else(|| meaning(format!("{signal:?} is no signal")))?;
                self.config.stop_signal = signal;
            }
            Instruction::Onbuild(trigger) => self.config.on_build.push(trigger.clone()),
            Instruction::From(_)
            | Instruction::Maintainer(_)
            | Instruction::Arg(_)
            | Instruction::Run(_)
            | Instruction::Copy(_)
            | Instruction::Workdir(_) => {}
        }
        Ok(())
    }

    fn set_env(&mut self, key: &str, value: &str) {
        let entry = format!("{key}={value}");
        let prefix = format!("{key}=");
        match self.config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
            Some(known) => *known = entry,
            None => self.config.env.push(entry),
        }
    }
}

fn command_words(form: &Form, shell: &[String]) -> Vec<String> {
    match form {
        Form::Exec(words) => words.clone(),
        Form::Shell(text) if text.is_empty() => Vec::new(),
        Form::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports_of(text: &str) -> Result<Vec<String>, String> {
    const MOST: u16 = 1000;
    let wrong = || format!("EXPOSE {text}: PORT, PORT/udp or PORT-PORT is wanted");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(wrong());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || last < first || last - first > MOST {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
