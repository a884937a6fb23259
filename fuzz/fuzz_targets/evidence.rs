//! Signatures of nobody: nothing that is not signed is ever accepted.
#![no_main]

use cofferdam_model::image::Reference;
use cofferdam_trust::content::{Content, ImageRecord, sha256};
use cofferdam_trust::oci::{Platform, RunConfig};
use cofferdam_trust::verify::{Options, Rule, TrustFile, Verification, Verifier};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;

const RULES: &str = "version: 1\nimages:\n- {match: a.example, rule: keyless, issuer: x, identity: y}\n";

fuzz_target!(|data: &[u8]| {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));
    let content = Content::of(directory.path());
    // As a whole collection, and as one bundle.
    let bundle = format!("[{{\"kind\":\"bundle\",\"json\":{:?}}}]", String::from_utf8_lossy(data));
    for evidence in [data, bundle.as_bytes()] {
        let kept = content.write_blob(evidence).expect("kept");
        let digest = sha256(b"image");
        let mut verified = Verification::local(Rule::Pin, String::new(), 0);
        verified.evidence = Some(kept.clone());
        let record = ImageRecord {
            reference: "a.example/app:1".parse::<Reference>().expect("a name"),
            digest: digest.clone(),
            index: None,
            platform: Platform::here(),
            created: None,
            pulled_at: 0,
            layers: Vec::new(),
            config_digest: digest,
            config: RunConfig::default(),
            verified,
        };
        let rules = TrustFile::parse(Path::new("trust.yaml"), RULES).expect("rules");
        assert!(Verifier::new(rules, Options::default(), 0).again(&content, &record).is_err());
        std::fs::remove_file(content.blob_path(&kept)).expect("removed");
    }
});
