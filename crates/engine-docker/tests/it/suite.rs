//! The conformance suite.

use crate::daemon::Dockerd;
use crate::{INSTALL, image, kit};
use cofferdam_engine::Engine;
use cofferdam_engine::conformance::{checks, table};
use cofferdam_engine_docker::{Address, DockerEngine};

/// Checks that a daemon cannot pass, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[("ranges_are_disjoint", "all containers of a daemon have the same ids")];

#[test]
fn what_holds_on_native_holds_here() {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them as root, or through cargo xtask test");
    let daemon = Dockerd::start();
    let (content, record) = image();
    let directory = tempfile::Builder::new().prefix("engine").tempdir_in("/var/tmp").expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // One check alone, for who works on it.
    let only = std::env::var("COFFERDAM_CHECK").ok();
    let failed = runtime.block_on(async {
        let engine = DockerEngine::connect(Address::new(&daemon.host()), INSTALL, content.clone(), None).await.expect("an engine");
        engine.daemon().load(&content, &record).await.expect("loaded");
        let (kit, _listener) = kit(&engine, &content, &record, directory.path());
        let mut failed = Vec::new();
        for check in checks() {
            if only.as_deref().is_some_and(|only| only != check.name) {
                continue;
            }
            let begun = std::time::Instant::now();
            let verdict = (check.run)(&kit).await;
            println!("{:?} {} {}", begun.elapsed(), check.name, if verdict.is_ok() { "ok" } else { "FAILED" });
            let exception = EXCEPTIONS.iter().find(|(name, _)| *name == check.name);
            let outcome = exception.map_or_else(|| table::HOLDS.to_owned(), |(_, why)| format!("does not: {why}"));
            match (verdict, exception) {
                (Err(why), None) => failed.push(format!("{}: {why}", check.name)),
                (Ok(()), Some(_)) => failed.push(format!("{}: it holds: it is no exception any more", check.name)),
                _ => table::tell("docker", check.name, &outcome).expect("told"),
            }
            for left in engine.present() {
                engine.sweep(left).await.expect("swept");
            }
        }
        failed
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(daemon.docker(&["ps", "-aq"]).1, "", "no container is left");
    if only.is_none() {
        table::write().expect("the table");
    }
}
