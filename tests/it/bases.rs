//! Described bases: packages of the host's own Debian mirror, twice the same digest; archives that lie; what is attached to an image.

use cofferdam_tests::registry::{Answering, Registry};
use cofferdam_tests::{Ended, Home, ended};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PLAIN: &str = "version: 1
debian: {suite: bookworm}
packages: [busybox-static, ca-certificates]
users: [{name: agent, uid: 10001}]
files:
- {path: /bin/sh, link: /bin/busybox}
- {path: /workspace, directory: true, owner: '10001', mode: '0700'}
- {path: /etc/greeting, source: greeting.txt}
- {path: /etc/ca-certificates/empty, text: ''}
env: {GREETING: hello}
user: agent
workdir: /workspace
labels: {a: b}
";

const WHOLE: &str = "version: 1
debian: {suite: bookworm}
packages: [adduser, openssh-client]
scripts: true
users: [{name: agent, uid: 10001}]
files: [{path: /etc/motd, text: replaced}]
";

fn definition(home: &Home, name: &str, base: &str) -> PathBuf {
    let place = home.path(name);
    fs::create_dir_all(&place).expect("made");
    fs::write(place.join("base.yaml"), base).expect("written");
    fs::write(place.join("greeting.txt"), "hello\n").expect("written");
    place
}

fn digest(home: &Home, image: &str) -> String {
    let record: Value = serde_json::from_str(&home.ok(&["image", "inspect", image, "-o", "json"])).expect("JSON");
    record["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn packages_without_their_scripts() {
    let home = Home::new();
    let place = definition(&home, "plain", PLAIN);
    let shown = place.display().to_string();
    let missing = home.run(&["image", "build", &shown]);
    assert!(missing.code == 1 && missing.err.contains("image lock --update"), "{missing:?}");
    home.ok(&["image", "lock", "--update", &shown]);
    assert!(home.ok(&["image", "lock", &shown]).contains("up to date"));
    home.ok(&["image", "build", "-q", &shown]);
    let first = digest(&home, "localhost/plain");
    let other = Home::new();
    other.ok(&["image", "build", "-q", "-t", "other:1", &shown]);
    assert_eq!(digest(&other, "other:1"), first, "the same on an installation of its own");
    let script = "id -un; pwd; cat /etc/greeting; echo $GREETING; stat -c %a .; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt; ls /var/lib/dpkg/status.d | head -n 2; test ! -e /usr/bin/dpkg && echo none";
    let out = home.ok(&["run", "--image", "localhost/plain", "/bin/sh", "-c", script]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        (&lines[..5], &lines[6..]),
        (&["agent", "/workspace", "hello", "hello", "700"][..], &["busybox-static", "ca-certificates", "none"][..]),
        "{out}"
    );
    assert!(lines[5].parse::<u32>().expect("a number") > 100, "{out}");
    as_umoci_sees_it(&home, "localhost/plain");
    // Another definition makes the lock file stale; the archive's answer mends it.
    fs::write(place.join("base.yaml"), PLAIN.replace("busybox-static, ", "busybox-static, tzdata, ")).expect("written");
    let stale = home.run(&["image", "build", &shown]);
    assert!(stale.code == 1 && stale.err.contains("was made from another base.yaml"), "{stale:?}");
    let compared = home.run(&["image", "lock", &shown]);
    assert!(compared.code == 1 && compared.out.contains("amd64 tzdata: new") && compared.out.contains("arm64 tzdata: new"), "{compared:?}");
}

/// Every path of the image with its kind, mode and owner: as umoci unpacks it, and as a sandbox shows it.
fn as_umoci_sees_it(home: &Home, image: &str) {
    let archive = home.path("image.tar").display().to_string();
    home.ok(&["image", "save", image, &archive]);
    let layout = home.path("layout").display().to_string();
    let made = ended(Command::new("sh").args([
        "-c",
        &format!(
            "mkdir {layout} && tar -C {layout} -xf {archive} && umoci unpack --image {layout}:$(umoci ls --layout {layout}) {layout}-bundle"
        ),
    ]));
    assert_eq!(made.code, 0, "{made:?}");
    let list = "/bin/busybox find . -xdev -mindepth 1 -exec /bin/busybox stat -c '%n %A %u:%g' {} +";
    let theirs = ended(Command::new("sh").args(["-c", &format!("cd {layout}-bundle/rootfs && {list}")]));
    home.ok(&["run", "-d", "--name", "shown", "--user", "root", "--image", image, "/bin/busybox", "sleep", "60"]);
    let ours = home.ok(&["exec", "--user", "root", "shown", "/bin/busybox", "sh", "-c", &format!("cd / && {list}")]);
    home.ok(&["rm", "-f", "shown"]);
    // What a sandbox has of its own.
    let own =
        ["./dev", "./proc", "./sys", "./etc/hosts", "./etc/hostname", "./etc/resolv.conf", "./etc/passwd", "./etc/group", "./workspace"];
    let kept = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default();
        !own.iter().any(|own| name == *own || name.starts_with(&format!("{own}/")))
    };
    let only = |a: &str, b: &str| -> Vec<String> {
        let known: std::collections::BTreeSet<&str> = b.lines().collect();
        a.lines().filter(kept).filter(|line| !known.contains(line)).map(str::to_owned).collect()
    };
    let different = [only(&theirs.out, &ours), only(&ours, &theirs.out)];
    assert!(theirs.out.lines().count() > 100 && different.iter().all(Vec::is_empty), "{different:?}");
}

#[test]
fn packages_with_their_scripts() {
    let home = Home::new();
    let place = definition(&home, "whole", WHOLE);
    fs::write(
        place.join("Dockerfile"),
        "FROM base\nRUN --network=none adduser --disabled-password --gecos '' web && addgroup team && adduser web team\nUSER web\n",
    )
    .expect("written");
    let shown = place.display().to_string();
    home.ok(&["image", "lock", "--update", &shown]);
    home.ok(&["image", "build", "-q", &shown]);
    let first = digest(&home, "localhost/whole-base");
    home.ok(&["image", "build", "-q", "--no-cache", &shown]);
    assert_eq!(digest(&home, "localhost/whole-base"), first, "scripts leave nothing that depends on the time");
    let out = home.ok(&[
        "run",
        "--image",
        "localhost/whole",
        "sh",
        "-c",
        "id -nG; dpkg --audit; dpkg -l | grep -c ^ii; cat /etc/motd; ls /run/packages 2>&1 | wc -l; getent group _ssh | cut -d: -f1",
    ]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("web users team", "replaced1", "_ssh"), "{out}");
    assert!(lines[1].parse::<u32>().expect("a number") > 60, "{out}");
    let layers = fs::read_dir(home.data().join("images/layers")).expect("layers").flatten();
    let left: Vec<_> = layers.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy() != "empty").collect();
    assert!(left.len() <= 4, "what only led to the base is gone: {left:?}");
}

/// A mirror that hands on what the real one has, changed as the test wants.
fn mirror(change: &str) -> Answering {
    let sources = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
    let text: String = sources.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let url = lines
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && !word.contains("security"))
        .expect("this host names a mirror")
        .trim_end_matches('/');
    Answering::start(&format!(
        r#"
import urllib.request
def fetch(path):
    for attempt in range(8):
        try:
            return 200, urllib.request.urlopen("{url}" + path).read()
        except urllib.error.HTTPError as error:
            return error.code, b""
        except OSError:
            time.sleep(0.5)
def answer(method, path, headers):
    status, body = fetch(path)
{change}
    return status, {{}}, body
"#
    ))
}

fn through(home: &Home, mirror: &Answering, words: &[&str]) -> Ended {
    let config = home.path("config.yaml");
    fs::write(&config, format!("debian: {{mirror: 'http://{}/'}}\n", mirror.host)).expect("written");
    let output = home.command(words).env("COFFERDAM_CONFIG_PATH", &config).output().expect("started");
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn archives_that_lie_are_not_believed() {
    let home = Home::new();
    let place = definition(&home, "plain", "version: 1\ndebian: {suite: bookworm}\npackages: [busybox-static]\n");
    let shown = place.display().to_string();
    let lock = ["image", "lock", "--update", shown.as_str()];
    let lies = [
        ("    if path.endswith('InRelease'): body = body.replace(b'Origin: Debian', b'Origin: Debean')", "is not signed by a key of"),
        ("    if path.endswith('InRelease'): body = body.split(b'-----BEGIN PGP SIGNATURE')[0]", "is not signed by a key of"),
        ("    if path.endswith('dists/bookworm/InRelease'): status, body = fetch('/dists/trixie/InRelease')", "release of another suite"),
        (
            "    if path.endswith('dists/bookworm-updates/InRelease'): status, body = fetch('/dists/bookworm/InRelease')",
            "release of another suite",
        ),
        ("    if 'by-hash' in path: body = body[:-1] + bytes([body[-1] ^ 1])", "other bytes than the release says"),
        ("    if 'by-hash' in path: status, body = 404, b''", "has no"),
    ];
    for (change, message) in lies {
        let refused = through(&home, &mirror(change), &lock);
        assert!(refused.code == 1 && refused.err.contains(message), "{change}: {refused:?}");
        assert!(!place.join("lock.json").exists(), "{change}");
    }
    assert_eq!(through(&home, &mirror(""), &lock).code, 0);
    let lies = [
        ("    if path.endswith('.deb'): body = body[:-1] + bytes([body[-1] ^ 1])", "the lock file says sha256:"),
        ("    if path.endswith('.deb'): body = body + b'more'", "it is larger than"),
        ("    if path.endswith('.deb'): status, body = 404, b''", "is in the archive no more"),
    ];
    for (change, message) in lies {
        let refused = through(&home, &mirror(change), &["image", "build", &shown]);
        assert!(refused.code == 1 && refused.err.contains(message), "{change}: {refused:?}");
        assert_eq!(home.ok(&["image", "ls", "-q"]), "");
    }
    assert_eq!(through(&home, &mirror(""), &["image", "build", "-q", &shown]).code, 0);
}

#[test]
fn what_is_attached_is_verified_elsewhere() {
    let (registry, home) = (Registry::start(), Home::new());
    let place = home.path("app");
    fs::create_dir(&place).expect("made");
    fs::write(place.join("base.yaml"), "version: 1\nfiles: [{path: /etc/app, text: app}]\n").expect("written");
    fs::write(place.join("Dockerfile"), "FROM base\nCOPY --from=cofferdam /cofferdam /usr/bin/cofferdam\nCOPY status /var/lib/dpkg/status\nENTRYPOINT [\"/usr/bin/cofferdam\"]\n").expect("written");
    fs::write(place.join("status"), "Package: tool\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n").expect("written");
    let made = ended(Command::new("sh").current_dir(home.path("")).args([
        "-c",
        "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out ours.pub && openssl genrsa -out rsa.pem 2048",
    ]));
    assert_eq!(made.code, 0, "{made:?}");
    let (shown, key) = (place.display().to_string(), home.path("key.pem").display().to_string());
    let wrong = home.run(&["image", "build", "--sign-key", &home.path("rsa.pem").display().to_string(), &shown]);
    assert!(wrong.code == 1 && wrong.err.contains("no private key on P-256"), "{wrong:?}");
    home.ok(&["image", "build", "-q", "--sign-key", &key, "--builder-id", "https://ci.example/builder", &shown]);
    assert_eq!(home.ok(&["run", "--image", "localhost/app", "version"]), home.ok(&["version"]));
    let name = format!("{}/acme/app:1", registry.host);
    home.ok(&["image", "gc"]);
    home.ok(&["image", "push", "localhost/app", &name]);
    home.ok(&["image", "push", "localhost/app", &name]);
    let pull = |entry: &str| {
        let other = Home::new();
        let policy = home.path("trust.yaml");
        fs::write(&policy, format!("version: 1\nimages:\n- {{match: '{}/acme', {entry}}}\n", registry.host)).expect("written");
        other.run(&["image", "pull", "--trust", &policy.display().to_string(), &name])
    };
    assert_eq!(pull("rule: keyed, keys: [ours.pub]").code, 0);
    assert_eq!(pull("rule: provenance, keys: [ours.pub], builder: 'https://ci.example/builder'").code, 0);
    let other = pull("rule: provenance, keys: [ours.pub], builder: 'https://other.example/builder'");
    assert!(other.code == 1 && other.err.contains("built by https://ci.example/builder"), "{other:?}");
    let image = format!("{}/acme/app@{}", registry.host, digest(&home, "localhost/app"));
    for kind in ["cyclonedx", "spdxjson", "slsaprovenance1"] {
        let verified = cosign(&home.path(""), &["--type", kind, &image]);
        assert!(verified.code == 0, "{kind}: {verified:?}");
    }
    for (format, version) in [("cyclonedx", "1.6"), ("spdx", "SPDX-2.3")] {
        let bill = home.ok(&["image", "sbom", "--format", format, "localhost/app"]);
        assert!(bill.contains(version) && bill.contains("pkg:deb/debian/tool@1.0-1?arch=amd64"), "{bill}");
    }
    // Without a key the documents are there, and vouch for nothing.
    home.ok(&["image", "build", "-q", "--attest", "-t", "plain:1", &shown]);
    let record: Value = serde_json::from_str(&home.ok(&["image", "inspect", "plain:1", "-o", "json"])).expect("JSON");
    let kinds: Vec<&str> = record["attached"].as_array().expect("a list").iter().filter_map(|one| one["artifactType"].as_str()).collect();
    assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.in-toto+json"]);
}

/// cosign's own opinion of what stands in the registry.
fn cosign(place: &Path, words: &[&str]) -> Ended {
    let root = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[],"certificateAuthorities":[],"ctlogs":[],"timestampAuthorities":[]}"#;
    fs::write(place.join("root.json"), root).expect("written");
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/parts/usr/bin/cosign"));
    let mut command = Command::new(program);
    command.args([
        "verify-attestation",
        "--key",
        "ours.pub",
        "--insecure-ignore-tlog",
        "--new-bundle-format",
        "--trusted-root",
        "root.json",
    ]);
    ended(command.arg("--allow-insecure-registry").args(words).current_dir(place).env("HOME", place).env("PATH", "/usr/bin:/bin"))
}
