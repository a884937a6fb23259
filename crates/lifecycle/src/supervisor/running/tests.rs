use super::*;
use cofferdam_engine::Usage;
use cofferdam_model::{Difficulty, ImageRef, NetworkLevel, Phase, SandboxId};
use std::collections::BTreeMap;

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
