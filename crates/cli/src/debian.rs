//! Where this host gets Debian packages: the operator's word, else what apt is configured for.

use crate::exit::{FAILED, Failure};
use cofferdam_model::config::Config;
use cofferdam_trust::debian::Mirrors;

const LISTS: &[&str] = &["/etc/apt/sources.list", "/etc/apt/sources.list.d"];

/// The mirrors, or how to name them.
pub fn mirrors(config: &Config) -> Result<Mirrors, Failure> {
    if let Some(main) = &config.debian.mirror {
        return Ok(Mirrors { main: main.clone(), security: config.debian.security.clone() });
    }
    let codename = codename(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    let found = codename.and_then(|codename| of_sources(&codename, &texts()));
    found.ok_or_else(|| {
        let path = crate::config::path();
        Failure::new(FAILED, "debian", "this host names no Debian archive in its apt sources")
            .remedy(format!("name one in {}: debian: {{mirror: URL, security: URL}}", path.display()))
    })
}

fn codename(release: &str) -> Option<String> {
    let field =
        |name: &str| release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'));
    (field("ID") == Some("debian")).then(|| field("VERSION_CODENAME").map(str::to_owned))?
}

fn texts() -> Vec<String> {
    let mut paths: Vec<std::path::PathBuf> = Vec::new();
    for place in LISTS {
        match std::fs::read_dir(place) {
            Ok(entries) => paths.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => paths.push(place.into()),
        }
    }
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// The archives of this release: of the release itself, and of its security updates.
fn of_sources(codename: &str, texts: &[String]) -> Option<Mirrors> {
    let entries: Vec<(String, Vec<String>)> = texts.iter().flat_map(|text| entries(text)).collect();
    let of = |suite: &str| entries.iter().find(|(_, suites)| suites.iter().any(|known| known.trim_end_matches('/') == suite));
    let (main, _) = of(codename)?;
    Some(Mirrors { main: main.clone(), security: of(&format!("{codename}-security")).map(|(url, _)| url.clone()) })
}

/// URL and suites of both forms of apt's lists (sources.list(5)).
fn entries(text: &str) -> Vec<(String, Vec<String>)> {
    let is_web = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let mut words = rest.split_whitespace();
        if let (Some(url), Some(suite)) = (words.next().filter(|url| is_web(url)), words.next()) {
            found.push((url.to_owned(), vec![suite.to_owned()]));
        }
    }
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let lines = stanza.lines().filter(|line| !line.starts_with('#'));
            let value =
                lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            value.map(|value| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
        };
        if field("Types").iter().any(|kind| kind == "deb") && !field("Enabled").iter().any(|word| word == "no") {
            found.extend(field("URIs").into_iter().filter(|url| is_web(url)).map(|url| (url, field("Suites"))));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_lists() {
        let new = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                   Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let old = "# deb http://commented.example x main\ndeb [signed-by=/k arch=amd64] https://old.example/debian/ bookworm main\n";
        let other = "deb https://tools.example/apt stable main\n";
        let mirrors = |texts: &[&str]| of_sources("bookworm", &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let found = mirrors(&[other, new]).expect("found");
        assert_eq!(found.main, "http://mirror.example/debian");
        assert_eq!(found.security.as_deref(), Some("http://mirror.example/debian-security"));
        assert_eq!(mirrors(&[old]).map(|found| found.main).as_deref(), Some("https://old.example/debian/"));
        assert_eq!(mirrors(&[other]), None);
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
    }
}
