//! What the tests of this engine share.

use cofferdam_engine::conformance::Kit;
use cofferdam_engine::{Engine, MountSource};
use cofferdam_model::{ImageRef, InstallId};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// The installation of this process's tests: others run beside them.
pub fn install() -> InstallId {
    let mut bytes = [0xE1; 16];
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    InstallId::from_random(bytes)
}

/// What checks work with. `program` is the binary under test.
pub fn kit<'a>(engine: &'a dyn Engine, directory: &Path, program: &Path) -> (Kit<'a>, UnixListener) {
    let image = cofferdam_trust::resolve(&ImageRef::Host, directory).expect("image host");
    let work = directory.join("work");
    std::fs::create_dir_all(&work).expect("a directory");
    let probe = MountSource::open(program, None, Path::new("/nonexistent")).expect("the program");
    let mut kit = Kit::new(engine, image, install(), work.clone(), probe);
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
pub fn probe_program() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_BIN").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/x86_64-unknown-linux-musl/release/cofferdam");
    let path = given.unwrap_or(built);
    assert!(path.is_file(), "{} is missing: build it with cargo xtask dist, or name it in COFFERDAM_BIN", path.display());
    path
}
