//! What was decided, on record before anything is allowed: a line of JSON for each destination at its first attempt, and how
//! often it was repeated each time that has doubled, and at the end. Bounded for each sandbox, so that a flood cannot fill a disk.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};

/// Destinations that are told apart; what goes beyond is counted together.
const MOST_DESTINATIONS: usize = 2048;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A connection was made.
    Allowed,
    /// Nothing went out.
    Denied,
    /// It was allowed, and the other side could not be reached.
    Failed,
}

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// What became of it.
    pub verdict: Verdict,
    /// Name or address.
    pub host: String,
    /// Port; 0 for a name that was only asked for.
    pub port: u16,
    /// `dns`, `tcp`, `tls`, `https`, `http` or `ssh`.
    pub protocol: String,
    /// The rule that decided; None if none did.
    pub rule: Option<String>,
    /// Why it was denied or failed.
    pub reason: Option<String>,
}

/// A line as it is written: a decision, and how often it was made since the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The decision; None for what is no longer told apart.
    #[serde(flatten)]
    pub decision: Option<Decision>,
    /// How often.
    pub count: u64,
    /// Bytes out and in so far, of everything that was allowed; with no decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<(u64, u64)>,
}

/// The record of one sandbox.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    repeats: HashMap<Decision, Count>,
    beyond: Count,
    traffic: (u64, u64),
}

/// How often something was decided.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    written: u64,
    pending: u64,
}

impl Count {
    /// What is to be written now: as much again as was written before, or whatever is left.
    fn take(&mut self, everything: bool) -> Option<u64> {
        let due = self.pending > 0 && (everything || self.pending >= self.written);
        due.then(|| {
            self.written += self.pending;
            std::mem::take(&mut self.pending)
        })
    }
}

impl Ledger {
    /// Appends to this descriptor.
    pub fn new(file: File) -> Self {
        Self { file, repeats: HashMap::new(), beyond: Count::default(), traffic: (0, 0) }
    }

    /// Puts a decision on record. When this fails, nothing may be allowed.
    pub fn record(&mut self, decision: Decision) -> io::Result<()> {
        if let Some(count) = self.repeats.get_mut(&decision) {
            count.pending += 1;
            return Ok(());
        }
        if self.repeats.len() >= MOST_DESTINATIONS {
            self.beyond.pending += 1;
            return Ok(());
        }
        append(&mut self.file, Some(&decision), 1)?;
        self.repeats.insert(decision, Count { written: 1, pending: 0 });
        Ok(())
    }

    /// Writes down how much was carried, if that is more than before.
    pub fn traffic(&mut self, total: (u64, u64)) -> io::Result<()> {
        if total == self.traffic {
            return Ok(());
        }
        write(&mut self.file, &Line { decision: None, count: 0, traffic: Some(total) })?;
        self.traffic = total;
        Ok(())
    }

    /// Writes down what was repeated; what has not doubled since it was written only if `everything` is.
    pub fn flush(&mut self, everything: bool) -> io::Result<()> {
        for (decision, count) in &mut self.repeats {
            if let Some(count) = count.take(everything) {
                append(&mut self.file, Some(decision), count)?;
            }
        }
        match self.beyond.take(everything) {
            Some(count) => append(&mut self.file, None, count),
            None => Ok(()),
        }
    }
}

fn append(file: &mut File, decision: Option<&Decision>, count: u64) -> io::Result<()> {
    write(file, &Line { decision: decision.cloned(), count, traffic: None })
}

fn write(file: &mut File, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn decision(host: &str) -> Decision {
        Decision { verdict: Verdict::Denied, host: host.into(), port: 443, protocol: "tls".into(), rule: None, reason: Some("x".into()) }
    }

    fn lines(ledger: &mut Ledger) -> Vec<Line> {
        let mut text = String::new();
        ledger.file.rewind().expect("rewinds");
        ledger.file.read_to_string(&mut text).expect("reads");
        text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
    }

    #[test]
    fn the_first_is_written_at_once_and_the_rest_counted() {
        let mut ledger = Ledger::new(tempfile::tempfile().expect("a file"));
        for _ in 0..5 {
            ledger.record(decision("a.example")).expect("recorded");
        }
        assert_eq!(lines(&mut ledger).len(), 1);
        ledger.flush(false).expect("flushed");
        ledger.flush(true).expect("flushed");
        let counts: Vec<u64> = lines(&mut ledger).iter().map(|line| line.count).collect();
        assert_eq!(counts, [1, 4]);
    }

    /// An hour of attempts at one destination, looked at every two seconds, is a handful of lines that add up.
    #[test]
    fn repeats_take_little_room() {
        let mut ledger = Ledger::new(tempfile::tempfile().expect("a file"));
        for _ in 0..1800 {
            for _ in 0..100 {
                ledger.record(decision("a.example")).expect("recorded");
            }
            ledger.flush(false).expect("flushed");
        }
        ledger.flush(true).expect("flushed");
        let lines = lines(&mut ledger);
        assert!(lines.len() < 20, "{}", lines.len());
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), 180_000);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut ledger = Ledger::new(tempfile::tempfile().expect("a file"));
        for number in 0..10_000 {
            ledger.record(decision(&format!("n{number}.example"))).expect("recorded");
        }
        ledger.flush(true).expect("flushed");
        let lines = lines(&mut ledger);
        assert_eq!(lines.len(), MOST_DESTINATIONS + 1);
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), 10_000);
        assert_eq!(lines.last().and_then(|line| line.decision.clone()), None);
    }

    #[test]
    fn a_record_that_cannot_be_written_is_an_error() {
        let mut ledger = Ledger::new(File::open("/dev/null").expect("opens"));
        assert!(ledger.record(decision("a.example")).is_err(), "it is open for reading only");
        let mut full = Ledger::new(File::options().write(true).open("/dev/full").expect("opens"));
        assert!(full.record(decision("a.example")).is_err());
        assert!(full.record(decision("a.example")).is_err(), "it is not taken for recorded");
    }
}
