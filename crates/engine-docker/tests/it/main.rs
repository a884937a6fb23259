//! The Docker engine on a daemon of the test's own: needs root, and Debian's docker.io. The conformance suite of the native engine, with
//! named exceptions; controls left out, to show that the suite notices; nothing left behind.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod daemon;
mod suite;

use cofferdam_engine::conformance::Kit;
use cofferdam_engine::{Engine, MountSource};
use cofferdam_model::InstallId;
use cofferdam_trust::content::{Content, ImageRecord};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

const INSTALL: InstallId = InstallId::from_random([0xD0; 16]);
/// The tools that the checks use, and no more.
const BASE: &str = "version: 1\ndebian: {suite: bookworm}\npackages: [hostname, login, procps, util-linux]\nscripts: true\n";

/// The binary under test, built by `cargo xtask test` (or by hand) before the tests.
fn program() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_BIN").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/x86_64-unknown-linux-musl/release/cofferdam");
    let path = given.unwrap_or(built);
    assert!(path.is_file(), "{} is missing: build it with cargo xtask dist, or name it in COFFERDAM_BIN", path.display());
    path
}

/// A store with an image of Debian, made once and kept.
fn image() -> (Content, ImageRecord) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/parts/conformance-image");
    std::fs::create_dir_all(place.join("definition")).expect("a directory");
    let data = place.join("data");
    let run = |words: &[&str]| {
        let ended = Command::new(program()).args(words).env("COFFERDAM_DATA_DIR", &data).output().expect("started");
        assert!(ended.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    let definition = place.join("definition");
    let shown = definition.display().to_string();
    let base = definition.join("base.yaml");
    if std::fs::read_to_string(&base).is_ok_and(|text| text == BASE) && definition.join("lock.json").is_file() {
        // A lock file of an earlier day may name what the mirror has no more: then it is made anew.
        let ended =
            Command::new(program()).args(["image", "build", "-q", &shown]).env("COFFERDAM_DATA_DIR", &data).output().expect("started");
        if !ended.status.success() {
            run(&["image", "lock", "--update", &shown]);
            run(&["image", "build", "-q", &shown]);
        }
    } else {
        std::fs::write(&base, BASE).expect("written");
        run(&["image", "lock", "--update", &shown]);
        run(&["image", "build", "-q", &shown]);
    }
    let content = Content::of(&data);
    let record = content.record(&"localhost/definition:latest".parse().expect("a name")).expect("the image");
    (content, record)
}

fn kit<'a>(engine: &'a dyn Engine, content: &Content, record: &ImageRecord, directory: &Path) -> (Kit<'a>, UnixListener) {
    let image = cofferdam_trust::stored_image(content, record).expect("the image");
    let work = directory.join("work");
    std::fs::create_dir_all(&work).expect("a directory");
    let probe = MountSource::open(&program(), None, Path::new("/nonexistent")).expect("the program");
    let mut kit = Kit::new(engine, image, INSTALL, work.clone(), probe);
    let name = format!("cofferdam-docker-test-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).expect("a name")).expect("a socket");
    let host_file = work.join("host-file");
    std::fs::write(&host_file, "of the host").expect("written");
    let namespaces: Vec<String> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string())
        .collect();
    kit.probe_environment = vec![
        format!("COFFERDAM_PROBE_NAMESPACES={}", namespaces.join(" ")),
        format!("COFFERDAM_PROBE_ABSTRACT={name}"),
        format!("COFFERDAM_PROBE_HOST_FILE={}", host_file.display()),
    ];
    (kit, listener)
}
