//! What is recorded without the database.

use crate::{event, record, store};
use cofferdam_model::{Phase, Reason, SandboxRecord, Timestamp};
use cofferdam_store::{Durability, Entry, EventFilter, Journal, Match, Store, StoreError};
use std::io::Write;
use std::path::PathBuf;

fn ended(digit: u8) -> SandboxRecord {
    SandboxRecord {
        phase: Phase::Completed,
        reason: Some(Reason::Exited),
        exit_code: Some(7),
        ended_at: Some(Timestamp::UNIX_EPOCH),
        removed_at: Some(Timestamp::UNIX_EPOCH),
        ..record(digit, None)
    }
}

fn made(digit: u8) -> Entry {
    let record = record(digit, None);
    let event = event("sandbox.created", &record);
    Entry::Made(record, vec![event])
}

fn end(digit: u8) -> Entry {
    let record = ended(digit);
    let event = event("sandbox.completed", &record);
    Entry::Ended(record, vec![event])
}

fn database(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("cofferdam.db")
}

fn kinds(store: &mut Store) -> Vec<String> {
    let events = store.event_list(&EventFilter::default()).expect("listed");
    events.into_iter().map(|event| event.event.kind).collect()
}

#[test]
fn a_run_without_the_database_is_in_it_for_who_reads() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    journal.append(&made(1), Durability::Normal).expect("appended");
    assert!(!database(&directory).exists(), "nobody needed it");
    let mut open = store(&directory);
    assert_eq!(open.sandbox_list_live().expect("listed").len(), 1);
    journal.append(&end(1), Durability::Full).expect("appended");
    let found = open.sandbox_get(record(1, None).id).expect("read").expect("there");
    assert_eq!((found.phase, found.exit_code), (Phase::Completed, Some(7)));
    assert!(!open.sandbox_any_live().expect("asked") && open.sandbox_list().expect("listed").is_empty());
    assert_eq!(kinds(&mut open), ["sandbox.created", "sandbox.completed"]);
    assert!(matches!(open.sandbox_find(&found.id.to_string()).expect("found"), Match::One(_)));
    assert_eq!(std::fs::metadata(directory.path().join("cofferdam.jsonl")).expect("there").len(), 0, "it is not kept twice");
}

/// The lines are still there if who merged them was killed between his commit and the end of it.
#[test]
fn lines_that_are_merged_twice_change_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    for _ in 0..2 {
        journal.append(&made(1), Durability::Normal).expect("appended");
        journal.append(&end(1), Durability::Full).expect("appended");
        assert_eq!(kinds(&mut store(&directory)), ["sandbox.created", "sandbox.completed"]);
    }
}

#[test]
fn a_line_that_was_cut_off_spoils_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    journal.append(&made(1), Durability::Normal).expect("appended");
    let whole = serde_json::to_vec(&made(2)).expect("JSON");
    let mut file = std::fs::File::options().append(true).open(directory.path().join("cofferdam.jsonl")).expect("there");
    file.write_all(&whole[..whole.len() / 2]).expect("written");
    journal.append(&made(3), Durability::Normal).expect("appended");
    let ids: Vec<_> = store(&directory).sandbox_list().expect("listed").iter().map(|record| record.id).collect();
    assert_eq!(ids, [record(1, None).id, record(3, None).id]);
}

/// What another release wrote is not thrown away.
#[test]
fn a_line_of_another_form_is_refused_and_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cofferdam.jsonl");
    std::fs::write(&path, "\n{\"made\":[{},[]]}\n").expect("written");
    let refused = Store::open(&database(&directory)).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert!(std::fs::metadata(path).expect("there").len() > 0);
}

/// An end that nobody announced is recorded whole; one of a sandbox that was swept in the meantime changes nothing.
#[test]
fn an_end_without_a_beginning_and_one_that_comes_too_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    journal.append(&end(1), Durability::Full).expect("appended");
    let mut open = store(&directory);
    let found = open.sandbox_get(ended(1).id).expect("read").expect("there");
    assert_eq!(found, ended(1));
    assert!(open.sandbox_list().expect("listed").is_empty(), "it was removed when it ended");
    let lost = SandboxRecord { phase: Phase::Failed, reason: Some(Reason::SupervisorLost), ..record(2, None) };
    open.sandbox_insert(&record(2, None), &[], Durability::Normal).expect("inserted");
    open.sandbox_update(&lost, &[], Durability::Normal).expect("updated");
    journal.append(&end(2), Durability::Full).expect("appended");
    assert_eq!(open.sandbox_get(lost.id).expect("read").expect("there").reason, Some(Reason::SupervisorLost));
    assert_eq!(kinds(&mut open), ["sandbox.completed"]);
}

/// Threads stand for processes: each opens the files itself.
#[test]
fn nothing_is_lost_between_those_who_append_and_those_who_merge() {
    const EACH: u8 = 20;
    let directory = tempfile::tempdir().expect("a directory");
    let path = database(&directory);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for number in 1..=EACH {
                    let digit = writer * EACH + number;
                    let journal = Journal::of(path);
                    journal.append(&made(digit), Durability::Normal).expect("appended");
                    journal.append(&end(digit), Durability::Full).expect("appended");
                    if number % 3 == 0 {
                        let found = Store::open(path).and_then(|mut store| store.sandbox_get(ended(digit).id)).expect("read");
                        assert_eq!(found.expect("there").phase, Phase::Completed);
                    }
                }
            });
        }
    });
    assert_eq!(kinds(&mut store(&directory)).len(), 2 * 4 * usize::from(EACH));
}

/// Nobody waits for good for one that was stopped while it held the file.
#[test]
fn a_journal_that_is_held_is_an_error_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    journal.append(&made(1), Durability::Normal).expect("appended");
    let held = std::fs::File::open(directory.path().join("cofferdam.jsonl")).expect("there");
    held.lock().expect("free");
    let refused = journal.append(&made(2), Durability::Normal).expect_err("held").to_string();
    assert!(refused.contains("cofferdam.jsonl: another cofferdam has held it"), "{refused}");
    drop(held);
    journal.append(&made(2), Durability::Normal).expect("appended");
    assert_eq!(store(&directory).sandbox_list().expect("listed").len(), 2);
}

#[test]
fn it_says_when_it_is_long() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::of(&database(&directory));
    let long = SandboxRecord { command: vec!["x".repeat(200 << 10)], ..record(1, None) };
    assert!(!journal.append(&Entry::Made(long.clone(), Vec::new()), Durability::Normal).expect("appended"));
    assert!(journal.append(&Entry::Ended(long, Vec::new()), Durability::Full).expect("appended"));
}
