//! What registries get wrong, and how they are reached: mirrors, credentials, redirects, broken transfers.

use crate::images::with_base;
use cofferdam_tests::registry::{Answering, Registry};
use cofferdam_tests::{Home, ended};
use std::fs;
use std::process::Command;

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

/// Tunnels every CONNECT to one port of the host, and says in `targets` what was asked for.
const PROXY: &str = r#"
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError: pass
def serve(client):
    head = b""
    while b"\r\n\r\n" not in head: head += client.recv(4096)
    open("targets", "ab").write(head.split(b"\r\n")[0] + b"\n")
    server = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A registry that no name server knows: only the proxy leads there, and only its own authority vouches for it.
#[test]
fn a_proxy_and_a_certificate_authority_of_one_s_own() {
    let place = tempfile::tempdir().expect("a directory");
    let made = ended(Command::new("sh").current_dir(place.path()).args([
        "-c",
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -subj /CN=ours -days 2 && \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out csr.pem -subj /CN=registry.test && \
         printf 'subjectAltName=DNS:registry.test\\nbasicConstraints=CA:FALSE\\n' > ext && \
         openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -days 2 -out cert.pem",
    ]));
    assert_eq!(made.code, 0, "{made:?}");
    let registry = Registry::within(place, "", "  tls: {certificate: cert.pem, key: key.pem}\n");
    let port = registry.host.rsplit(':').next().expect("a port").to_owned();
    fs::write(registry.path().join("proxy.py"), PROXY).expect("written");
    let proxy = cofferdam_tests::registry::free_port().to_string();
    let mut child = Command::new("python3").args(["proxy.py", &proxy, &port]).current_dir(registry.path()).spawn().expect("started");
    cofferdam_tests::eventually("the proxy listens", || std::net::TcpStream::connect(format!("127.0.0.1:{proxy}")).is_ok());
    let home = Home::new();
    cofferdam_tests::registry::busybox_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    let policy = home.path("trust.yaml");
    let through = |words: &[&str], authority: &str| {
        fs::write(&policy, format!("version: 1\nregistries: [{{host: 'registry.test:5443'{authority}}}]\n")).expect("written");
        let url = format!("http://127.0.0.1:{proxy}");
        ended(home.command(words).env("HTTPS_PROXY", url).env("COFFERDAM_TRUST", &policy))
    };
    let (push, pull) = (["image", "push", "base:1", "registry.test:5443/app:1"], ["image", "pull", "registry.test:5443/app:1"]);
    let unknown = through(&pull, "");
    assert!(unknown.code == 1 && unknown.err.contains("certificate is not trusted") && unknown.err.contains("trust.yaml"), "{unknown:?}");
    let authority = format!(", ca: '{}'", registry.path().join("ca.pem").display());
    let pushed = through(&push, &authority);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let pulled = through(&pull, &authority);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let without = ended(home.command(&pull).env("COFFERDAM_TRUST", &policy));
    assert!(without.code == 1 && without.err.contains("cannot be reached"), "{without:?}");
    let targets = fs::read_to_string(registry.path().join("targets")).expect("targets");
    assert!(targets.lines().all(|line| line.starts_with("CONNECT registry.test:5443 ")), "{targets}");
    let _ = child.kill();
    let _ = child.wait();
}
