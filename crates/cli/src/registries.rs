//! Which package registries this host is configured for: what pip, npm, cargo, go and uv are told in their files and environment.

use cofferdam_policy::egress::Allow;
use std::path::{Path, PathBuf};

/// A file of a package manager, below the home directory or at the root.
const FILES: &[&str] = &[
    "/etc/pip.conf",
    "/etc/npmrc",
    "/usr/etc/npmrc",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.npmrc",
    "~/.yarnrc.yml",
    "~/.cargo/config.toml",
    "~/.cargo/config",
    "~/.config/uv/uv.toml",
    "~/.config/go/env",
];
const VARIABLES: &[&str] = &[
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "YARN_NPM_REGISTRY_SERVER",
    "GOPROXY",
    "CARGO_REGISTRIES_CRATES_IO_INDEX",
];

/// Entries for the preset `packages`, each host once; `named` are the operator's own.
pub fn configured(named: &[String]) -> Vec<Allow> {
    let home = crate::host::home();
    let place = |file: &str| match file.strip_prefix("~/") {
        Some(below) => home.as_deref().map(|home| home.join(below)),
        None => Some(PathBuf::from(file)),
    };
    let cargo_home = std::env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("config.toml"));
    let files = FILES.iter().filter_map(|file| place(file)).chain(cargo_home);
    let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
    let variables = VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    let mut entries: Vec<Allow> = Vec::new();
    for text in texts.chain(variables).chain(named.iter().cloned()) {
        for entry in urls(&text) {
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    entries
}

/// Hosts and ports of the web addresses in a text; lines that are comments are left out.
fn urls(text: &str) -> Vec<Allow> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let mut found = Vec::new();
    for line in lines {
        for (scheme, port) in [("https://", 443), ("http://", 80)] {
            for rest in line.split(scheme).skip(1) {
                let authority = rest.split(|c: char| c.is_whitespace() || "/\"',|?#".contains(c)).next().unwrap_or_default();
                let host = authority.rsplit('@').next().unwrap_or(authority).to_ascii_lowercase();
                let entry = if host.contains(':') { host } else { format!("{host}:{port}") };
                found.extend(entry.parse::<Allow>());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_files() {
        let text = "[global]\nindex-url = https://user:secret@Packages.example/simple/\n# https://commented.example\n\
                    extra-index-url=http://other.example:8080/x http://plain.example\nregistry = \"sparse+https://crates.example/index/\"\n\
                    GOPROXY=https://go.example,direct\nbad = https:// https://10.0.0.1/x\n";
        let hosts: Vec<String> = urls(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            hosts,
            ["packages.example:443", "other.example:8080", "plain.example:80", "crates.example:443", "go.example:443", "10.0.0.1/32:443"]
        );
    }
}
