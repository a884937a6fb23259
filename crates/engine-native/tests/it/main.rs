//! The native engine on this host: needs root. Every check of the conformance suite, hostile images, unplugged
//! controls; after each, nothing is left.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod every_protocol;
mod failures;
mod hostile_images;
#[path = "../kit/mod.rs"]
mod kit;
mod older_kernels;
mod residue;
mod suite;
mod unplugged;
mod without_overlays;

use cofferdam_engine::conformance::Kit;
use cofferdam_engine_native::NativeEngine;
use kit::{install, kit, probe_program};

/// Everything that a test needs, on a host that is checked for residue at the end.
fn with_kit<T>(work: impl AsyncFnOnce(&Kit<'_>) -> T) -> T {
    with_engine(|engine| engine, work)
}

/// The same with an engine that is changed first.
fn with_engine<T>(change: impl FnOnce(NativeEngine) -> NativeEngine, work: impl AsyncFnOnce(&Kit<'_>) -> T) -> T {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them as root, or through cargo xtask test");
    let before = residue::snapshot();
    let directory = tempfile::Builder::new().prefix("engine").tempdir_in("/var/tmp").expect("a directory");
    let engine = change(NativeEngine::new(install(), directory.path()).expect("an engine"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let result = runtime.block_on(async {
        let (kit, _listener) = kit(&engine, directory.path(), &probe_program());
        work(&kit).await
    });
    drop(runtime);
    drop(engine);
    residue::check(&before);
    result
}
