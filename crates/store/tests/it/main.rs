//! The records, against a real database file.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod journal;

use cofferdam_model::{AttemptId, Difficulty, ImageRef, NetworkLevel, NewEvent, Phase, Reason, SandboxId, SandboxRecord, Timestamp};
use cofferdam_store::{AttemptRecord, Due, Durability, EventFilter, Match, Store, StoreError};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn record(digit: u8, name: Option<&str>) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_random([digit; 16]),
        name: name.map(|name| name.parse().expect("a name")),
        engine: "native".into(),
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
        phase: Phase::Creating,
        reason: None,
        detail: None,
        exit_code: None,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        ended_at: None,
        removed_at: None,
    }
}

fn event(kind: &str, record: &SandboxRecord) -> NewEvent {
    NewEvent {
        time: Timestamp::UNIX_EPOCH,
        actor: "cofferdam".into(),
        subject: format!("sandbox:{}", record.id),
        kind: kind.into(),
        rule: None,
        reason: None,
        data: serde_json::Value::Null,
    }
}

fn store(directory: &tempfile::TempDir) -> Store {
    Store::open(&directory.path().join("cofferdam.db")).expect("opens")
}

/// Threads with connections of their own stand for processes: each opens the file itself.
#[test]
fn many_that_find_no_database_make_one() {
    for round in 0..100 {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new.db");
        std::thread::scope(|scope| {
            for digit in 1..=8 {
                let path = &path;
                scope.spawn(move || {
                    // Who comes a little later finds the file while another is just making it a database.
                    std::thread::sleep(std::time::Duration::from_micros(u64::from(digit) * 40 * (round % 20)));
                    let mut store = Store::open(path).expect("opened");
                    let record = record(digit, None);
                    store.sandbox_insert(&record, &[event("sandbox.created", &record)], Durability::Normal).expect("written");
                });
            }
        });
        assert_eq!(Store::open(&path).expect("opened").sandbox_list().expect("listed").len(), 8);
    }
}

#[test]
fn a_name_is_free_again_after_removal() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let first = record(1, Some("web"));
    store.sandbox_insert(&first, &[], Durability::Normal).expect("inserted");
    let refused = store.sandbox_insert(&record(2, Some("web")), &[], Durability::Normal);
    assert!(matches!(refused, Err(StoreError::NameInUse { holder, .. }) if holder == first.id));
    let removed = SandboxRecord { removed_at: Some(Timestamp::UNIX_EPOCH), ..first };
    assert!(store.sandbox_update(&removed, &[], Durability::Full).expect("updated"));
    store.sandbox_insert(&record(2, Some("web")), &[], Durability::Normal).expect("the name is free");
}

#[test]
fn references_find_one_none_or_several() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let mut ids = [[0xAB; 16], [0xAB; 16]];
    ids[1][15] = 0;
    for id in ids {
        let record = SandboxRecord { id: SandboxId::from_random(id), ..record(0, None) };
        store.sandbox_insert(&record, &[], Durability::Normal).expect("inserted");
    }
    assert!(matches!(store.sandbox_find("abab"), Ok(Match::Several(found)) if found.len() == 2));
    assert!(matches!(store.sandbox_find(&"ab".repeat(16)), Ok(Match::One(_))));
    for reference in ["", "ab", "zzzz", "ABAB", "%", "abab%", "' OR 1=1"] {
        assert!(matches!(store.sandbox_find(reference), Ok(Match::None)), "{reference}");
    }
}

#[test]
fn a_final_phase_is_not_left_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let first = record(3, None);
    store.sandbox_insert(&first, &[], Durability::Normal).expect("inserted");
    let ended = SandboxRecord { phase: Phase::Completed, exit_code: Some(0), ..first.clone() };
    assert!(store.sandbox_update(&ended, &[], Durability::Full).expect("updated"));
    let late = SandboxRecord { phase: Phase::Failed, reason: Some(Reason::SupervisorLost), ..first };
    assert!(!store.sandbox_update(&late, &[], Durability::Full).expect("updated"));
    assert_eq!(store.sandbox_get(late.id).expect("read").expect("there").phase, Phase::Completed);
}

#[test]
fn events_come_in_order_and_only_with_their_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let (first, second) = (record(4, Some("a")), record(5, Some("a")));
    store.sandbox_insert(&first, &[event("sandbox.created", &first)], Durability::Normal).expect("inserted");
    let refused = store.sandbox_insert(&second, &[event("sandbox.created", &second)], Durability::Normal);
    assert!(refused.is_err());
    store.event_insert(&[event("network.refused", &first)]).expect("inserted");
    let all = store.event_list(&EventFilter::default()).expect("listed");
    let kinds: Vec<&str> = all.iter().map(|event| event.event.kind.as_str()).collect();
    assert_eq!(kinds, ["sandbox.created", "network.refused"]);
    let later = EventFilter { after: all[0].sequence, subject: Some(format!("sandbox:{}", first.id)), limit: 5 };
    assert_eq!(store.event_list(&later).expect("listed").len(), 1);
}

#[test]
fn a_newer_database_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(store(&directory));
    let path = directory.path().join("cofferdam.db");
    let status = std::process::Command::new("sqlite3").arg(&path).arg("PRAGMA user_version=99").status();
    assert!(status.expect("sqlite3 is installed").success());
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever supervisors, sweeps and removals write in whatever order: no phase goes backwards, no end is replaced, nothing
    /// removed comes back, and each write leaves its event.
    #[test]
    fn records_never_go_backwards(writes in prop::collection::vec((0..Phase::ALL.len(), any::<bool>()), 1..12)) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory);
        let first = SandboxRecord { phase: Phase::Pending, ..record(1, None) };
        store.sandbox_insert(&first, &[], Durability::Normal).expect("inserted");
        for (index, removed) in &writes {
            let before = store.sandbox_get(first.id).expect("read").expect("there");
            let write = SandboxRecord {
                phase: Phase::ALL[*index],
                removed_at: removed.then_some(Timestamp::UNIX_EPOCH),
                ..first.clone()
            };
            let applied = store.sandbox_update(&write, &[event("sandbox.written", &write)], Durability::Normal).expect("written");
            let after = store.sandbox_get(first.id).expect("read").expect("there");
            prop_assert!(!before.phase.rules_out(after.phase), "{} became {}", before.phase, after.phase);
            prop_assert_eq!(applied, after.phase == write.phase);
            prop_assert!(before.removed_at.is_none() || after.removed_at.is_some());
            let live = store.sandbox_any_live().expect("asked");
            prop_assert_eq!(live, after.removed_at.is_none() && !after.phase.is_final());
        }
        let events = store.event_list(&EventFilter::default()).expect("listed");
        prop_assert_eq!(events.len(), writes.len());
    }
}

/// A sweep that read "running" a moment before the attempt ended must not take its verdict away.
#[test]
fn an_attempt_that_has_ended_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let id = AttemptId::from_random([7; 16]);
    let begun = AttemptRecord::begun(id, "task".parse().expect("a name"), "oracle", Timestamp::UNIX_EPOCH);
    assert!(store.attempt_save(&begun, &[], &[]).expect("saved"));
    assert_eq!(store.attempt_list_running().expect("listed").len(), 1);
    let ended = AttemptRecord { phase: Phase::Completed, reward: Some(1.0), ended_at: Some(Timestamp::UNIX_EPOCH), ..begun.clone() };
    assert!(store.attempt_save(&ended, &[], &[]).expect("saved"));
    let lost = AttemptRecord { phase: Phase::Failed, reason: Some(Reason::SupervisorLost), ..begun };
    let due = Due { at: Timestamp::UNIX_EPOCH, kind: "x".into(), subject: "y".into() };
    assert!(!store.attempt_save(&lost, &[], &[due]).expect("refused"));
    assert_eq!(store.attempt_get(id).expect("read"), Some(ended));
    assert!(store.attempt_list_running().expect("listed").is_empty() && store.due_list(Timestamp::MAX, 9).expect("listed").is_empty());
}

#[test]
fn what_is_due_is_listed_until_it_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory);
    let at = |second| Timestamp::from_second(second).expect("a time");
    let due = |second, kind: &str| Due { at: at(second), kind: kind.into(), subject: "s".into() };
    let record = AttemptRecord::begun(AttemptId::from_random([1; 16]), "task".parse().expect("a name"), "nop", at(0));
    store.attempt_save(&record, &[], &[due(20, "late"), due(10, "early"), due(10, "early")]).expect("saved");
    assert!(store.due_list(at(9), 10).expect("listed").is_empty());
    assert_eq!(store.due_list(at(10), 10).expect("listed"), [due(10, "early")]);
    store.due_done(&[due(10, "early")]).expect("done");
    assert_eq!(store.due_list(at(30), 10).expect("listed"), [due(20, "late")]);
    assert!(!store.sound_known("key").expect("read"));
    store.sound_keep("key", "task").expect("kept");
    assert!(store.sound_known("key").expect("read"));
}
