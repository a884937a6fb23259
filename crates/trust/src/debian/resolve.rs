//! From the packages that are wanted to all that are needed. Always the same answer for the same index.

use super::version::{Relation, compare, relations};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A package as an archive's index describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Path below the archive's root.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    /// From the archive of security updates.
    pub security: bool,
    /// Part of every system that has a package manager.
    pub essential: bool,
    priority: u8,
    depends: Vec<Vec<Relation>>,
    provides: Vec<Relation>,
    against: Vec<Vec<Relation>>,
}

/// Everything that a release offers for one architecture.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    packages: BTreeMap<String, Vec<Package>>,
    providers: BTreeMap<String, BTreeSet<String>>,
}

/// Packages that cannot be had together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such package.
    #[error("{wanted} is not in the release")]
    Missing {
        /// Its name, and version if one was named.
        wanted: String,
    },
    /// A dependency that nothing meets.
    #[error("{package} needs {needs}, which the release does not have")]
    Unmet {
        /// Who needs it.
        package: String,
        /// What it needs.
        needs: String,
    },
    /// Two that exclude each other.
    #[error("{one} and {other} cannot be installed together")]
    Conflict {
        /// The one that says so.
        one: String,
        /// The other.
        other: String,
    },
}

impl Catalogue {
    /// Adds an index (`Packages`).
    pub fn add(&mut self, text: &str, security: bool) {
        for paragraph in text.split("\n\n") {
            let Some(package) = package(paragraph, security) else { continue };
            for provided in &package.provides {
                self.providers.entry(provided.name.clone()).or_default().insert(package.name.clone());
            }
            self.packages.entry(package.name.clone()).or_default().push(package);
        }
    }

    /// The newest of a name.
    fn newest(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)?.iter().max_by(|a, b| compare(&a.version, &b.version))
    }

    fn wanted(&self, text: &str) -> Result<&Package, ResolveError> {
        let missing = || ResolveError::Missing { wanted: text.to_owned() };
        match text.split_once('=') {
            None => self.newest(text).ok_or_else(missing),
            Some((name, version)) => {
                let known = self.packages.get(name).into_iter().flatten();
                known.into_iter().find(|package| package.version == version).ok_or_else(missing)
            }
        }
    }

    /// All that these packages need, by name. `whole`: with what every system has.
    pub fn resolve(&self, wanted: &[String], whole: bool) -> Result<Vec<&Package>, ResolveError> {
        let mut chosen: BTreeMap<&str, &Package> = BTreeMap::new();
        let mut open: VecDeque<&Package> = VecDeque::new();
        let essential = self.packages.keys().filter(|_| whole).filter_map(|name| self.newest(name)).filter(|package| package.essential);
        for package in wanted.iter().map(|text| self.wanted(text)).collect::<Result<Vec<_>, _>>()?.into_iter().chain(essential) {
            if chosen.insert(&package.name, package).is_none() {
                open.push_back(package);
            }
        }
        while let Some(package) = open.pop_front() {
            for group in &package.depends {
                if group.iter().any(|relation| chosen.values().any(|known| meets(known, relation))) {
                    continue;
                }
                let needs = || group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                let found = group.iter().find_map(|relation| self.candidate(relation));
                let found = found.ok_or_else(|| ResolveError::Unmet { package: package.name.clone(), needs: needs() })?;
                chosen.insert(&found.name, found);
                open.push_back(found);
            }
        }
        check(&chosen)?;
        Ok(chosen.into_values().collect())
    }

    /// The package of that name, else the one that provides it and matters most.
    fn candidate(&self, relation: &Relation) -> Option<&Package> {
        if let Some(package) = self.newest(&relation.name).filter(|package| relation.admits(&package.version)) {
            return Some(package);
        }
        let providers = self.providers.get(&relation.name)?;
        let fitting = providers.iter().filter_map(|name| self.newest(name)).filter(|package| meets(package, relation));
        fitting.min_by_key(|package| (package.priority, package.name.clone()))
    }
}

/// Whether a package is what is asked for, or provides it.
fn meets(package: &Package, relation: &Relation) -> bool {
    if package.name == relation.name {
        return relation.admits(&package.version);
    }
    package.provides.iter().filter(|provided| provided.name == relation.name).any(|provided| match (&provided.bound, &relation.bound) {
        (_, None) => true,
        (Some((_, version)), Some(_)) => relation.admits(version),
        (None, Some(_)) => false,
    })
}

fn check(chosen: &BTreeMap<&str, &Package>) -> Result<(), ResolveError> {
    for package in chosen.values() {
        for relation in package.against.iter().flatten() {
            let other = chosen.values().find(|other| other.name != package.name && meets(other, relation));
            if let Some(other) = other {
                let named = |package: &Package| format!("{} {}", package.name, package.version);
                return Err(ResolveError::Conflict { one: named(package), other: named(other) });
            }
        }
    }
    Ok(())
}

fn package(paragraph: &str, security: bool) -> Option<Package> {
    let mut package = Package { security, priority: 5, ..Package::default() };
    for line in paragraph.lines() {
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) else { continue };
        let value = value.trim();
        match key {
            "Package" => value.clone_into(&mut package.name),
            "Version" => value.clone_into(&mut package.version),
            "Filename" => value.clone_into(&mut package.file),
            "Size" => package.size = value.parse().ok()?,
            "SHA256" => value.clone_into(&mut package.sha256),
            "Essential" => package.essential = value == "yes",
            "Priority" => {
                let order = ["required", "important", "standard", "optional"];
                package.priority = order.iter().position(|name| *name == value).map_or(5, |at| at as u8);
            }
            "Depends" | "Pre-Depends" => package.depends.extend(relations(value)),
            "Provides" => package.provides = relations(value).into_iter().flatten().collect(),
            "Conflicts" | "Breaks" => package.against.extend(relations(value)),
            _ => {}
        }
    }
    let whole = !package.name.is_empty() && !package.version.is_empty() && package.sha256.len() == 64 && is_pool(&package.file);
    whole.then_some(package)
}

/// A path that stays below the archive's root.
pub(super) fn is_pool(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.~_/%:".contains(c);
    !path.starts_with('/') && path.chars().all(plain) && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(packages: &[&str]) -> Catalogue {
        let mut catalogue = Catalogue::default();
        let sha = "a".repeat(64);
        let texts: Vec<String> = packages.iter().map(|text| format!("{text}\nFilename: pool/x.deb\nSize: 1\nSHA256: {sha}")).collect();
        catalogue.add(&texts.join("\n\n"), false);
        catalogue
    }

    fn names(result: Result<Vec<&Package>, ResolveError>) -> Result<String, String> {
        let shown = |packages: Vec<&Package>| packages.iter().map(|p| format!("{}_{}", p.name, p.version)).collect::<Vec<_>>().join(" ");
        result.map(shown).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_needed_comes_along() {
        let catalogue = catalogue(&[
            "Package: a\nVersion: 1\nDepends: b (>= 2), mail-agent\nPre-Depends: dpkg",
            "Package: b\nVersion: 1",
            "Package: b\nVersion: 2\nDepends: x | c",
            "Package: c\nVersion: 1",
            "Package: dpkg\nVersion: 1\nEssential: yes",
            "Package: exim\nVersion: 1\nProvides: mail-agent\nPriority: standard",
            "Package: aexim\nVersion: 1\nProvides: mail-agent",
            "Package: sh\nVersion: 1\nEssential: yes",
            "Package: foe\nVersion: 1\nConflicts: mail-agent",
            "Package: old\nVersion: 1\nDepends: b (<< 2)",
        ]);
        let resolve = |wanted: &[&str], whole| names(catalogue.resolve(&wanted.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), whole));
        assert_eq!(resolve(&["a"], false), Ok("a_1 b_2 c_1 dpkg_1 exim_1".into()));
        assert_eq!(resolve(&["a", "aexim"], true), Ok("a_1 aexim_1 b_2 c_1 dpkg_1 sh_1".into()));
        assert_eq!(resolve(&["b=1"], false), Ok("b_1".into()));
        assert_eq!(resolve(&["b=3"], false), Err("b=3 is not in the release".into()));
        assert_eq!(resolve(&["old"], false), Err("old needs b (<< 2), which the release does not have".into()));
        assert_eq!(resolve(&["a", "foe"], false), Err("foe 1 and exim 1 cannot be installed together".into()));
    }

    #[test]
    fn paths_stay_below_the_archive() {
        for path in ["/etc/passwd", "pool/../../x", "pool//x", "pool/x y", ""] {
            assert!(!is_pool(path), "{path}");
        }
        assert!(is_pool("pool/main/g/g++/g++_4%3a14.2.0-1_amd64.deb"));
    }
}
