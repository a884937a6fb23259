//! A certificate authority, a transparency log and a certificate log of our own, as sigstore's are: everything that a signature
//! needs, and that a forger would change.
//!
//! Formats: RFC 6962 (signed certificate timestamps, Merkle trees), Fulcio's object identifiers, Rekor's entries and checkpoints,
//! the sigstore bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_trust::content::sha256;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey, date_time_ymd,
};
use serde_json::{Value, json};

/// 2026-10-01T12:00:00Z: when everything was signed. The certificate ended long ago.
pub const SIGNED_AT: i64 = 1_790_856_000;
pub const ISSUER: &str = "https://ci.example/oidc";
pub const WORKFLOW: &str = "https://git.example/acme/app/.ci/release.yml@refs/tags/v1";
pub const REPOSITORY: &str = "https://git.example/acme/app";

pub struct Authority {
    ca_key: KeyPair,
    ca: Certificate,
    ca_params: CertificateParams,
    pub log: KeyPair,
    pub certificate_log: KeyPair,
}

/// What a certificate says.
#[derive(Clone)]
pub struct Claims {
    pub identity: String,
    pub issuer: String,
    pub repository: String,
    pub repository_id: String,
    pub runner: String,
    /// Whether the certificate log signed it.
    pub logged: bool,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            identity: WORKFLOW.into(),
            issuer: ISSUER.into(),
            repository: REPOSITORY.into(),
            repository_id: "1234".into(),
            runner: "github-hosted".into(),
            logged: true,
        }
    }
}

/// A certificate and its key.
pub struct Leaf {
    pub key: KeyPair,
    pub der: Vec<u8>,
    pub pem: String,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key")
}

pub fn spki(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}

pub fn public_pem(key: &KeyPair) -> String {
    key.public_key_pem()
}

fn id(key: &KeyPair) -> Vec<u8> {
    raw(&spki(key))
}

/// SHA-256.
pub fn raw(bytes: &[u8]) -> Vec<u8> {
    let hex = sha256(bytes).hex().to_owned();
    (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

pub fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

impl Authority {
    pub fn new() -> Self {
        let ca_key = key();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        let ca = params.self_signed(&ca_key).expect("a certificate");
        Self { ca_key, ca, ca_params: params, log: key(), certificate_log: key() }
    }

    /// The trust root that knows this authority and its logs.
    pub fn root(&self) -> Value {
        let log = |key: &KeyPair, url: &str| {
            json!({
                "baseUrl": url, "hashAlgorithm": "SHA2_256", "logId": {"keyId": b64(&id(key))},
                "publicKey": {"rawBytes": b64(&spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": "2020-01-01T00:00:00Z"}},
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log, "https://log.example")],
            "ctlogs": [log(&self.certificate_log, "https://ct.example")],
            "certificateAuthorities": [{
                "subject": {"organization": "test", "commonName": "test authority"}, "uri": "https://ca.example",
                "certChain": {"certificates": [{"rawBytes": b64(self.ca.der())}]}, "validFor": {"start": "2020-01-01T00:00:00Z"},
            }],
            "timestampAuthorities": [],
        })
    }

    /// A certificate for these claims, valid on the day of signing only.
    pub fn leaf(&self, claims: &Claims) -> Leaf {
        let key = key();
        let issuer = Issuer::from_params(&self.ca_params, &self.ca_key);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(vec![1, 2, 3, 4]));
        params.subject_alt_names = vec![SanType::URI(claims.identity.as_str().try_into().expect("a URI"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (date_time_ymd(2026, 10, 1), date_time_ymd(2026, 10, 2));
        for (number, value) in [(8, &claims.issuer), (11, &claims.runner), (12, &claims.repository), (15, &claims.repository_id)] {
            let oid = [1, 3, 6, 1, 4, 1, 57264, 1, number];
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, der(0x0c, value.as_bytes())));
        }
        let before = params.signed_by(&key, &issuer).expect("a certificate");
        if claims.logged {
            let list = self.timestamps(&tbs(before.der()));
            let oid = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, der(0x04, &list)));
        }
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        Leaf { key, der: signed.der().to_vec(), pem: signed.pem() }
    }

    /// The list of signed certificate timestamps for a certificate that does not hold it yet.
    fn timestamps(&self, tbs: &[u8]) -> Vec<u8> {
        let time = u64::try_from(SIGNED_AT).expect("positive") * 1000;
        let mut signed = vec![0, 0];
        signed.extend(time.to_be_bytes());
        signed.extend([0, 1]);
        signed.extend(raw(&spki(&self.ca_key)));
        signed.extend(&u32::try_from(tbs.len()).expect("small").to_be_bytes()[1..]);
        signed.extend(tbs);
        signed.extend([0, 0]);
        let signature = self.certificate_log.sign(&signed).expect("signed");
        let mut sct = vec![0];
        sct.extend(id(&self.certificate_log));
        sct.extend(time.to_be_bytes());
        sct.extend([0, 0, 4, 3]);
        sct.extend(u16::try_from(signature.len()).expect("small").to_be_bytes());
        sct.extend(signature);
        let mut list = u16::try_from(sct.len() + 2).expect("small").to_be_bytes().to_vec();
        list.extend(u16::try_from(sct.len()).expect("small").to_be_bytes());
        list.extend(sct);
        list
    }

    /// An entry of the transparency log, the second of two.
    pub fn entry(&self, kind: &str, body: &[u8]) -> Value {
        let leaf = |data: &[u8]| raw(&[&[0], data].concat());
        let (first, second) = (leaf(b"another entry"), leaf(body));
        let root = raw(&[&[1], first.as_slice(), second.as_slice()].concat());
        let note = format!("log.example - 1\n2\n{}\n", b64(&root));
        let hint = &id(&self.log)[..4];
        let signature = b64(&[hint, &self.log.sign(note.as_bytes()).expect("signed")].concat());
        let promised = json!({"body": b64(body), "integratedTime": SIGNED_AT, "logID": hex(&id(&self.log)), "logIndex": 1});
        let promise = self.log.sign(serde_json::to_string(&promised).expect("JSON").as_bytes()).expect("signed");
        json!({
            "logIndex": "1", "logId": {"keyId": b64(&id(&self.log))}, "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": SIGNED_AT.to_string(), "inclusionPromise": {"signedEntryTimestamp": b64(&promise)},
            "inclusionProof": {
                "logIndex": "1", "rootHash": b64(&root), "treeSize": "2", "hashes": [b64(&first)],
                "checkpoint": {"envelope": format!("{note}\n— log.example {signature}\n")},
            },
            "canonicalizedBody": b64(body),
        })
    }

    /// A bundle 0.3 with a signed statement.
    pub fn statement(&self, leaf: &Leaf, statement: &Value) -> Value {
        let payload = serde_json::to_vec(statement).expect("JSON");
        let kind = "application/vnd.in-toto+json";
        let encoded = [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes(), payload.clone()].concat();
        let signature = b64(&leaf.key.sign(&encoded).expect("signed"));
        let envelope = json!({"payload": b64(&payload), "payloadType": kind, "signatures": [{"sig": signature, "keyid": ""}]});
        let body = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": sha256(&serde_json::to_vec(&envelope).expect("JSON")).hex()},
            "payloadHash": {"algorithm": "sha256", "value": sha256(&payload).hex()},
            "signatures": [{"signature": signature, "verifier": b64(leaf.pem.as_bytes())}],
        }});
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(&leaf.der)},
                "tlogEntries": [self.entry("dsse", &serde_json::to_vec(&body).expect("JSON"))],
                "timestampVerificationData": {"rfc3161Timestamps": []},
            },
            "dsseEnvelope": envelope,
        })
    }

    /// cosign's earlier form: a payload, its signature, and annotations.
    pub fn simple(&self, leaf: &Leaf, digest: &str, repository: &str) -> Value {
        let payload = json!({"critical": {
            "identity": {"docker-reference": repository}, "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }, "optional": null});
        let payload = serde_json::to_string(&payload).expect("JSON");
        let signature = b64(&leaf.key.sign(payload.as_bytes()).expect("signed"));
        let body = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": sha256(payload.as_bytes()).hex()}},
            "signature": {"content": signature, "publicKey": {"content": b64(leaf.pem.as_bytes())}},
        }});
        let entry = self.entry("hashedrekord", &serde_json::to_vec(&body).expect("JSON"));
        let log_entry = json!({
            "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            "Payload": {"body": entry["canonicalizedBody"], "integratedTime": SIGNED_AT, "logIndex": 1, "logID": hex(&id(&self.log))},
        });
        json!({
            "kind": "simple", "payload": payload, "signature": signature, "certificate": leaf.pem, "chain": self.ca.pem(),
            "log_entry": log_entry.to_string(),
        })
    }
}

/// A statement about a digest.
pub fn in_toto(digest: &str, predicate_type: &str, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "registry.example/acme/app", "digest": {"sha256": digest.trim_start_matches("sha256:")}}],
        "predicateType": predicate_type, "predicate": predicate,
    })
}

/// SLSA provenance 1.
pub fn provenance(digest: &str, builder: &str, repository: &str) -> Value {
    let predicate = json!({
        "buildDefinition": {"buildType": "https://ci.example/v1", "externalParameters": {"workflow": {"repository": repository, "ref": "refs/tags/v1"}}},
        "runDetails": {"builder": {"id": builder}},
    });
    in_toto(digest, "https://slsa.dev/provenance/v1", predicate)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..128 => out.push(u8::try_from(length).expect("small")),
        length @ 128..256 => out.extend([0x81, u8::try_from(length).expect("small")]),
        length => {
            out.push(0x82);
            out.extend(u16::try_from(length).expect("small").to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// The part of a certificate that is signed.
fn tbs(certificate: &[u8]) -> Vec<u8> {
    let header = |at: usize| match certificate[at + 1] {
        0x82 => (4, usize::from(u16::from_be_bytes([certificate[at + 2], certificate[at + 3]]))),
        0x81 => (3, usize::from(certificate[at + 2])),
        length => (2, usize::from(length)),
    };
    let start = header(0).0;
    let (head, length) = header(start);
    certificate[start..start + head + length].to_vec()
}
