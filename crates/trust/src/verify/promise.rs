//! The transparency log's signed promise that it will hold an entry (Rekor's `SignedEntryTimestamp`): a signature by the log over the
//! canonical JSON of body, time, log and index. The library checks it where it takes the time from it, which it does for certificates
//! only; for keys it is checked here.

use serde_json::Value;
use sigstore_trust_root::TrustedRoot;
use sigstore_verify::crypto::{KeyAlgorithm, verify_signature};
use sigstore_verify::types::{Bundle, SignatureBytes};

/// Whether every entry of the bundle has a promise that its log made.
pub fn check(bundle: &Bundle, root: &TrustedRoot) -> Result<(), String> {
    let wrong = || "the transparency log's promise is not valid".to_owned();
    let json: Value = bundle.to_json().ok().and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(wrong)?;
    let written = json["verificationMaterial"]["tlogEntries"].as_array().cloned().unwrap_or_default();
    let entries = &bundle.verification_material.tlog_entries;
    if entries.is_empty() || entries.len() != written.len() {
        return Err("it is not recorded in the transparency log".into());
    }
    for (entry, written) in entries.iter().zip(&written) {
        let number = |key: &str| match &written[key] {
            Value::String(text) => text.parse::<i64>().ok(),
            other => other.as_i64(),
        };
        let time = number("integratedTime").ok_or_else(wrong)?;
        let key = root.rekor_key_for_log(&entry.log_id.key_id).map_err(|_| "the transparency log is not known".to_owned())?;
        let promise = written["inclusionPromise"]["signedEntryTimestamp"].as_str().ok_or_else(wrong)?;
        let signature = SignatureBytes::from_base64(promise).map_err(|_| wrong())?;
        let id = super::signature::hex(entry.log_id.key_id.as_bytes());
        let body = written["canonicalizedBody"].as_str().ok_or_else(wrong)?;
        // An index of zero may be left out (proto3 JSON).
        let index = number("logIndex").unwrap_or(0);
        let signed = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":{index}}}"#);
        let scheme = KeyAlgorithm::from_spki(&key).map_err(|error| error.to_string())?.default_signing_scheme();
        verify_signature(&key, signed.as_bytes(), &signature, scheme).map_err(|_| wrong())?;
    }
    Ok(())
}
