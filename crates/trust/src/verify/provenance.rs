//! What a statement says about how an image was built.
//!
//! in-toto statements 0.1 and 1; SLSA provenance 0.2 and 1 (slsa.dev/provenance). Other predicates, a bill of materials first of
//! all, are no provenance, whoever signed them.

use super::Step;
use super::rules::RuleEntry;
use cofferdam_model::image::Digest;
use serde_json::Value;

const STATEMENTS: &[&str] = &["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];
const VERSION_02: &str = "https://slsa.dev/provenance/v0.2";
const VERSION_1: &str = "https://slsa.dev/provenance/v1";
/// What cosign signs in a bundle.
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A statement about one of the subjects.
#[derive(Debug)]
pub struct Statement {
    predicate_type: String,
    predicate: Value,
}

impl Statement {
    /// Reads one; it must be about one of these digests.
    pub fn parse(bytes: &[u8], subjects: &[&Digest]) -> Result<Self, String> {
        let whole: Value = serde_json::from_slice(bytes).map_err(|error| format!("the statement is not valid: {error}"))?;
        let kind = whole["_type"].as_str().unwrap_or_default();
        if !STATEMENTS.contains(&kind) {
            return Err(format!("the statement is of the unknown type {kind:?}"));
        }
        let listed = whole["subject"].as_array().cloned().unwrap_or_default();
        let about = |digest: &&Digest| listed.iter().any(|subject| subject["digest"]["sha256"].as_str() == Some(digest.hex()));
        if !subjects.iter().any(about) {
            return Err("the statement is about another image".into());
        }
        let predicate_type = whole["predicateType"].as_str().unwrap_or_default().to_owned();
        Ok(Self { predicate_type, predicate: whole["predicate"].clone() })
    }

    /// Whether it is a signature and no more.
    pub fn is_signature(&self) -> bool {
        self.predicate_type == SIGNATURE
    }

    /// Its predicate's type.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// Checks builder and source against what the entry asks for.
    pub fn check_provenance(&self, entry: &RuleEntry) -> Result<Vec<Step>, String> {
        let (builder, sources) = match self.predicate_type.as_str() {
            VERSION_1 => (self.text(&["runDetails", "builder", "id"]), self.sources_v1()),
            VERSION_02 => (self.text(&["builder", "id"]), self.sources_v02()),
            other => return Err(format!("{other} is no provenance")),
        };
        let mut steps = vec![Step { check: "provenance".into(), found: self.predicate_type.clone() }];
        if let Some(wanted) = &entry.builder {
            let found = builder.ok_or("the provenance names no builder")?;
            if !super::rules::matches(wanted, &found) {
                return Err(format!("it was built by {found}, not by {wanted}"));
            }
            steps.push(Step { check: "builder".into(), found });
        }
        if let Some(wanted) = &entry.source {
            let plain: Vec<String> = sources.iter().map(|source| repository_of(source).to_owned()).collect();
            if !plain.iter().any(|source| source == repository_of(wanted)) {
                let found = if plain.is_empty() { "nothing it names".to_owned() } else { plain.join(", ") };
                return Err(format!("it was built from {found}, not from {wanted}"));
            }
            steps.push(Step { check: "source".into(), found: wanted.clone() });
        }
        Ok(steps)
    }

    /// Where the build was defined; not what it merely used.
    fn sources_v1(&self) -> Vec<String> {
        let parameters = ["buildDefinition", "externalParameters"];
        let paths: [&[&str]; 3] = [&["workflow", "repository"], &["source"], &["configSource", "uri"]];
        paths.iter().filter_map(|path| self.text(&[&parameters, *path].concat())).collect()
    }

    fn sources_v02(&self) -> Vec<String> {
        self.text(&["invocation", "configSource", "uri"]).into_iter().collect()
    }

    fn text(&self, path: &[&str]) -> Option<String> {
        let value = path.iter().try_fold(&self.predicate, |value, key| value.get(key))?;
        value.as_str().map(str::to_owned)
    }
}

/// `git+https://host/owner/name@ref` without what stands around the repository.
fn repository_of(uri: &str) -> &str {
    let plain = uri.strip_prefix("git+").unwrap_or(uri);
    let after_scheme = plain.find("://").map_or(0, |at| at + 3);
    let end = plain[after_scheme..].find('@').map_or(plain.len(), |at| after_scheme + at);
    plain[..end].trim_end_matches('/').trim_end_matches(".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_compared_as_repositories() {
        for text in ["git+https://git.example/a/b@refs/heads/main", "https://git.example/a/b.git", "https://git.example/a/b/"] {
            assert_eq!(repository_of(text), "https://git.example/a/b");
        }
    }
}
