//! Images: from a real registry to a running sandbox; what registries get wrong; what the store survives.

use cofferdam_tests::registry::{Registry, busybox_root};
use cofferdam_tests::{Home, ended};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// A home with an image `base:1` in its store.
pub fn with_base() -> Home {
    let home = Home::new();
    busybox_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    home
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back_to_run() {
    let registry = Registry::start();
    let home = with_base();
    let name = format!("{}/team/app:1", registry.host);
    home.ok(&["image", "push", "base:1", &name]);
    let other = Home::new();
    let pulled = other.ok(&["image", "pull", "-q", &name]);
    assert!(pulled.starts_with(&format!("{name}@sha256:")), "{pulled}");
    assert_eq!(other.ok(&["run", "--image", &name, "cat", "/app/file"]), "from the base\n");
    assert_eq!(other.ok(&["run", "--image", &name, "id", "-u"]), "10001\n", "an image without a user is not root's");
    assert_eq!(other.ok(&["run", "--image", &name, "-u", "root", "sh", "-c", "id -u; touch /etc/x; ls /etc/x"]), "0\n/etc/x\n");
    let listed = json(&other.ok(&["image", "ls", "-o", "json"]));
    assert_eq!(listed[0]["verified"]["rule"], "pin");
    other.assert_clean();
}

#[test]
fn run_pulls_what_is_not_there_and_needs_no_registry_after_that() {
    let registry = Registry::start();
    let home = with_base();
    let name = format!("{}/app:1", registry.host);
    home.ok(&["image", "push", "base:1", &name]);
    let other = Home::new();
    assert_eq!(other.ok(&["run", "-q", "--image", &name, "echo", "one"]), "one\n");
    let id = other.ok(&["run", "-q", "-d", "--image", &name, "sleep", "60"]);
    drop(registry);
    assert_eq!(other.ok(&["run", "--image", &name, "echo", "two"]), "two\n");
    other.ok(&["rm", "-f", id.trim()]);
    other.ok(&["image", "verify", &name]);
}

#[test]
fn a_tag_that_moves_is_refused_until_it_is_accepted() {
    let registry = Registry::start();
    let home = with_base();
    let name = format!("{}/app:1", registry.host);
    home.ok(&["image", "push", "base:1", &name]);
    let other = Home::new();
    other.ok(&["image", "pull", &name]);
    fs::write(home.path("root/app/file"), "another release\n").expect("written");
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:2"]);
    home.ok(&["image", "push", "base:2", &name]);
    let refused = other.run(&["image", "pull", &name]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("was pinned to sha256:") && refused.err.contains("image pull --accept"), "{refused:?}");
    assert_eq!(other.ok(&["run", "--image", &name, "cat", "/app/file"]), "from the base\n", "what was pinned still runs");
    other.ok(&["image", "pull", "--accept", &name]);
    assert_eq!(other.ok(&["run", "--image", &name, "cat", "/app/file"]), "another release\n");
}

#[test]
fn what_the_trust_policy_denies_does_not_start_even_if_it_is_here() {
    let home = with_base();
    let policy = home.path("trust.yaml");
    fs::write(&policy, "version: 1\nimages:\n- {match: library/base, rule: deny}\n").expect("written");
    let trust = policy.display().to_string();
    let refused = home.run(&["run", "--trust", &trust, "--image", "base:1", "true"]);
    assert!(refused.code == 125 && refused.err.contains("denied by trust.yaml"), "{refused:?}");
    let loud = home.run(&["run", "-q", "--trust", &trust, "--skip-verify", "--image", "base:1", "true"]);
    assert!(loud.code == 0 && loud.err.contains("WARNING: --skip-verify"), "{loud:?}");
    let record = json(&home.ok(&["image", "inspect", "base:1", "-o", "json"]));
    assert_eq!(record["verified"]["rule"], "skipped", "and it is recorded");
    let again = home.run(&["run", "--trust", &trust, "--image", "base:1", "true"]);
    assert!(again.err.contains("denied by trust.yaml"), "{again:?}");
    let strict = home.run(&["run", "--require-signature", "--image", "base:1", "true"]);
    assert!(strict.code == 125 && strict.err.contains("--require-signature"), "{strict:?}");
    fs::write(&policy, "version: 1\nimages:\n- {match: base, rule: keyd}\n").expect("written");
    let odd = home.run(&["run", "--trust", &trust, "--image", "base:1", "true"]);
    assert!(odd.err.contains("trust.yaml:3:") && odd.err.contains("keyed"), "{odd:?}");
}

#[test]
fn the_image_s_configuration_is_honoured() {
    let home = with_base();
    let context = home.path("context");
    fs::create_dir(&context).expect("made");
    let text = "FROM base:1\nENV A=1 PATH=/bin:/own\nWORKDIR /app\nUSER web\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $A; pwd; id -un; echo $PATH\"]\nSTOPSIGNAL USR1\n";
    fs::write(context.join("Dockerfile"), text).expect("written");
    home.ok(&["image", "build", "-q", "-t", "configured", &context.display().to_string()]);
    assert_eq!(home.ok(&["run", "--image", "configured"]), "1\n/app\nweb\n/bin:/own\n");
    assert_eq!(home.ok(&["run", "--image", "configured", "echo said"]), "said\n", "arguments replace the command");
    assert_eq!(home.ok(&["run", "--image", "configured", "--entrypoint", "id", "--", "-u"]), "33\n", "another entry point");
    assert_eq!(
        home.ok(&["run", "--image", "configured", "-e", "A=2", "-w", "/tmp", "-u", "10001", "echo $A; pwd; id -u"]),
        "2\n/tmp\n10001\n"
    );
    let script = "trap 'echo asked; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    home.ok(&["run", "-d", "--name", "waits", "--image", "configured", script]);
    cofferdam_tests::eventually("it is ready", || home.run(&["logs", "waits"]).out.contains("ready"));
    home.ok(&["stop", "waits"]);
    assert!(home.ok(&["logs", "waits"]).contains("asked"), "the image's own signal asked it");
    home.ok(&["rm", "waits"]);
}

#[test]
fn archives_of_others_are_loaded_and_ours_are_by_others() {
    let registry = Registry::start();
    let home = with_base();
    let archive = home.path("image.tar").display().to_string();
    home.ok(&["image", "save", "base:1", &archive]);
    let to = format!("docker://{}/app:saved", registry.host);
    let skopeo = ended(Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &format!("docker-archive:{archive}"), &to]));
    assert_eq!(skopeo.code, 0, "{skopeo:?}");
    for form in ["oci", "docker-archive", "oci-archive"] {
        let path = home.path(form).display().to_string();
        let target = format!("{form}:{path}:localhost/{form}:1");
        let from = to.replace("docker://", "");
        let copied = ended(Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{from}"), &target]));
        assert_eq!(copied.code, 0, "{copied:?}");
        home.ok(&["image", "load", &path]);
        assert_eq!(home.ok(&["run", "--image", &format!("localhost/{form}:1"), "cat", "/app/file"]), "from the base\n", "{form}");
    }
    let layout = home.path("oci").display().to_string();
    assert_eq!(home.ok(&["run", "--image", &layout, "cat", "/app/file"]), "from the base\n", "a layout runs where it lies");
    let odd = home.run(&["image", "load", "/etc/passwd"]);
    assert!(odd.code == 1 && odd.err.contains("/etc/passwd holds no image"), "{odd:?}");
}

#[test]
fn nothing_is_collected_that_something_needs() {
    let home = with_base();
    home.ok(&["run", "-d", "--name", "user", "--image", "base:1", "sleep", "60"]);
    home.ok(&["image", "rm", "base:1"]);
    let collected = json(&home.ok(&["image", "gc", "-o", "json"]));
    assert_eq!(collected["in_use"], 1);
    assert_eq!(home.ok(&["exec", "user", "cat", "/app/file"]), "from the base\n");
    home.ok(&["rm", "-f", "user"]);
    let dry = json(&home.ok(&["image", "gc", "--dry-run", "-o", "json"]));
    let real = json(&home.ok(&["image", "gc", "-o", "json"]));
    assert_eq!(dry, real);
    assert_eq!(real["layers"], 1);
    assert_eq!(json(&home.ok(&["image", "gc", "-o", "json"]))["layers"], 0);
    let gone = home.run(&["run", "--image", "localhost/base:1", "true"]);
    assert_eq!(gone.code, 125);
}

#[test]
fn credentials_and_certificates_are_asked_for_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem 2>/dev/null; \
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout key.pem -out request.pem 2>/dev/null; \
                echo subjectAltName=IP:127.0.0.1 > extensions; \
                openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null; \
                printf 'user:' > passwords; \
                python3 -c 'import crypt; print(crypt.crypt(\"secret\", crypt.METHOD_BLOWFISH))' >> passwords";
    let made = ended(Command::new("sh").args(["-ec", make]).current_dir(directory.path()));
    assert_eq!(made.code, 0, "{made:?}");
    let tls = "  tls: {certificate: DIR/cert.pem, key: DIR/key.pem}\n";
    let registry = Registry::within(directory, "auth: {htpasswd: {realm: test, path: DIR/passwords}}\n", tls);
    let home = with_base();
    let name = format!("{}/app:1", registry.host);
    let refused = home.run(&["image", "push", "base:1", &name]);
    assert!(refused.err.contains("certificate is not trusted") && refused.err.contains("registries: ca"), "{refused:?}");
    let policy = home.path("trust.yaml");
    let ca = registry.path().join("ca.pem").display().to_string();
    fs::write(&policy, format!("version: 1\nregistries:\n- {{host: '{}', ca: {ca}}}\n", registry.host)).expect("written");
    let trust = policy.display().to_string();
    let refused = home.run(&["image", "push", "--trust", &trust, "base:1", &name]);
    assert!(refused.err.contains("401") && refused.err.contains("docker login"), "{refused:?}");
    fs::create_dir(home.path("docker")).expect("made");
    let login = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.host);
    fs::write(home.path("docker/config.json"), login).expect("written");
    let with_login = |words: &[&str]| ended(home.command(words).env("DOCKER_CONFIG", home.path("docker")));
    let pushed = with_login(&["image", "push", "--trust", &trust, "base:1", &name]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let pulled = with_login(&["image", "pull", "--trust", &trust, &name]);
    assert_eq!(pulled.code, 0, "{pulled:?}");
}

#[test]
fn a_full_disk_is_told_and_leaves_the_store_whole() {
    let home = with_base();
    let archive = home.path("image.tar").display().to_string();
    home.ok(&["image", "save", "base:1", &archive]);
    let small = tempfile::tempdir().expect("a directory");
    let mount = |words: &[&str]| assert_eq!(ended(Command::new(words[0]).args(&words[1..])).code, 0);
    let place = small.path().display().to_string();
    mount(&["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", &place]);
    let data = format!("{place}/data");
    let full = home.run(&["--data-dir", &data, "image", "load", &archive]);
    let listed = home.ok(&["--data-dir", &data, "image", "ls", "-q"]);
    let layers = fs::read_dir(format!("{data}/images/layers")).map_or(0, std::iter::Iterator::count);
    mount(&["umount", &place]);
    assert_eq!(full.code, 1);
    assert!(full.err.contains("No space left on device"), "{full:?}");
    assert_eq!((listed.as_str(), layers), ("", 0));
}

#[test]
fn a_layer_of_an_earlier_boot_that_was_never_synced_is_unpacked_again() {
    let home = with_base();
    let layers = home.data().join("images/layers");
    let layer = fs::read_dir(&layers)
        .expect("listed")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("root").is_dir())
        .expect("a layer");
    assert!(!layer.join("boot").exists(), "after an import the disk has it");
    fs::write(layer.join("boot"), "another boot").expect("written");
    fs::remove_file(layer.join("root/app/file")).expect("what the disk lost");
    let told = home.run(&["run", "--image", "base:1", "cat", "/app/file"]);
    assert_eq!((told.code, told.out.as_str()), (0, "from the base\n"), "{told:?}");
}

#[test]
fn a_sandbox_s_changes_are_shown_and_kept_as_an_image() {
    let home = with_base();
    let script = "echo new > /app/new; echo more >> /app/file; rm /etc/group; mkdir -p /opt/a/b; echo ready; sleep 60";
    home.ok(&["run", "-d", "--name", "worker", "-u", "root", "--image", "base:1", "sh", "-c", script]);
    cofferdam_tests::eventually("it is ready", || home.run(&["logs", "worker"]).out.contains("ready"));
    let changes = home.ok(&["diff", "worker"]);
    let expected = "C /app\nC /app/file\nA /app/new\nC /etc\nD /etc/group\nA /opt\nA /opt/a\nA /opt/a/b\n";
    assert_eq!(changes, expected);
    home.ok(&["snapshot", "worker", "kept:1"]);
    home.ok(&["rm", "-f", "worker"]);
    assert_eq!(home.ok(&["run", "--image", "kept:1", "cat", "/app/new", "/app/file"]), "new\nfrom the base\nmore\n");
    let shown = json(&home.ok(&["image", "inspect", "kept:1", "-o", "json"]));
    assert!(shown["verified"]["steps"][0]["found"].as_str().expect("text").contains("snapshot of sandbox"), "{shown}");
    home.ok(&["run", "-d", "--name", "idle", "--image", "base:1", "sleep", "60"]);
    assert_eq!(home.ok(&["diff", "idle"]), "", "what the engine itself puts there is no change");
    home.ok(&["rm", "-f", "idle"]);
    home.ok(&["run", "-d", "--name", "host", "sh", "-c", "echo x > /tmp/x; echo ready; sleep 60"]);
    cofferdam_tests::eventually("it is ready", || home.run(&["logs", "host"]).out.contains("ready"));
    assert_eq!(home.ok(&["diff", "host"]), "C /tmp\nA /tmp/x\n");
    let refused = home.run(&["snapshot", "host", "x:1"]);
    assert!(refused.code == 1 && refused.err.contains("no image of the store"), "{refused:?}");
    home.ok(&["rm", "-f", "host"]);
}

/// A name of this host's must not become the name of somebody else's image because its bytes were lost.
#[test]
fn an_image_that_was_made_here_is_never_fetched_in_its_place() {
    let registry = Registry::start();
    let home = with_base();
    let name = format!("{}/app:1", registry.host);
    home.ok(&["image", "tag", "base:1", &name]);
    home.ok(&["image", "push", "base:1", &name]);
    for lost in ["layers", "blobs"] {
        fs::remove_dir_all(home.data().join("images").join(lost)).expect("removed");
    }
    let refused = home.run(&["run", "--image", &name, "true"]);
    assert!(refused.code == 125 && refused.err.contains("image store"), "{refused:?}");
    home.ok(&["image", "pull", &name]);
    home.ok(&["run", "--image", &name, "true"]);
}
