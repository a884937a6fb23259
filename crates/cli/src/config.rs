//! The operator's configuration: ceilings, package registries, what things cost. A file that says something wrong stops every command
//! that would heed it.

use crate::exit::{FAILED, Failure};
use cofferdam_gate::resolver::Resolver;
use cofferdam_model::config::{Config, NameServers};
use cofferdam_model::task::LimitChanges;
use cofferdam_model::{Limits, yaml};
use std::path::{Path, PathBuf};

/// Names the file in place of the default.
pub const VARIABLE: &str = "COFFERDAM_CONFIG_PATH";

/// Where it is.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return path.into();
    }
    crate::images::configuration("cofferdam/config.yaml")
}

/// Reads it; without a file everything is as it is by default.
pub fn load() -> Result<Config, Failure> {
    read(&path())
}

fn read(path: &Path) -> Result<Config, Failure> {
    let shown = path.display().to_string();
    let wrong = |why: String| Failure::new(FAILED, "config", why);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && std::env::var_os(VARIABLE).is_none() => {
            return Ok(Config::default());
        }
        Err(error) => return Err(wrong(format!("{shown}: {error}"))),
    };
    if text.trim().is_empty() {
        return Ok(Config::default());
    }
    let config: Config = yaml::parse(&shown, &text).map_err(|error| wrong(error.to_string()))?;
    let rates = [config.costs.container_hour, config.costs.gb_month, config.costs.egress_gb];
    if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
        return Err(wrong(format!("{shown}: costs: a rate is a number from 0 on")));
    }
    Ok(config)
}

/// Who the gate asks for names, if not the host's own resolver.
pub fn resolver(config: &Config) -> Result<Option<Resolver>, Failure> {
    let Some(NameServers { servers, tls, ca }) = &config.resolver else { return Ok(None) };
    let wrong = |why: String| Failure::new(FAILED, "config", format!("{}: resolver: {why}", path().display()));
    let read = |ca: &PathBuf| std::fs::read_to_string(ca).map_err(|error| wrong(format!("{}: {error}", ca.display())));
    let roots = ca.as_ref().map(read).transpose()?;
    Resolver::new(servers, tls.as_deref(), roots).map(Some).map_err(|error| wrong(error.to_string()))
}

/// Refuses limits above the ceilings.
pub fn check(config: &Config, limits: &Limits) -> Result<(), Failure> {
    let ceilings = &config.ceilings;
    let above = |what: &str, asked: String, most: String| {
        let message = format!("{what} {asked} is above the operator's ceiling of {most} ({})", path().display());
        Err(Failure::new(FAILED, "ceiling", message).remedy("ask for less"))
    };
    match ceilings {
        LimitChanges { memory: Some(most), .. } if limits.memory > *most => {
            return above("memory limit", limits.memory.to_string(), most.to_string());
        }
        LimitChanges { cpus: Some(most), .. } if limits.cpus > *most => {
            return above("CPU limit", limits.cpus.to_string(), most.to_string());
        }
        LimitChanges { pids: Some(most), .. } if limits.pids > *most => {
            return above("process limit", limits.pids.to_string(), most.to_string());
        }
        _ => {}
    }
    if let Some(most) = ceilings.disk
        && limits.disk.is_some_and(|disk| disk > most)
    {
        return above("disk limit", limits.disk.map_or_else(String::new, |disk| disk.to_string()), most.to_string());
    }
    if let Some(most) = ceilings.timeout
        && limits.timeout.is_none_or(|timeout| timeout > most)
    {
        return above("time limit", limits.timeout.map_or_else(|| "without end".into(), |span| span.to_string()), most.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::Difficulty;

    fn read_text(text: &str) -> Result<Config, Failure> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, text).expect("written");
        read(&path)
    }

    #[test]
    fn ceilings_bound_every_limit() {
        let limits = Difficulty::Hard.limits();
        assert!(check(&read_text("").expect("empty"), &limits).is_ok());
        for (text, part) in [
            ("memory: 1GiB", "memory limit 2GiB is above the operator's ceiling of 1GiB"),
            ("cpus: 1", "CPU limit 2"),
            ("pids: 10", "process limit 200"),
            ("disk: 1GiB", "disk limit 10GiB"),
            ("timeout: 1m", "time limit 30m"),
        ] {
            let config = read_text(&format!("ceilings: {{{text}}}\n")).expect("reads");
            let message = check(&config, &limits).expect_err(text).message();
            assert!(message.contains(part), "{message}");
        }
        let config = read_text("ceilings: {timeout: 1m, memory: 1GiB}\n").expect("reads");
        assert!(check(&config, &config.bound(Limits { timeout: None, ..limits })).is_ok());
        assert!(check(&config, &Limits { timeout: None, ..limits }).is_err(), "no end is above every ceiling");
    }

    #[test]
    fn mistakes_are_errors() {
        for text in ["ceiling: {}\n", "costs: {container_hour: -1}\n", "costs: {egress_gb: .nan}\n", "registries: x\n"] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }
}
