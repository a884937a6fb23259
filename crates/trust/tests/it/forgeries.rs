//! What a forger might try: each is refused, with its own reason.

use crate::authority::{Authority, Claims, ISSUER, Leaf, REPOSITORY, WORKFLOW, b64, in_toto, provenance, public_pem};
use cofferdam_model::image::{Digest, Reference};
use cofferdam_trust::content::{Content, ImageRecord, sha256};
use cofferdam_trust::oci::{Platform, RunConfig};
use cofferdam_trust::verify::{Options, Rule, TrustFile, Verification, Verifier};
use serde_json::{Value, json};
use std::path::Path;

const BUILDER: &str = "https://ci.example/builder@v1";
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

struct Case {
    directory: tempfile::TempDir,
    authority: Authority,
    digest: Digest,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        std::fs::write(directory.path().join("root.json"), authority.root().to_string()).expect("written");
        Self { directory, authority, digest: sha256(b"the manifest") }
    }

    /// Judges evidence by an entry of `trust.yaml`.
    fn judge(&self, entry: &str, evidence: &[Value]) -> Result<Verification, String> {
        self.judge_text(entry, &serde_json::to_string(evidence).expect("JSON"))
    }

    fn judge_text(&self, entry: &str, evidence: &str) -> Result<Verification, String> {
        let content = Content::of(self.directory.path());
        let kept = content.write_blob(evidence.as_bytes()).expect("kept");
        let mut verified = Verification::local(Rule::Pin, String::new(), 0);
        verified.evidence = Some(kept);
        let record = ImageRecord {
            reference: "registry.example/acme/app:1".parse::<Reference>().expect("a name"),
            digest: self.digest.clone(),
            index: None,
            platform: Platform::here(),
            created: None,
            pulled_at: 0,
            layers: Vec::new(),
            config_digest: self.digest.clone(),
            config: RunConfig::default(),
            verified,
            attached: Vec::new(),
        };
        let text = format!("version: 1\ntrust_root: root.json\nimages:\n- {{match: registry.example/acme, {entry}}}\n");
        let file = TrustFile::parse(&self.directory.path().join("trust.yaml"), &text).map_err(|error| error.to_string())?;
        Verifier::new(file, Options::default(), 0).again(&content, &record).map_err(|error| error.to_string())
    }

    fn leaf(&self, change: impl FnOnce(&mut Claims)) -> Leaf {
        let mut claims = Claims::default();
        change(&mut claims);
        self.authority.leaf(&claims)
    }

    fn signature(&self, leaf: &Leaf) -> Value {
        self.authority.statement(leaf, &in_toto(self.digest.as_str(), SIGNATURE, json!({})))
    }

    fn simple(&self, leaf: &Leaf) -> Value {
        self.authority.simple(leaf, self.digest.as_str(), "registry.example/acme/app")
    }

    fn key_file(&self, name: &str, leaf: &Leaf) {
        std::fs::write(self.directory.path().join(name), public_pem(&leaf.key)).expect("written");
    }
}

fn bundle(json: &Value) -> Value {
    json!({"kind": "bundle", "json": json.to_string()})
}

fn keyless() -> String {
    format!(
        "rule: keyless, issuer: '{ISSUER}', identity: '{WORKFLOW}', source_repository: '{REPOSITORY}', source_repository_id: '1234', runner_environment: github-hosted"
    )
}

fn by_provenance() -> String {
    format!("rule: provenance, issuer: '{ISSUER}', identity: '{WORKFLOW}', builder: '{BUILDER}', source: '{REPOSITORY}'")
}

#[track_caller]
fn refused(result: Result<Verification, String>, part: &str) {
    let error = result.expect_err(part);
    assert!(error.contains(part), "{part:?} is not in: {error}");
}

#[test]
fn the_genuine_ones_are_accepted() {
    let case = Case::new();
    let leaf = case.leaf(|_| {});
    let accepted = case.judge(&keyless(), &[bundle(&case.signature(&leaf))]).expect("a bundle");
    assert!(accepted.identity.expect("an identity").starts_with(WORKFLOW));
    assert!(accepted.steps.iter().any(|step| step.check == "transparency log" && step.found.contains("proof")));
    case.judge(&keyless(), &[case.simple(&leaf)]).expect("cosign's earlier layout");
    let genuine = provenance(case.digest.as_str(), BUILDER, &format!("git+{REPOSITORY}@refs/tags/v1"));
    case.judge(&by_provenance(), &[bundle(&case.authority.statement(&leaf, &genuine))]).expect("provenance");
    case.key_file("key.pub", &leaf);
    case.judge("rule: keyed, keys: [key.pub]", &[case.simple(&leaf)]).expect("by key");
    case.judge("rule: keyed, keys: [key.pub]", &[bundle(&case.signature(&leaf))]).expect("by key, a bundle");
    let pattern = format!("rule: keyless, issuer: '{ISSUER}', identity: 'https://git.example/acme/*/.ci/release.yml@refs/tags/*'");
    case.judge(&pattern, &[json!({"kind": "broken", "why": "x"}), bundle(&case.signature(&leaf))])
        .expect("a pattern, and the second piece");
}

#[test]
fn certificates_of_others_are_refused() {
    let case = Case::new();
    let attempt = |change: &dyn Fn(&mut Claims), part: &str| {
        let leaf = case.leaf(|claims| change(claims));
        refused(case.judge(&keyless(), &[bundle(&case.signature(&leaf))]), part);
        refused(case.judge(&keyless(), &[case.simple(&leaf)]), part);
    };
    attempt(&|claims| claims.identity = "https://git.example/evil/app/.ci/release.yml@refs/tags/v1".into(), "it was signed by");
    attempt(&|claims| claims.identity = format!("{WORKFLOW}x"), "it was signed by");
    attempt(&|claims| claims.issuer = "https://evil.example/oidc".into(), "issuer mismatch");
    // A fork that calls the same workflow: the same name, another repository.
    attempt(&|claims| claims.repository = "https://git.example/evil/fork".into(), "source repository is");
    attempt(&|claims| claims.repository_id = "6666".into(), "source repository's number");
    attempt(&|claims| claims.runner = "self-hosted".into(), "runner is");
    attempt(&|claims| claims.logged = false, "SCT");
    let other = Case::new();
    let leaf = other.leaf(|_| {});
    let theirs = other.authority.statement(&leaf, &in_toto(case.digest.as_str(), SIGNATURE, json!({})));
    refused(case.judge(&keyless(), &[bundle(&theirs)]), "registry.example/acme/app:1");
}

/// Changes one value of a genuine bundle.
fn tampered(case: &Case, leaf: &Leaf, pointer: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut json = case.signature(leaf);
    change(json.pointer_mut(pointer).expect(pointer));
    bundle(&json)
}

#[test]
fn changed_bundles_are_refused() {
    let case = Case::new();
    let leaf = case.leaf(|_| {});
    let entry = "/verificationMaterial/tlogEntries/0";
    let set = |value: Value| move |place: &mut Value| *place = value;
    let flipped = |place: &mut Value| {
        let text = place.as_str().expect("text").to_owned();
        let swapped = if text.starts_with('A') { "B" } else { "A" };
        *place = format!("{swapped}{}", &text[1..]).into();
    };
    let attempt = |what: &str, piece: Value| {
        assert!(case.judge(&keyless(), &[piece]).is_err(), "{what}");
    };
    attempt("changed time", tampered(&case, &leaf, &format!("{entry}/integratedTime"), set(json!("1790856001"))));
    attempt("time long after", tampered(&case, &leaf, &format!("{entry}/integratedTime"), set(json!("1890856000"))));
    attempt("wrong proof", tampered(&case, &leaf, &format!("{entry}/inclusionProof/hashes/0"), flipped));
    attempt("wrong root", tampered(&case, &leaf, &format!("{entry}/inclusionProof/rootHash"), flipped));
    attempt("no proof", tampered(&case, &leaf, &format!("{entry}/inclusionProof"), set(Value::Null)));
    attempt("another tree size", tampered(&case, &leaf, &format!("{entry}/inclusionProof/treeSize"), set(json!("3"))));
    attempt("another place", tampered(&case, &leaf, &format!("{entry}/inclusionProof/logIndex"), set(json!("0"))));
    attempt(
        "another checkpoint",
        tampered(
            &case,
            &leaf,
            &format!("{entry}/inclusionProof/checkpoint/envelope"),
            set(json!("log.example - 1\n2\nAAAA\n\n— log.example AAAA\n")),
        ),
    );
    attempt("another log", tampered(&case, &leaf, &format!("{entry}/logId/keyId"), set(json!(b64(&[7; 32])))));
    attempt("wrong promise", tampered(&case, &leaf, &format!("{entry}/inclusionPromise/signedEntryTimestamp"), flipped));
    attempt("changed body", tampered(&case, &leaf, &format!("{entry}/canonicalizedBody"), set(json!(b64(b"{}")))));
    attempt("no log entry", tampered(&case, &leaf, "/verificationMaterial/tlogEntries", set(json!([]))));
    attempt("changed signature", tampered(&case, &leaf, "/dsseEnvelope/signatures/0/sig", flipped));
    attempt("no signature", tampered(&case, &leaf, "/dsseEnvelope/signatures", set(json!([]))));
    attempt("another payload type", tampered(&case, &leaf, "/dsseEnvelope/payloadType", set(json!("text/plain"))));
    attempt("another media type", tampered(&case, &leaf, "/mediaType", set(json!("application/json"))));
    let other = case.leaf(|_| {});
    attempt("key swap", tampered(&case, &leaf, "/verificationMaterial/certificate/rawBytes", set(json!(b64(&other.der)))));
    attempt(
        "truncated certificate",
        tampered(&case, &leaf, "/verificationMaterial/certificate/rawBytes", set(json!(b64(&leaf.der[..100])))),
    );
    // The log entry of one signature with another's envelope.
    let mut mixed = case.signature(&leaf);
    mixed["verificationMaterial"]["tlogEntries"] = case.signature(&other)["verificationMaterial"]["tlogEntries"].clone();
    attempt("another signature's log entry", bundle(&mixed));
    let whole = case.signature(&leaf).to_string();
    attempt("truncated bundle", json!({"kind": "bundle", "json": &whole[..whole.len() / 2]}));
    attempt("null bundle", bundle(&Value::Null));
    attempt("empty bundle", bundle(&json!({})));
    attempt("no text", json!({"kind": "bundle", "json": ""}));
}

#[test]
fn statements_about_something_else_are_refused() {
    let case = Case::new();
    let leaf = case.leaf(|_| {});
    let sign = |statement: &Value| bundle(&case.authority.statement(&leaf, statement));
    let other = sha256(b"another manifest");
    refused(case.judge(&keyless(), &[sign(&in_toto(other.as_str(), SIGNATURE, json!({})))]), "another image");
    refused(case.judge(&keyless(), &[case.authority.simple(&leaf, other.as_str(), "registry.example/acme/app")]), "another digest");
    refused(case.judge(&keyless(), &[case.authority.simple(&leaf, case.digest.as_str(), "registry.example/evil/app")]), "was made for");
    let replayed = case.authority.simple(&leaf, case.digest.as_str(), "registry.example/evil/app");
    case.judge(&format!("{}, any_repository: true", keyless()), &[replayed]).expect("where that is asked for");
    let bill = sign(&in_toto(case.digest.as_str(), "https://cyclonedx.org/bom", json!({})));
    refused(case.judge(&keyless(), std::slice::from_ref(&bill)), "no signature of the image");
    refused(case.judge(&by_provenance(), &[bill]), "is no provenance");
    refused(case.judge(&by_provenance(), &[case.simple(&leaf)]), "says nothing on how");
    refused(case.judge(&by_provenance(), &[sign(&in_toto(case.digest.as_str(), SIGNATURE, json!({})))]), "is no provenance");
    let mut odd = in_toto(case.digest.as_str(), SIGNATURE, json!({}));
    odd["_type"] = json!("https://evil.example/Statement");
    refused(case.judge(&keyless(), &[sign(&odd)]), "unknown type");
    odd["_type"] = json!("https://in-toto.io/Statement/v1");
    odd["subject"] = json!([]);
    refused(case.judge(&keyless(), &[sign(&odd)]), "another image");
    // What a payload says of itself, without a signature that says so.
    let mut changed = case.simple(&leaf);
    changed["payload"] =
        changed["payload"].as_str().expect("text").replace("registry.example/acme/app", "registry.example/acme/app ").into();
    assert!(case.judge(&keyless(), &[changed]).is_err());
    let mut kind = case.simple(&leaf);
    kind["payload"] =
        kind["payload"].as_str().expect("text").replace("cosign container image signature", "atomic container signature").into();
    refused(case.judge(&keyless(), &[kind]), "no image signature");
}

#[test]
fn provenance_of_another_build_is_refused() {
    let case = Case::new();
    let leaf = case.leaf(|_| {});
    let sign = |statement: &Value| bundle(&case.authority.statement(&leaf, statement));
    let digest = case.digest.as_str();
    refused(case.judge(&by_provenance(), &[sign(&provenance(digest, "https://evil.example/builder", REPOSITORY))]), "it was built by");
    refused(case.judge(&by_provenance(), &[sign(&provenance(digest, BUILDER, "https://git.example/evil/app"))]), "it was built from");
    refused(case.judge(&by_provenance(), &[sign(&provenance(sha256(b"x").as_str(), BUILDER, REPOSITORY))]), "another image");
    refused(case.judge(&by_provenance(), &[sign(&in_toto(digest, "https://slsa.dev/provenance/v1", json!({})))]), "names no builder");
    refused(case.judge(&by_provenance(), &[sign(&in_toto(digest, "https://slsa.dev/provenance/v9", json!({})))]), "is no provenance");
    // What was merely used is not what it was built from.
    let mut used = provenance(digest, BUILDER, "https://git.example/evil/app");
    used["predicate"]["buildDefinition"]["resolvedDependencies"] = json!([{"uri": REPOSITORY}]);
    refused(case.judge(&by_provenance(), &[sign(&used)]), "it was built from");
    // Version 0.2.
    let old = json!({"builder": {"id": BUILDER}, "invocation": {"configSource": {"uri": format!("git+{REPOSITORY}@refs/tags/v1")}}});
    case.judge(&by_provenance(), &[sign(&in_toto(digest, "https://slsa.dev/provenance/v0.2", old))]).expect("provenance 0.2");
    // A signature that is right, and provenance that is missing.
    let both = format!("rule: keyless, issuer: '{ISSUER}', identity: '{WORKFLOW}', builder: '{BUILDER}'");
    refused(case.judge(&both, &[sign(&in_toto(digest, SIGNATURE, json!({})))]), "is no provenance");
}

#[test]
fn keys_of_others_are_refused() {
    let case = Case::new();
    let (ours, theirs) = (case.leaf(|_| {}), case.leaf(|_| {}));
    case.key_file("key.pub", &ours);
    let keyed = "rule: keyed, keys: [key.pub]";
    refused(case.judge(keyed, &[case.simple(&theirs)]), "none of the keys");
    refused(case.judge(keyed, &[bundle(&case.signature(&theirs))]), "none of the keys");
    refused(case.judge(keyed, &[]), "it has none");
    let mut signature = case.simple(&ours);
    signature["signature"] = json!("not base64!");
    refused(case.judge(keyed, &[signature]), "not base64");
    refused(case.judge("rule: keyed, keys: [gone.pub]", &[case.simple(&ours)]), "gone.pub");
    std::fs::write(case.directory.path().join("odd.pub"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").expect("written");
    refused(case.judge("rule: keyed, keys: [odd.pub]", &[case.simple(&ours)]), "odd.pub");
    refused(
        case.judge(
            &keyless(),
            &[json!({"kind": "simple", "payload": case.simple(&ours)["payload"], "signature": case.simple(&ours)["signature"],
        "certificate": null, "chain": null, "log_entry": null})],
        ),
        "registry.example/acme/app:1",
    );
    let without_log = json!({"kind": "simple", "payload": case.simple(&ours)["payload"], "signature": case.simple(&ours)["signature"],
        "certificate": ours.pem, "chain": null, "log_entry": null});
    refused(case.judge(&keyless(), &[without_log]), "not recorded in the transparency log");
    refused(case.judge("rule: deny", &[case.simple(&ours)]), "denied");
}

/// cosign's earlier layout has no proof, only the log's promise: that must be the log's, for keys as for identities.
#[test]
fn promises_that_the_log_did_not_make_are_refused() {
    let case = Case::new();
    let leaf = case.leaf(|_| {});
    // Who signs with a key has the key itself in the log, not a certificate.
    let mut key = case.leaf(|_| {});
    key.pem = public_pem(&key.key);
    case.key_file("key.pub", &key);
    let logged = "rule: keyed, keys: [key.pub], transparency_log: true".to_owned();
    let by_key = |piece: Value| {
        let mut piece = piece;
        piece["certificate"] = Value::Null;
        piece["chain"] = Value::Null;
        piece
    };
    case.judge(&logged, &[bundle_by_key(&case, &key)]).expect("by key, with a proof");
    let mut unlogged = by_key(case.simple(&key));
    unlogged["log_entry"] = Value::Null;
    assert!(case.judge(&logged, &[unlogged]).is_err(), "no entry");
    for (rule, signer, piece) in [(keyless(), &leaf, case.simple(&leaf)), (logged, &key, by_key(case.simple(&key)))] {
        case.judge(&rule, std::slice::from_ref(&piece)).expect("the genuine one");
        let other = Authority::new().simple(signer, case.digest.as_str(), "registry.example/acme/app");
        let mut stranger = case.leaf(|_| {});
        stranger.pem = public_pem(&stranger.key);
        for (what, entry) in forged_entries(&piece, &other, &case.simple(&stranger)) {
            let mut forged = piece.clone();
            forged["log_entry"] = entry.to_string().into();
            assert!(case.judge(&rule, &[forged]).is_err(), "{rule}: {what}");
        }
    }
}

/// What a log entry can be made into, with those of another log and of another signature.
fn forged_entries(genuine: &Value, of_other_log: &Value, of_other_signature: &Value) -> Vec<(&'static str, Value)> {
    let read = |piece: &Value| -> Value { serde_json::from_str(piece["log_entry"].as_str().expect("text")).expect("JSON") };
    let (entry, theirs, mixed) = (read(genuine), read(of_other_log), read(of_other_signature));
    let change = |pointer: &str, value: Value| {
        let mut entry = entry.clone();
        *entry.pointer_mut(pointer).expect(pointer) = value;
        entry
    };
    vec![
        ("a promise of nobody", change("/SignedEntryTimestamp", json!(b64(&[0x30, 6, 2, 1, 1, 2, 1, 1])))),
        ("an empty promise", change("/SignedEntryTimestamp", json!(""))),
        ("another log's promise", change("/SignedEntryTimestamp", theirs["SignedEntryTimestamp"].clone())),
        ("another entry's promise", change("/SignedEntryTimestamp", mixed["SignedEntryTimestamp"].clone())),
        ("another time", change("/Payload/integratedTime", json!(1_790_856_001))),
        ("another place", change("/Payload/logIndex", json!(2))),
        ("another log", theirs),
        ("another signature's entry", mixed),
    ]
}

/// A bundle 0.3 that was signed with the leaf's key as such.
fn bundle_by_key(case: &Case, leaf: &Leaf) -> Value {
    let mut json = case.signature(leaf);
    let material = json["verificationMaterial"].as_object_mut().expect("an object");
    material.remove("certificate");
    material.insert("publicKey".into(), json!({"hint": ""}));
    bundle(&json)
}

#[test]
fn evidence_that_is_no_evidence_is_refused() {
    let case = Case::new();
    for text in ["", "null", "{}", "[{\"kind\":\"magic\"}]", "[[[[[["] {
        assert!(case.judge_text(&keyless(), text).is_err(), "{text}");
    }
    refused(case.judge(&keyless(), &[json!({"kind": "broken", "why": "it could not be read"})]), "it could not be read");
    std::fs::write(case.directory.path().join("root.json"), "{}").expect("written");
    let leaf = case.leaf(|_| {});
    assert!(case.judge(&keyless(), &[bundle(&case.signature(&leaf))]).is_err(), "a trust root that is none");
    assert!(Path::new(case.directory.path()).exists());
}
