//! A compiled policy as a policy file: what was preset or entry is a rule of its own there.

use super::{Policy, Protocol, Target};
use cofferdam_model::{NetworkLevel, yaml};
use serde::Serialize;

#[derive(Serialize)]
struct Document {
    version: u32,
    network: NetworkLevel,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    egress: Vec<Egress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

#[derive(Serialize)]
struct Egress {
    host: String,
    ports: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_private: bool,
}

impl Policy {
    /// The text of a file that says the same. None for one that allows nothing, which no file says but that of an isolated network.
    pub fn to_file(&self) -> Option<String> {
        let rule = |rule: &super::Rule| Egress {
            host: match &rule.target {
                Target::Host(host) => host.to_string(),
                Target::Network(network) => network.to_string(),
            },
            ports: rule.ports.clone(),
            protocol: rule.protocol,
            allow_private: rule.allow_private,
        };
        let egress: Vec<Egress> = self.rules().iter().map(rule).collect();
        if egress.is_empty() && !self.is_open() {
            return None;
        }
        let network = if self.is_open() { NetworkLevel::FullWeb } else { NetworkLevel::LimitedWeb };
        let deny = self.deny().iter().map(ToString::to_string).collect();
        yaml::write(&Document { version: 1, network, egress, deny }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PolicyFile, Presets};

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let presets = Presets::with_packages(vec!["registry.example".parse().expect("an entry")]);
        for text in [
            "version: 1\nnetwork: limited_web\nallow: [site.test, '*.b.test:8443', '93.184.1.0/24:22', 'preset:git-hosting', 'host.cofferdam.internal:11434']\ndeny: [x.b.test, '93.184.1.7']\n",
            "version: 1\nnetwork: package_only\nallow: [a.test]\n",
            "version: 1\nnetwork: full_web\ndeny: ['*.evil.test', evil.test]\n",
            "version: 1\nnetwork: limited_web\negress: [{host: db.test, ports: [5432, 5433], protocol: tcp, allow_private: true}, {host: 10.0.0.0/8, ports: [443], allow_private: true}]\n",
        ] {
            let read = |text: &str| PolicyFile::parse("p", text).and_then(|file| file.compile(&presets)).expect("compiles").0;
            let (policy, written) = (read(text), read(text).to_file().expect("says something"));
            let again = read(&written);
            let plain = |policy: &super::Policy| {
                let rules = policy.rules().iter().map(|rule| (rule.target.clone(), rule.ports.clone(), rule.protocol, rule.allow_private));
                (policy.is_open(), rules.collect::<Vec<_>>(), policy.deny().to_vec())
            };
            assert_eq!(plain(&policy), plain(&again), "{written}");
        }
    }
}
