//! Whether an image may be started: by which rule, with which evidence, and why not.
//!
//! What is verified is a manifest's digest, never a tag; what was verified is what is fetched. Evidence is kept with the image, so
//! that [`Verifier::again`] needs no network.

mod evidence;
mod pins;
mod promise;
mod provenance;
mod rules;
mod signature;

pub use evidence::Evidence;
pub use rules::{Rule, RuleEntry, TrustFile, TrustFileError};

use crate::content::{Content, ContentError};
use crate::registry::{RegistryError, Repository};
use cofferdam_model::image::{Digest, Reference};
use pins::Pin;
use serde::{Deserialize, Serialize};

/// Bound on one kept collection of evidence.
const LARGEST_EVIDENCE: u64 = 64 << 20;

/// Why an image may be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The rule.
    pub rule: Rule,
    /// The entry of `trust.yaml` that asked for it; none is the default.
    pub entry: Option<String>,
    /// The same in full: as long as it stands so, what was found then counts.
    pub by: Option<RuleEntry>,
    /// Who vouches for it, where somebody does.
    pub identity: Option<String>,
    /// What was checked, in order.
    pub steps: Vec<Step>,
    /// The kept evidence, as a blob.
    pub evidence: Option<Digest>,
    /// When, seconds since 1970.
    pub at: i64,
}

/// Something that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub check: String,
    /// What was found.
    pub found: String,
}

/// An image that may not be started.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The rule says so.
    #[error("image {reference} is denied by trust.yaml ({entry})")]
    Denied {
        /// The image.
        reference: String,
        /// The entry.
        entry: String,
    },
    /// A tag stands for something else than before.
    #[error(
        "image {reference} was pinned to {pinned} and is now {found}; if you expected a new release, accept it: cofferdam image pull --accept {reference}"
    )]
    Moved {
        /// The image.
        reference: String,
        /// What it was.
        pinned: Digest,
        /// What it is.
        found: Digest,
    },
    /// Nothing vouches for it.
    #[error("image {reference} has no signature that {entry} of trust.yaml accepts{reasons}", reasons = listed(reasons))]
    NoSignature {
        /// The image.
        reference: String,
        /// The entry.
        entry: String,
        /// What was found, and why it does not count.
        reasons: Vec<String>,
    },
    /// Only a pin, where a signature was asked for.
    #[error("image {0}: --require-signature, and no entry of trust.yaml says whose signature; add one for it (rule: keyed or keyless)")]
    SignatureRequired(String),
    /// The trust root or a key cannot be read.
    #[error("{what}: {why}")]
    Configuration {
        /// The file.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The registry does not give the evidence.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

fn listed(reasons: &[String]) -> String {
    if reasons.is_empty() { ": it has none".into() } else { format!(": {}", reasons.join("; ")) }
}

/// What decides.
#[derive(Debug)]
pub struct Verifier {
    rules: TrustFile,
    options: Options,
    now: i64,
}

/// What the caller asks for besides `trust.yaml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A pin is not enough.
    pub require_signature: bool,
    /// Look at nothing.
    pub skip: bool,
    /// A tag may stand for something else than before.
    pub accept: bool,
}

impl Verifier {
    /// By these rules. `now` is seconds since 1970.
    pub const fn new(rules: TrustFile, options: Options, now: i64) -> Self {
        Self { rules, options, now }
    }

    /// Verifies a resolved image, fetching what vouches for it.
    pub fn verify(
        &self,
        content: &Content,
        repository: &Repository,
        reference: &Reference,
        digest: &Digest,
        index: Option<&Digest>,
    ) -> Result<Verification, VerifyError> {
        self.decide(content, reference, digest, index, |subjects| {
            let evidence = evidence::fetch(repository, subjects)?;
            let kept = evidence::keep(content, &evidence)?;
            Ok((evidence, Some(kept)))
        })
    }

    /// By the entry for the image; evidence is gathered where the entry asks for any.
    fn decide(
        &self,
        content: &Content,
        reference: &Reference,
        digest: &Digest,
        index: Option<&Digest>,
        gather: impl FnOnce(&[&Digest]) -> Result<(Vec<Evidence>, Option<Digest>), VerifyError>,
    ) -> Result<Verification, VerifyError> {
        let entry = self.rules.entry_for(reference);
        if let Some(verification) = self.without_evidence(content, reference, digest, index, entry)? {
            return Ok(verification);
        }
        let entry = entry.ok_or_else(|| VerifyError::SignatureRequired(reference.to_string()))?;
        let subjects: Vec<&Digest> = [Some(digest), index].into_iter().flatten().collect();
        let (evidence, kept) = gather(&subjects)?;
        let mut verification = self.judge(reference, &subjects, entry, &evidence)?;
        verification.evidence = kept;
        Ok(verification)
    }

    /// Whether an image of the store may be started now: what was found when it came counts as long as the same entry of
    /// `trust.yaml` stands for it, else it is verified again.
    pub fn still(&self, content: &Content, record: &crate::content::ImageRecord) -> Result<Verification, VerifyError> {
        let entry = self.rules.entry_for(&record.reference);
        let settled = record.verified.rule != Rule::Skipped && record.verified.by.as_ref() == entry;
        let asked =
            self.options.skip || self.options.require_signature && matches!(record.verified.rule, Rule::Pin | Rule::Built | Rule::Loaded);
        if settled && !asked { Ok(record.verified.clone()) } else { self.again(content, record) }
    }

    /// Verifies an image of the store once more, by the rules of now and the evidence that was kept.
    pub fn again(&self, content: &Content, record: &crate::content::ImageRecord) -> Result<Verification, VerifyError> {
        let reference = &record.reference;
        let entry = self.rules.entry_for(reference);
        let local = matches!(record.verified.rule, Rule::Built | Rule::Loaded);
        if local && !self.options.require_signature && entry.is_none_or(|entry| entry.rule == Rule::Pin) {
            return Ok(record.verified.clone());
        }
        self.decide(content, reference, &record.digest, record.index.as_ref(), |_| match &record.verified.evidence {
            Some(kept) => Ok((evidence::kept(&content.read_blob(kept, LARGEST_EVIDENCE)?)?, Some(kept.clone()))),
            None => Ok((Vec::new(), None)),
        })
    }

    /// The rules that look at nothing but the digest. None: evidence is wanted.
    fn without_evidence(
        &self,
        content: &Content,
        reference: &Reference,
        digest: &Digest,
        index: Option<&Digest>,
        entry: Option<&RuleEntry>,
    ) -> Result<Option<Verification>, VerifyError> {
        if self.options.skip {
            let step = Step { check: "nothing".into(), found: "--skip-verify was given".into() };
            return Ok(Some(self.verification(Rule::Skipped, entry, None, vec![step])));
        }
        match entry.map_or(Rule::Pin, |entry| entry.rule) {
            Rule::Deny => {
                let entry = entry.map(RuleEntry::shown).unwrap_or_default();
                Err(VerifyError::Denied { reference: reference.to_string(), entry })
            }
            Rule::Pin if self.options.require_signature => Err(VerifyError::SignatureRequired(reference.to_string())),
            Rule::Pin => Ok(Some(self.pin(content, reference, digest, index, entry)?)),
            _ => Ok(None),
        }
    }

    /// First use records the digest; after that the tag stands for nothing else. The index's digest is what a tag stands for, where
    /// there is one.
    fn pin(
        &self,
        content: &Content,
        reference: &Reference,
        digest: &Digest,
        index: Option<&Digest>,
        entry: Option<&RuleEntry>,
    ) -> Result<Verification, VerifyError> {
        let found = index.unwrap_or(digest);
        let check = "the tag's digest".to_owned();
        let step = if reference.digest().is_some() {
            Step { check: "the digest in the name".into(), found: found.to_string() }
        } else {
            match pins::check(content, reference, found, self.options.accept, self.now)? {
                Pin::First => Step { check, found: format!("first use: pinned to {found}") },
                Pin::Same => Step { check, found: format!("as pinned: {found}") },
                Pin::Accepted(before) => Step { check, found: format!("was {before}, accepted as {found}") },
                Pin::Moved(pinned) => {
                    return Err(VerifyError::Moved { reference: reference.to_string(), pinned, found: found.clone() });
                }
            }
        };
        Ok(self.verification(Rule::Pin, entry, None, vec![step]))
    }

    /// The first piece of evidence that the entry accepts.
    fn judge(
        &self,
        reference: &Reference,
        subjects: &[&Digest],
        entry: &RuleEntry,
        evidence: &[Evidence],
    ) -> Result<Verification, VerifyError> {
        let judge = signature::Judge::new(entry, &self.rules, reference)?;
        let mut reasons = Vec::new();
        let mut accepted = None;
        for piece in evidence {
            match judge.accepts(piece, subjects) {
                Ok(found) => {
                    accepted = Some(found);
                    break;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        let refused = || VerifyError::NoSignature { reference: reference.to_string(), entry: entry.shown(), reasons: reasons.clone() };
        let mut accepted = accepted.ok_or_else(refused)?;
        if entry.rule != Rule::Provenance && entry.asks_for_provenance() {
            // A signature says who; what it was built from is another document, signed as well.
            let (found, why): (Vec<_>, Vec<_>) =
                evidence.iter().map(|piece| judge.accepts_provenance(piece, subjects)).partition(Result::is_ok);
            if let Some(found) = found.into_iter().flatten().next() {
                accepted.steps.extend(found.steps);
            } else {
                let reasons = why.into_iter().filter_map(Result::err).collect();
                return Err(VerifyError::NoSignature { reference: reference.to_string(), entry: entry.shown(), reasons });
            }
        }
        Ok(self.verification(entry.rule, Some(entry), Some(accepted.identity), accepted.steps))
    }

    fn verification(&self, rule: Rule, entry: Option<&RuleEntry>, identity: Option<String>, steps: Vec<Step>) -> Verification {
        Verification { rule, entry: entry.map(RuleEntry::shown), by: entry.cloned(), identity, steps, evidence: None, at: self.now }
    }
}

impl Verification {
    /// Of an image that was made here, or brought in by hand.
    pub fn local(rule: Rule, how: String, at: i64) -> Self {
        let steps = vec![Step { check: "where it comes from".into(), found: how }];
        Self { rule, entry: None, by: None, identity: None, steps, evidence: None, at }
    }
}
