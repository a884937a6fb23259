//! Signatures that cosign makes, on a real registry.

use cofferdam_tests::registry::{Registry, busybox_root};
use cofferdam_tests::{Ended, Home, ended};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

struct Signing {
    registry: Registry,
    home: Home,
    name: String,
}

impl Signing {
    /// An image in a registry, and two key pairs.
    fn new() -> Self {
        let (registry, home) = (Registry::start(), Home::new());
        busybox_root(&home.path("root"));
        home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
        let name = format!("{}/acme/app:1", registry.host);
        home.ok(&["image", "push", "base:1", &name]);
        let signing = Self { registry, home, name };
        for key in ["ours", "theirs"] {
            let made = signing.cosign(&["generate-key-pair", "--output-key-prefix", key]);
            assert_eq!(made.code, 0, "{made:?}");
        }
        signing
    }

    fn cosign(&self, words: &[&str]) -> Ended {
        let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/parts/usr/bin/cosign"));
        assert!(program.exists(), "cosign is not here: cargo xtask test fetches it (xtask/parts.sh cosign)");
        let place = self.home.path("");
        ended(
            Command::new(program)
                .args(words)
                .current_dir(place)
                .env("COSIGN_PASSWORD", "")
                .env("HOME", self.home.path(""))
                .env("PATH", "/usr/bin:/bin"),
        )
    }

    fn digest(&self) -> String {
        let record: Value = serde_json::from_str(&self.home.ok(&["image", "inspect", "base:1", "-o", "json"])).expect("JSON");
        format!("{}/acme/app@{}", self.registry.host, record["digest"].as_str().expect("a digest"))
    }

    fn sign(&self, words: &[&str]) {
        let digest = self.digest();
        let mut all = words.to_vec();
        all.extend(["--yes", "--allow-insecure-registry", "--tlog-upload=false", &digest]);
        let signed = self.cosign(&all);
        assert_eq!(signed.code, 0, "{signed:?}");
    }

    /// Pulls into a new home by an entry of `trust.yaml`.
    fn pull(&self, entry: &str) -> (Home, Ended) {
        let other = Home::new();
        let policy = self.home.path("trust.yaml");
        let text = format!("version: 1\nimages:\n- {{match: '{}/acme', {entry}}}\n", self.registry.host);
        fs::write(&policy, text).expect("written");
        let ended = other.run(&["image", "pull", "--trust", &policy.display().to_string(), &self.name]);
        (other, ended)
    }
}

const BY_KEY: &str = "rule: keyed, keys: [ours.pub]";

#[test]
fn a_signature_by_key_is_found_checked_and_kept() {
    let signing = Signing::new();
    let (_, unsigned) = signing.pull(BY_KEY);
    assert!(unsigned.code == 1 && unsigned.err.contains("it has none"), "{unsigned:?}");
    signing.sign(&["sign", "--key", "theirs.key"]);
    let (_, foreign) = signing.pull(BY_KEY);
    assert!(foreign.code == 1 && foreign.err.contains("none of the keys"), "{foreign:?}");
    signing.sign(&["sign", "--key", "ours.key"]);
    let (other, pulled) = signing.pull(BY_KEY);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let policy = signing.home.path("trust.yaml").display().to_string();
    let name = signing.name.clone();
    // Offline from here on.
    let Signing { registry, home, .. } = signing;
    drop(registry);
    let shown: Value = serde_json::from_str(&other.ok(&["image", "verify", "--trust", &policy, &name, "-o", "json"])).expect("JSON");
    assert_eq!(shown["rule"], "keyed");
    assert!(shown["identity"].as_str().expect("an identity").starts_with("key ours.pub"), "{shown}");
    assert_eq!(other.ok(&["run", "--trust", &policy, "--require-signature", "--image", &name, "cat", "/app/file"]), "from the base\n");
    let made =
        ended(Command::new("openssl").args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(home.path("new.key")));
    assert_eq!(made.code, 0, "{made:?}");
    let public =
        ended(Command::new("openssl").args(["ec", "-pubout", "-in"]).arg(home.path("new.key")).arg("-out").arg(home.path("ours.pub")));
    assert_eq!(public.code, 0, "{public:?}");
    let replaced = other.run(&["image", "verify", "--trust", &policy, &name]);
    assert!(replaced.code == 1 && replaced.err.contains("none of the keys"), "verify looks at the keys of now: {replaced:?}");
}

#[test]
fn attestations_are_provenance_only_if_they_are() {
    let signing = Signing::new();
    let by_provenance = "rule: provenance, keys: [ours.pub], builder: 'https://ci.example/builder'";
    fs::write(signing.home.path("bom.json"), "{}").expect("written");
    signing.sign(&["attest", "--key", "ours.key", "--type", "cyclonedx", "--predicate", "bom.json"]);
    let (_, bill) = signing.pull(by_provenance);
    assert!(bill.code == 1 && bill.err.contains("is no provenance"), "{bill:?}");
    let predicate = r#"{"builder":{"id":"https://ci.example/builder"},"buildType":"x","invocation":{"configSource":{"uri":"git+https://git.example/acme/app"}}}"#;
    fs::write(signing.home.path("provenance.json"), predicate).expect("written");
    signing.sign(&["attest", "--key", "ours.key", "--type", "slsaprovenance", "--predicate", "provenance.json"]);
    let (_, pulled) = signing.pull(by_provenance);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let (_, another) = signing.pull("rule: provenance, keys: [ours.pub], builder: 'https://evil.example/builder'");
    assert!(another.code == 1 && another.err.contains("it was built by https://ci.example/builder"), "{another:?}");
}

#[test]
fn referrers_are_found_without_the_registry_s_help() {
    let signing = Signing::new();
    fs::write(signing.home.path("provenance.json"), r#"{"builder":{"id":"b"},"buildType":"x"}"#).expect("written");
    signing.sign(&["attest", "--key", "ours.key", "--new-bundle-format", "--type", "slsaprovenance", "--predicate", "provenance.json"]);
    let (_, pulled) = signing.pull("rule: provenance, keys: [ours.pub], builder: b");
    assert_eq!(pulled.code, 0, "{pulled:?}");
}

#[test]
fn a_signature_moved_to_another_image_does_not_count() {
    let signing = Signing::new();
    signing.sign(&["sign", "--key", "ours.key"]);
    let home = &signing.home;
    fs::write(home.path("root/app/file"), "evil\n").expect("written");
    home.ok(&["image", "import", &home.path("root").display().to_string(), "evil:1"]);
    home.ok(&["image", "push", "evil:1", &signing.name]);
    let record: Value = serde_json::from_str(&home.ok(&["image", "inspect", "evil:1", "-o", "json"])).expect("JSON");
    let evil = record["digest"].as_str().expect("a digest").replace(':', "-");
    let genuine = signing.digest();
    let genuine = genuine.rsplit('@').next().expect("a digest").replace(':', "-");
    let repository = format!("docker://{}/acme/app", signing.registry.host);
    let copied = ended(
        Command::new("skopeo")
            .args(["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"])
            .args([format!("{repository}:{genuine}.sig"), format!("{repository}:{evil}.sig")]),
    );
    assert_eq!(copied.code, 0, "{copied:?}");
    let (_, refused) = signing.pull(BY_KEY);
    assert!(refused.code == 1 && refused.err.contains("for another digest"), "{refused:?}");
}
