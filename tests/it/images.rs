//! Images: from a real registry to a running sandbox; what registries get wrong; what the store survives.

use cofferdam_tests::registry::{Answering, Registry, busybox_root};
use cofferdam_tests::{Home, ended};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// A home with an image `base:1` in its store.
fn with_base() -> Home {
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

/// A registry with one image, of which a test spoils something.
const IMAGE: &str = r#"
import gzip, io, tarfile
def digest(b): return "sha256:" + hashlib.sha256(b).hexdigest()
out = io.BytesIO(); t = tarfile.open(fileobj=out, mode="w"); i = tarfile.TarInfo("bin/x"); i.size = 3; t.addfile(i, io.BytesIO(b"abc")); t.close()
plain = out.getvalue(); layer = gzip.compress(plain, mtime=0)
arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
config = json.dumps({"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(plain)]}}).encode()
M = "application/vnd.oci.image.manifest.v1+json"
def made(config, layer, size=None):
    return json.dumps({"schemaVersion": 2, "mediaType": M, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(layer), "size": size or len(layer)}]}).encode()
manifest = made(config, layer)
def good(path, manifest=manifest, config=config, layer=layer):
    if "/manifests/1" in path or digest(manifest) in path: return 200, {"Content-Type": M}, manifest
    if digest(config) in path: return 200, {}, config
    if digest(layer) in path: return 200, {}, layer
    return 404, {}, b"{}"
"#;

#[track_caller]
fn pull_is_refused(answer: &str, parts: &[&str]) {
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    let refused = home.run(&["image", "pull", &format!("{}/app:1", server.host)]);
    assert_eq!(refused.code, 1, "{answer}: {refused:?}");
    for part in parts {
        assert!(refused.err.contains(part), "{answer}: {refused:?}");
    }
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    let listed = home.ok(&["image", "ls", "-q"]);
    assert_eq!(listed, "", "nothing has a name");
    let layers = home.data().join("images/layers");
    let left = fs::read_dir(&layers).map_or(0, std::iter::Iterator::count);
    assert_eq!(left, 0, "no layer is left");
}

#[test]
fn a_registry_that_is_whole_serves() {
    let server = Answering::start(&format!("{IMAGE}\ndef answer(method, path, headers): return good(path)"));
    let home = Home::new();
    home.ok(&["image", "pull", &format!("{}/app:1", server.host)]);
}

#[test]
fn what_registries_get_wrong_is_refused_with_its_reason() {
    pull_is_refused("def answer(m, p, h): return 404, {}, b'{}'", &["has no image app:1", "check the name"]);
    pull_is_refused("def answer(m, p, h): return 403, {}, b'{}'", &["refuses image app:1: 403"]);
    pull_is_refused("def answer(m, p, h): return 429, {'Retry-After': '0'}, b'{}'", &["limits how much"]);
    pull_is_refused("def answer(m, p, h): return 501, {}, b'{}'", &["answers 501"]);
    pull_is_refused("def answer(m, p, h): return 200, {'Content-Type': 'text/html'}, b'<html>'", &["not valid"]);
    pull_is_refused("def answer(m, p, h): return 200, {'Content-Type': M}, b'x' * (5 << 20)", &["larger than"]);
    pull_is_refused(
        "def answer(m, p, h): return 200, {'Content-Type': 'application/vnd.docker.distribution.manifest.v1+prettyjws'}, b'{}'",
        &["not supported"],
    );
    pull_is_refused("def answer(m, p, h): return 302, {'Location': 'ftp://127.0.0.1/x'}, b''", &["redirects to ftp:", "refused"]);
    pull_is_refused("def answer(m, p, h): return 302, {'Location': p}, b''", &["too many redirects"]);
    pull_is_refused(
        "big = made(config, layer, 10**15)\ndef answer(m, p, h): return good(p, manifest=big)",
        &["fewer bytes than the manifest says"],
    );
    pull_is_refused(
        "big = made(config, layer, 10)\ndef answer(m, p, h): return good(p, manifest=big)",
        &["more bytes than the manifest says"],
    );
}

#[test]
fn bytes_that_are_not_the_promised_ones_are_refused() {
    let spoiled = "def answer(m, p, h):\n  s, hs, b = good(p)\n";
    pull_is_refused(
        &format!("{spoiled}  return (s, hs, b[:-9] + b'x' + b[-8:]) if digest(layer) in p else (s, hs, b)"),
        &["other bytes than the manifest says"],
    );
    pull_is_refused(
        &format!("{spoiled}  return (s, hs, b.replace(b'linux', b'minux')) if digest(config) in p else (s, hs, b)"),
        &["it sent other bytes"],
    );
    // The layer is whole; its contents are not those of the configuration.
    pull_is_refused(
        "other = config.replace(digest(plain).encode(), digest(b'x').encode())\nm2 = made(other, layer)\ndef answer(m, p, h): return good(p, manifest=m2, config=other)",
        &["the configuration says"],
    );
    pull_is_refused(
        "two = json.loads(config); two['rootfs']['diff_ids'] *= 2; two = json.dumps(two).encode()\nm2 = made(two, layer)\ndef answer(m, p, h): return good(p, manifest=m2, config=two)",
        &["lists 1 layers, the configuration 2"],
    );
    pull_is_refused(
        "far = config.replace(arch.encode(), b'riscv64')\nm2 = made(far, layer)\ndef answer(m, p, h): return good(p, manifest=m2, config=far)",
        &["linux/riscv64", "this machine is"],
    );
}

#[test]
fn indexes_are_not_trusted_either() {
    let index = "def index(entries): return 200, {'Content-Type': 'application/vnd.oci.image.index.v1+json'}, json.dumps({'schemaVersion': 2, 'manifests': entries}).encode()\n";
    let entry = "def entry(d, size, a=arch, t=M): return {'mediaType': t, 'digest': d, 'size': size, 'platform': {'architecture': a, 'os': 'linux'}}\n";
    let both = format!("{index}{entry}");
    pull_is_refused(
        &format!(
            "{both}def answer(m, p, h): return index([entry(digest(manifest), len(manifest), 'riscv64')]) if p.endswith('/1') else good(p)"
        ),
        &["is for linux/riscv64"],
    );
    pull_is_refused(
        &format!("{both}def answer(m, p, h): return index([entry(digest(manifest), 7)]) if p.endswith('/1') else good(p)"),
        &["another size than the index says"],
    );
    pull_is_refused(
        &format!(
            "{both}def answer(m, p, h): return index([entry(digest(b'x'), len(manifest))]) if p.endswith('/1') else (200, {{'Content-Type': M}}, manifest)"
        ),
        &["it sent bytes with digest"],
    );
    pull_is_refused(
        &format!(
            "{both}inner = index([])[2]\ndef answer(m, p, h):\n  if p.endswith('/1'): return index([entry(digest(inner), len(inner), arch, 'application/vnd.oci.image.index.v1+json')])\n  return 200, {{'Content-Type': 'application/vnd.oci.image.index.v1+json'}}, inner"
        ),
        &["points at another index"],
    );
    pull_is_refused(&format!("{both}def answer(m, p, h): return index([])"), &["is for ; this machine"]);
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    // Every answer breaks off after a third of what is left; a range is served from its offset.
    let answer = r#"
import random
noise = random.Random(1).randbytes(300000); o2 = io.BytesIO(); t2 = tarfile.open(fileobj=o2, mode="w"); i2 = tarfile.TarInfo("bin/noise"); i2.size = len(noise); t2.addfile(i2, io.BytesIO(noise)); t2.close()
big = o2.getvalue()
c2 = json.dumps({"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(big)]}}).encode()
m2 = made(c2, big)
seen = []
def answer(m, p, h):
    if digest(big) not in p: return good(p, manifest=m2, config=c2)
    at = int(h.get("Range", "bytes=0-").split("=")[1].split("-")[0]); seen.append(at)
    rest = big[at:]
    cut = rest if len(seen) > 3 else rest[:len(rest) // 3]
    return (206 if at else 200), {"Content-Length": str(len(rest)), "X-Break": "1"}, cut
"#;
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    home.ok(&["image", "pull", &format!("{}/app:1", server.host)]);
    let partial: Vec<_> = fs::read_dir(home.data().join("images/partial")).expect("listed").collect();
    assert!(partial.is_empty(), "{partial:?}");
}

#[test]
fn two_at_once_fetch_a_layer_once() {
    let answer = "count = [0]\ndef answer(m, p, h):\n  if digest(layer) in p: count[0] += 1; time.sleep(0.5)\n  if p == '/count': return 200, {}, str(count[0]).encode()\n  return good(p)";
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    home.ok(&["image", "ls"]);
    let name = format!("{}/app:1", server.host);
    let mut both: Vec<_> = (0..2).map(|_| home.command(&["image", "pull", &name]).spawn().expect("started")).collect();
    assert!(both.iter_mut().all(|child| child.wait().expect("ended").success()));
    let asked = ended(Command::new("curl").args(["-s", &format!("http://{}/count", server.host)]));
    assert_eq!(asked.out, "1");
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

#[test]
fn a_mirror_is_asked_first_and_the_registry_where_it_fails() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let home = with_base();
    for host in [&mirror.host, &registry.host] {
        home.ok(&["image", "push", "base:1", &format!("{host}/app:1")]);
    }
    let name = format!("{}/app:1", registry.host);
    let policy = home.path("trust.yaml");
    let host = registry.host.clone();
    let text = |mirrors: &str| format!("version: 1\nregistries:\n- {{host: '{host}', mirrors: [{mirrors}]}}\n");
    let trust = policy.display().to_string();
    let pull = || Home::new().run(&["image", "pull", "-q", "--trust", &trust, &name]);
    fs::write(&policy, text("'127.0.0.1:1'")).expect("written");
    let around = pull();
    assert_eq!(around.code, 0, "a mirror that is gone does not matter: {around:?}");
    fs::write(&policy, text(&format!("'127.0.0.1:1', '{}'", mirror.host))).expect("written");
    drop(registry);
    let from_mirror = pull();
    assert!(from_mirror.code == 0 && from_mirror.out.starts_with(&name), "under the name that was asked for: {from_mirror:?}");
    drop(mirror);
    let gone = pull();
    assert!(gone.code == 1 && gone.err.contains("cannot be reached"), "{gone:?}");
}

#[test]
fn a_credential_helper_is_asked_and_its_failure_told() {
    // Wants user:secret as basic authentication.
    let answer = "import base64\nwanted = 'Basic ' + base64.b64encode(b'user:secret').decode()\n\
                  def answer(m, p, h):\n  if h.get('Authorization') != wanted: return 401, {'WWW-Authenticate': 'Basic realm=\"x\"'}, b'{}'\n  return good(p)";
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    fs::create_dir_all(home.path("docker")).expect("made");
    let config = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, server.host);
    fs::write(home.path("docker/config.json"), config).expect("written");
    let helper = home.path("bin");
    fs::create_dir(&helper).expect("made");
    let program = helper.join("docker-credential-test");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(&program, text).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
    };
    let name = format!("{}/app:1", server.host);
    let path = format!("{}:/usr/bin:/bin", helper.display());
    let pull = || ended(home.command(&["image", "pull", "-q", &name]).env("DOCKER_CONFIG", home.path("docker")).env("PATH", &path));
    write("#!/bin/sh\necho 'cannot open the vault'; exit 1\n");
    let failed = pull();
    assert!(failed.code == 1 && failed.err.contains("docker-credential-test failed: cannot open the vault"), "{failed:?}");
    write(&format!(
        "#!/bin/sh\nread -r host; test \"$host\" = '{}' || exit 2\necho '{{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}}'\n",
        server.host
    ));
    let pulled = pull();
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert!(!pulled.err.contains("secret"));
}

/// A token service of another host, as public registries have it.
#[test]
fn a_token_is_fetched_where_the_registry_says() {
    let answer = "def answer(m, p, h):\n  \
                  if p.startswith('/token'): return (200, {}, b'{\"token\": \"T\"}') if 'scope=repository%3Aapp%3Apull' in p else (400, {}, b'')\n  \
                  if h.get('Authorization') != 'Bearer T': return 401, {'WWW-Authenticate': 'Bearer realm=\"http://%s/token\",service=\"s\"' % h['Host']}, b'{}'\n  \
                  return good(p)";
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    home.ok(&["image", "pull", &format!("{}/app:1", server.host)]);
}

/// A blob that is kept elsewhere is fetched there, without the registry's credentials.
#[test]
fn a_redirect_takes_no_credentials_along() {
    let elsewhere =
        Answering::start(&format!("{IMAGE}\ndef answer(m, p, h): return (500, {{}}, b'') if h.get('Authorization') else good(p)"));
    let answer = format!(
        "def answer(m, p, h):\n  \
         if p.startswith('/token'): return 200, {{}}, b'{{\"token\": \"T\"}}'\n  \
         if h.get('Authorization') != 'Bearer T': return 401, {{'WWW-Authenticate': 'Bearer realm=\"http://%s/token\"' % h['Host']}}, b'{{}}'\n  \
         return (307, {{'Location': 'http://{}' + p}}, b'') if '/blobs/' in p else good(p)",
        elsewhere.host
    );
    let server = Answering::start(&format!("{IMAGE}\n{answer}"));
    let home = Home::new();
    home.ok(&["image", "pull", &format!("{}/app:1", server.host)]);
}
