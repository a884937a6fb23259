//! The native engine on this host: needs root. Every check of the conformance suite, hostile images, unplugged
//! controls; after each, nothing is left.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod hostile_images;
mod residue;
mod suite;
mod unplugged;

use cofferdam_engine::conformance::Kit;
use cofferdam_engine::{Engine, MountSource};
use cofferdam_engine_native::NativeEngine;
use cofferdam_model::{ImageRef, InstallId};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

const INSTALL: InstallId = InstallId::from_random([0xE1; 16]);

/// Everything that a test needs, on a host that is checked for residue at the end.
fn with_kit<T>(work: impl AsyncFnOnce(&Kit<'_>) -> T) -> T {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them as root, or through cargo xtask test");
    let before = residue::snapshot();
    let directory = tempfile::Builder::new().prefix("engine").tempdir_in("/var/tmp").expect("a directory");
    let engine = NativeEngine::new(INSTALL, directory.path()).expect("an engine");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let result = runtime.block_on(async {
        let (kit, _listener) = kit(&engine, directory.path());
        work(&kit).await
    });
    drop(runtime);
    drop(engine);
    residue::check(&before);
    result
}

fn kit<'a>(engine: &'a dyn Engine, directory: &Path) -> (Kit<'a>, UnixListener) {
    let image = cofferdam_trust::resolve(&ImageRef::Host, directory).expect("image host");
    let work = directory.join("work");
    std::fs::create_dir_all(&work).expect("a directory");
    let probe = MountSource::open(&probe_program(), None, Path::new("/nonexistent")).expect("the program");
    let mut kit = Kit::new(engine, image, INSTALL, work.clone(), probe);
    let name = format!("cofferdam-test-{}", std::process::id());
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

/// The binary under test, built by `cargo xtask test` (or by hand) before the tests.
fn probe_program() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_BIN").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/x86_64-unknown-linux-musl/release/cofferdam");
    let path = given.unwrap_or(built);
    assert!(path.is_file(), "{} is missing: build it with cargo xtask dist, or name it in COFFERDAM_BIN", path.display());
    path
}
