//! Whether a piece of evidence counts: the signature itself, who made it, and what it is about.

use super::evidence::{Evidence, Signer};
use super::promise;
use super::provenance::Statement;
use super::rules::{Rule, RuleEntry, TrustFile, matches};
use super::{Step, VerifyError};
use crate::content::sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::image::{Digest, Reference};
use serde_json::{Value, json};
use sigstore_trust_root::{SigstoreInstance, TrustedRoot};
use sigstore_verify::crypto::{CertificateInfo, KeyAlgorithm, verify_signature};
use sigstore_verify::types::bundle::MediaType;
use sigstore_verify::types::{Bundle, DerPublicKey, Sha256Hash, SignatureBytes, SignatureContent};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, Verifier};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const SIMPLE_TYPE: &str = "cosign container image signature";

/// What an entry of `trust.yaml` accepts.
pub struct Judge<'a> {
    entry: &'a RuleEntry,
    repository: String,
    keys: Vec<Key>,
    /// Checks certificates and log entries; there where they are asked for.
    verifier: Option<Trusted>,
}

/// The trust root, and what checks by it.
struct Trusted {
    verifier: Verifier,
    root: TrustedRoot,
}

struct Key {
    name: String,
    key: DerPublicKey,
}

/// Evidence that counts.
#[derive(Debug)]
pub struct Accepted {
    /// Who signed.
    pub identity: String,
    /// What was checked.
    pub steps: Vec<Step>,
}

/// What is signed, and by what kind of document.
enum Signed<'a> {
    Payload(&'a [u8]),
    Statement,
}

impl<'a> Judge<'a> {
    /// Reads the entry's keys and the trust root.
    pub fn new(entry: &'a RuleEntry, file: &TrustFile, reference: &Reference) -> Result<Self, VerifyError> {
        let mut keys = Vec::new();
        for path in &entry.keys {
            let path = file.resolve(path);
            let wrong = |why: String| VerifyError::Configuration { what: format!("key {}", path.display()), why };
            let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
            let key = DerPublicKey::from_pem(&text).map_err(|error| wrong(error.to_string()))?;
            KeyAlgorithm::from_spki(&key).map_err(|error| wrong(error.to_string()))?;
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            keys.push(Key { name: format!("{name} ({})", sha256(key.as_bytes()).short()), key });
        }
        let needs_root = entry.issuer.is_some() || entry.transparency_log;
        let verifier = if needs_root { Some(verifier(file)?) } else { None };
        Ok(Self { entry, repository: reference.name(), keys, verifier })
    }

    /// Whether the evidence is what the entry's rule asks for.
    pub fn accepts(&self, evidence: &Evidence, subjects: &[&Digest]) -> Result<Accepted, String> {
        if self.entry.rule == Rule::Provenance {
            return self.accepts_provenance(evidence, subjects);
        }
        match evidence {
            Evidence::Broken { why } => Err(why.clone()),
            Evidence::Simple { payload, signature, signer } => self.simple(payload, signature, signer, subjects),
            Evidence::Attestation { .. } | Evidence::Bundle { .. } => {
                let (bundle, statement) = statement(evidence, subjects)?;
                if !statement.as_ref().is_none_or(Statement::is_signature) {
                    let kind = statement.map(|statement| statement.predicate_type().to_owned()).unwrap_or_default();
                    return Err(format!("an attestation of {kind} is no signature of the image"));
                }
                self.signed(evidence, &bundle, &Signed::Statement, subjects)
            }
        }
    }

    /// Whether the evidence is provenance that the entry accepts.
    pub fn accepts_provenance(&self, evidence: &Evidence, subjects: &[&Digest]) -> Result<Accepted, String> {
        match evidence {
            Evidence::Broken { why } => Err(why.clone()),
            Evidence::Simple { .. } => Err("a plain signature says nothing on how the image was built".into()),
            Evidence::Attestation { .. } | Evidence::Bundle { .. } => {
                let (bundle, statement) = statement(evidence, subjects)?;
                let statement = statement.ok_or("a plain signature says nothing on how the image was built")?;
                let mut accepted = self.signed(evidence, &bundle, &Signed::Statement, subjects)?;
                accepted.steps.extend(statement.check_provenance(self.entry)?);
                Ok(accepted)
            }
        }
    }

    fn simple(&self, payload: &str, signature: &str, signer: &Signer, subjects: &[&Digest]) -> Result<Accepted, String> {
        let value: Value = serde_json::from_str(payload).map_err(|error| format!("the signed payload is not valid: {error}"))?;
        let critical = &value["critical"];
        if critical["type"].as_str() != Some(SIMPLE_TYPE) {
            return Err("the signed payload is no image signature".into());
        }
        let digest = critical["image"]["docker-manifest-digest"].as_str().unwrap_or_default();
        if !subjects.iter().any(|subject| subject.as_str() == digest) {
            return Err("the signature is for another digest".into());
        }
        let named = critical["identity"]["docker-reference"].as_str().unwrap_or_default();
        let same = named.parse::<Reference>().is_ok_and(|reference| reference.name() == self.repository);
        if !same && !self.entry.any_repository {
            return Err(format!("the signature was made for {named:?} (any_repository: true accepts that)"));
        }
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
            "verificationMaterial": material(signer)?,
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": encoded_digest(payload.as_bytes())?},
                "signature": signature,
            },
        });
        let evidence = Evidence::Simple { payload: payload.into(), signature: signature.into(), signer: signer.clone() };
        self.signed(&evidence, &bundle.to_string(), &Signed::Payload(payload.as_bytes()), subjects)
    }

    fn signed(&self, evidence: &Evidence, bundle: &str, what: &Signed<'_>, subjects: &[&Digest]) -> Result<Accepted, String> {
        if self.keys.is_empty() { self.keyless(evidence, bundle, what, subjects) } else { self.keyed(evidence, bundle, what, subjects) }
    }

    fn keyed(&self, evidence: &Evidence, bundle: &str, what: &Signed<'_>, subjects: &[&Digest]) -> Result<Accepted, String> {
        let signatures = signatures(evidence, bundle)?;
        for key in &self.keys {
            let algorithm = KeyAlgorithm::from_spki(&key.key).map_err(|error| error.to_string())?;
            let scheme = algorithm.default_signing_scheme();
            let fits = |(data, signature): &(Vec<u8>, Vec<u8>)| {
                verify_signature(&key.key, data, &SignatureBytes::from_bytes(signature), scheme).is_ok()
            };
            if !signatures.iter().any(fits) {
                continue;
            }
            let mut steps = vec![Step { check: "signature".into(), found: format!("made with key {}", key.name) }];
            if self.entry.transparency_log {
                self.logged(bundle, key, what, subjects)?;
                steps.push(Step { check: "transparency log".into(), found: "the entry and its proof are valid".into() });
            }
            return Ok(Accepted { identity: format!("key {}", key.name), steps });
        }
        Err("the signature was made with none of the keys".into())
    }

    fn logged(&self, bundle: &str, key: &Key, what: &Signed<'_>, subjects: &[&Digest]) -> Result<(), String> {
        let trusted = self.verifier.as_ref().ok_or("no trust root")?;
        let bundle = parsed(bundle)?;
        let policy = PublicKeyVerificationPolicy::new(key.key.clone());
        let policy =
            if bundle.has_inclusion_proof() { policy } else { promised(&bundle, &trusted.root).map(|()| policy.skip_tlog_unsafe())? };
        check(&trusted.verifier, &bundle, what, subjects, &policy).map(|_| ())
    }

    fn keyless(&self, _: &Evidence, bundle: &str, what: &Signed<'_>, subjects: &[&Digest]) -> Result<Accepted, String> {
        let (Some(issuer), Some(identity), Some(trusted)) = (&self.entry.issuer, &self.entry.identity, &self.verifier) else {
            return Err("the entry names no identity".into());
        };
        let bundle = parsed(bundle)?;
        if bundle.signing_certificate().is_none() {
            return Err("it was signed with a key, not by an identity".into());
        }
        let policy = VerificationPolicy::any_identity().require_issuer(issuer.clone());
        // cosign's earlier layout has the log's promise and no proof.
        let proven = bundle.has_inclusion_proof();
        let policy = if proven { policy } else { promised(&bundle, &trusted.root).map(|()| policy.skip_tlog_unsafe())? };
        let result = check(&trusted.verifier, &bundle, what, subjects, &policy)?;
        let certificate = result.certificate().ok_or("the bundle holds no certificate")?;
        let name = result.identity().map(|name| name.as_str().to_owned()).unwrap_or_default();
        if !matches(identity, &name) {
            return Err(format!("it was signed by {name:?}, not by {identity:?}"));
        }
        let log = if proven { "the entry and its proof are valid" } else { "the log's promise is valid" };
        let mut steps = vec![
            Step { check: "certificate".into(), found: format!("issued by the trust root, for {name}, vouched for by {issuer}") },
            Step { check: "certificate transparency".into(), found: "the signed timestamp is valid".into() },
            Step { check: "transparency log".into(), found: log.into() },
        ];
        self.claims(certificate, &mut steps)?;
        Ok(Accepted { identity: format!("{name} ({issuer})"), steps })
    }

    /// What the certificate says about where it was signed. A workflow that others may call signs for all of them under one name:
    /// only these tell them apart.
    fn claims(&self, certificate: &CertificateInfo, steps: &mut Vec<Step>) -> Result<(), String> {
        let claims = &certificate.ci_claims;
        let wanted = [
            ("source repository", &self.entry.source_repository, &claims.source_repository_uri),
            ("source repository's number", &self.entry.source_repository_id, &claims.source_repository_identifier),
            ("runner", &self.entry.runner_environment, &claims.runner_environment),
        ];
        for (what, wanted, found) in wanted {
            let Some(wanted) = wanted else { continue };
            let found = found.clone().unwrap_or_default();
            if found != *wanted {
                return Err(format!("the certificate's {what} is {found:?}, not {wanted:?}"));
            }
            steps.push(Step { check: what.into(), found });
        }
        Ok(())
    }
}

/// The bundle's JSON, and the statement that it holds.
fn statement(evidence: &Evidence, subjects: &[&Digest]) -> Result<(String, Option<Statement>), String> {
    let (json, envelope) = match evidence {
        Evidence::Bundle { json } => {
            let value: Value = serde_json::from_str(json).map_err(|error| format!("the bundle is not valid: {error}"))?;
            if value.is_null() {
                return Err("the bundle is null".into());
            }
            let envelope = value.get("dsseEnvelope").cloned();
            (json.clone(), envelope)
        }
        Evidence::Attestation { envelope, signer } => {
            let value: Value = serde_json::from_str(envelope).map_err(|error| format!("the attestation is not valid: {error}"))?;
            let bundle = json!({
                "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
                "verificationMaterial": material(signer)?,
                "dsseEnvelope": value,
            });
            (bundle.to_string(), Some(value))
        }
        _ => return Err("it holds no statement".into()),
    };
    let Some(envelope) = envelope else { return Ok((json, None)) };
    if envelope["payloadType"].as_str() != Some(PAYLOAD_TYPE) {
        return Err(format!("the attestation's payload is of type {}", envelope["payloadType"]));
    }
    let payload = envelope["payload"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let payload = payload.ok_or("the attestation's payload is not base64")?;
    Ok((json, Some(Statement::parse(&payload, subjects)?)))
}

fn verifier(file: &TrustFile) -> Result<Trusted, VerifyError> {
    let wrong = |why: String| VerifyError::Configuration { what: "the trust root".into(), why };
    let root = match &file.trust_root {
        None => TrustedRoot::from_embedded(SigstoreInstance::PublicGood).map_err(|error| wrong(error.to_string()))?,
        Some(path) => {
            let path = file.resolve(path);
            TrustedRoot::from_file(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?
        }
    };
    let verifier = Verifier::new(&root).map_err(|error| wrong(error.to_string()))?;
    Ok(Trusted { verifier, root })
}

fn parsed(bundle: &str) -> Result<Bundle, String> {
    Bundle::from_json(bundle).map_err(|error| format!("the bundle is not valid: {error}"))
}

/// Only the first form of bundles, and what cosign kept before there were any, may do without a proof.
fn promised(bundle: &Bundle, root: &TrustedRoot) -> Result<(), String> {
    if bundle.media_type() != MediaType::Bundle0_1 {
        return Err("the bundle holds no proof that it is in the transparency log".into());
    }
    promise::check(bundle, root)
}

fn check(
    verifier: &Verifier,
    bundle: &Bundle,
    what: &Signed<'_>,
    subjects: &[&Digest],
    policy: &impl sigstore_verify::Policy,
) -> Result<sigstore_verify::VerificationResult, String> {
    match what {
        Signed::Payload(payload) => verifier.verify(*payload, bundle, policy).map_err(|error| error.to_string()),
        Signed::Statement => {
            let mut last = "it is about no image".to_owned();
            for subject in subjects {
                let digest = Sha256Hash::from_hex(subject.hex()).map_err(|error| error.to_string())?;
                match verifier.verify(digest, bundle, policy) {
                    Ok(result) => return Ok(result),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        }
    }
}

type Data = Vec<u8>;
type RawSignature = Vec<u8>;

/// What is signed, byte for byte, with each signature.
fn signatures(evidence: &Evidence, bundle: &str) -> Result<Vec<(Data, RawSignature)>, String> {
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| "the signature is not base64".to_owned());
    if let Evidence::Simple { payload, signature, .. } = evidence {
        return Ok(vec![(payload.clone().into_bytes(), decode(signature)?)]);
    }
    let value: Value = serde_json::from_str(bundle).map_err(|error| error.to_string())?;
    if let Evidence::Bundle { .. } = evidence {
        // The whole form is checked, not only what is used of it.
        let bundle = parsed(bundle)?;
        if !matches!(bundle.content, SignatureContent::DsseEnvelope(_)) {
            return Err("a bundle without a statement does not say which image it is about".into());
        }
    }
    let envelope = &value["dsseEnvelope"];
    let payload = decode(envelope["payload"].as_str().unwrap_or_default())?;
    let pae = pre_authentication(PAYLOAD_TYPE, &payload);
    let listed = envelope["signatures"].as_array().cloned().unwrap_or_default();
    listed.iter().map(|signature| Ok((pae.clone(), decode(signature["sig"].as_str().unwrap_or_default())?))).collect()
}

/// DSSE's pre-authentication encoding (secure-systems-lab/dsse, protocol.md).
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Verification material of a bundle, from cosign's annotations.
fn material(signer: &Signer) -> Result<Value, String> {
    let certificates = [&signer.certificate, &signer.chain].into_iter().flatten().flat_map(|pem| pem_blocks(pem));
    let certificates: Vec<Value> = certificates.map(|der| json!({"rawBytes": der})).collect();
    let content = if certificates.is_empty() {
        json!({"publicKey": {"hint": ""}})
    } else {
        json!({"x509CertificateChain": {"certificates": certificates}})
    };
    let mut material = content;
    if let Some(entry) = &signer.log_entry {
        material["tlogEntries"] = json!([log_entry(entry)?]);
    }
    Ok(material)
}

/// An entry of the transparency log from the form that cosign keeps it in.
fn log_entry(text: &str) -> Result<Value, String> {
    let wrong = || "the log entry is not valid".to_owned();
    let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let payload = &value["Payload"];
    let body = payload["body"].as_str().ok_or_else(wrong)?;
    let inner: Value = STANDARD.decode(body).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(wrong)?;
    let id = payload["logID"].as_str().and_then(from_hex).ok_or_else(wrong)?;
    Ok(json!({
        "logIndex": payload["logIndex"].as_i64().ok_or_else(wrong)?.to_string(),
        "logId": {"keyId": STANDARD.encode(id)},
        "kindVersion": {"kind": inner["kind"], "version": inner["apiVersion"]},
        "integratedTime": payload["integratedTime"].as_i64().ok_or_else(wrong)?.to_string(),
        "inclusionPromise": {"signedEntryTimestamp": value["SignedEntryTimestamp"]},
        "canonicalizedBody": body,
    }))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let even = text.len().is_multiple_of(2) && text.is_ascii();
    even.then(|| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect())?
}

/// The base64 of each block of a PEM text.
fn pem_blocks(pem: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in pem.lines().map(str::trim) {
        if line.starts_with("-----BEGIN") {
            block = Some(String::new());
        } else if line.starts_with("-----END") {
            blocks.extend(block.take());
        } else if let Some(block) = &mut block {
            block.push_str(line);
        }
    }
    blocks
}

fn encoded_digest(bytes: &[u8]) -> Result<String, String> {
    let digest = sha256(bytes);
    from_hex(digest.hex()).map(|bytes| STANDARD.encode(bytes)).ok_or_else(|| "no digest".into())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
