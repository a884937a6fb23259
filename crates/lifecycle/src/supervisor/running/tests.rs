use super::super::{LOG_BYTES, Request, Streams, Supervisor};
use super::*;
use crate::data::DataDir;
use cofferdam_engine::Usage;
use cofferdam_engine::fake::{FakeEngine, Script};
use cofferdam_model::{Difficulty, ImageRef, NetworkLevel, Phase, SandboxId};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc::unbounded_channel;

fn running() -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_random([1; 16]),
        name: None,
        engine: "fake".into(),
        image: ImageRef::Host,
        command: vec!["true".into()],
        network: NetworkLevel::Isolated,
        limits: Difficulty::Easy.limits(),
        kept: false,
        unenforced: Vec::new(),
        ports: Vec::new(),
        view: None,
        volumes: Vec::new(),
        policy_file: None,
        labels: BTreeMap::new(),
        phase: Phase::Running,
        reason: None,
        detail: None,
        exit_code: None,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: Some(Timestamp::UNIX_EPOCH),
        ended_at: None,
        removed_at: None,
    }
}

#[test]
fn the_end_is_told_as_it_was() {
    let out_of_memory = Observation { out_of_memory_kills: 1, usage: Usage::default(), ..Observation::default() };
    let calm = Observation::default();
    let cases = [
        (None, ExitStatus::Code(0), &calm, Phase::Completed, Reason::Exited, 0),
        (None, ExitStatus::Code(3), &calm, Phase::Completed, Reason::Exited, 3),
        (None, ExitStatus::Signal(11), &calm, Phase::Completed, Reason::Exited, 139),
        (None, ExitStatus::Signal(9), &calm, Phase::Failed, Reason::Killed, 137),
        (None, ExitStatus::Signal(9), &out_of_memory, Phase::Failed, Reason::OutOfMemory, 137),
        (None, ExitStatus::Code(0), &out_of_memory, Phase::Completed, Reason::Exited, 0),
        (Some(Reason::TimeLimit), ExitStatus::Signal(9), &calm, Phase::Timeout, Reason::TimeLimit, 137),
        (Some(Reason::Stopped), ExitStatus::Signal(15), &calm, Phase::Failed, Reason::Stopped, 143),
    ];
    for (why, status, observation, phase, reason, code) in cases {
        let mut record = running();
        settle(&mut record, why, status, observation);
        assert_eq!((record.phase, record.reason, record.exit_code), (phase, Some(reason), Some(code)), "{why:?} {status:?}");
        assert!(record.removed_at.is_some());
    }
}

/// A sandbox of an engine that starts nothing.
fn request(number: u8, root: &Path, health: Option<Health>) -> Request {
    std::fs::create_dir_all(root.join("bin")).expect("made");
    let image = cofferdam_trust::resolve(&ImageRef::Directory(root.to_owned()), root).expect("an image");
    Request {
        id: SandboxId::from_random([number; 16]),
        name: None,
        kept: false,
        actor: "test".into(),
        image_name: ImageRef::Host,
        user: image.user(Some("0")).expect("root"),
        image,
        command: vec![b"true".to_vec()],
        environment: Vec::new(),
        directory: "/".into(),
        limits: Difficulty::Easy.limits(),
        network: NetworkLevel::Isolated,
        gate: None,
        publish: Vec::new(),
        mounts: Vec::new(),
        view: None,
        volumes: Vec::new(),
        directories: Vec::new(),
        files: Vec::new(),
        labels: BTreeMap::new(),
        log_bytes: LOG_BYTES,
        streams: Streams::detached(),
        kept_for: None,
        health,
        unplugged: BTreeSet::new(),
        bare: false,
    }
}

#[tokio::test]
async fn a_sandbox_that_is_not_what_was_started_ends_as_a_failure_of_the_infrastructure() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = DataDir::open(&directory.path().join("data"), || [3; 16]).expect("a data directory");
    let health = Health { file: "/x".into(), every: Duration::from_millis(10), tries: 3 };
    let sick = FakeEngine::new(Script::Run).sick();
    let ended = Supervisor::new(&data, &sick).run(request(2, directory.path(), Some(health.clone())), unbounded_channel()).await;
    let (outcome, _) = ended.expect("runs");
    assert_eq!((outcome.record.phase, outcome.record.reason), (Phase::Failed, Some(Reason::Unhealthy)));
    assert!(Reason::Unhealthy.is_infrastructure() && sick.alive() == 0);

    let well = FakeEngine::new(Script::Run);
    let (sender, receiver) = unbounded_channel();
    let stop = sender.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(100)).await;
        let _ = stop.send(Command::Stop { grace: Duration::from_secs(1) });
    });
    let ended = Supervisor::new(&data, &well).run(request(4, directory.path(), Some(health)), (sender, receiver)).await;
    assert_eq!(ended.expect("runs").0.record.reason, Some(Reason::Stopped), "it was looked at ten times");
}
