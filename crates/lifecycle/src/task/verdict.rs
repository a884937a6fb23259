//! From what a verifier left to a reward.

use cofferdam_store::TestOutcome;
use std::collections::BTreeMap;

/// The verdict on a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// 0 to 1.
    pub reward: f64,
    /// Why it is not 1, or where it comes from.
    pub detail: String,
}

/// A verdict that cannot be told: the verifier is at fault, not the candidate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// The reward file holds no number.
    #[error("the verifier's reward {text:?} is not a number from 0 to 1")]
    NoNumber {
        /// What it holds.
        text: String,
    },
    /// There is no reward file where there has to be one.
    #[error("the verifier left neither /logs/verifier/reward.json nor reward.txt; its exit status was {exit_code}")]
    NoFile {
        /// Its exit status.
        exit_code: i32,
    },
}

/// What a verifier left.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Its exit status.
    pub exit_code: i32,
    /// Each test that must have passed.
    pub tests: &'a BTreeMap<String, TestOutcome>,
    /// `/logs/verifier/reward.txt`.
    pub reward_text: Option<&'a str>,
    /// `/logs/verifier/reward.json`: a number, or an object with a number `reward`.
    pub reward_json: Option<&'a str>,
    /// Only a reward file counts, JSON first: as Harbor has it.
    pub file_only: bool,
}

/// Listed tests count first, and what is missing has failed. Without a list the reward file counts, and without one the exit status.
pub fn judge(evidence: &Evidence<'_>) -> Result<Verdict, VerdictError> {
    if !evidence.tests.is_empty() {
        let failed: Vec<&str> =
            evidence.tests.iter().filter(|(_, outcome)| **outcome != TestOutcome::Passed).map(|(test, _)| test.as_str()).collect();
        let reward = if failed.is_empty() { 1.0 } else { 0.0 };
        let detail = if failed.is_empty() { "every listed test passed".to_owned() } else { format!("not passed: {}", failed.join(", ")) };
        return Ok(Verdict { reward, detail });
    }
    let text = evidence.reward_text.map(|text| number(text.trim(), text.trim().parse().ok()));
    let json = evidence.reward_json.map(|text| {
        let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let found = value.as_ref().and_then(|value| value.as_f64().or_else(|| value.get("reward")?.as_f64()));
        number(text.trim(), found)
    });
    let file = if evidence.file_only { json.or(text) } else { text.or(json) };
    match file {
        Some(verdict) => verdict,
        None if evidence.file_only => Err(VerdictError::NoFile { exit_code: evidence.exit_code }),
        None => {
            let reward = if evidence.exit_code == 0 { 1.0 } else { 0.0 };
            Ok(Verdict { reward, detail: format!("the verifier's exit status was {}", evidence.exit_code) })
        }
    }
}

fn number(text: &str, value: Option<f64>) -> Result<Verdict, VerdictError> {
    match value {
        Some(reward) if (0.0..=1.0).contains(&reward) => Ok(Verdict { reward, detail: "from the verifier's reward file".to_owned() }),
        _ => Err(VerdictError::NoNumber { text: text.chars().take(80).collect() }),
    }
}

/// Reads lines as `pytest -rA` prints them: `PASSED name`, `FAILED name - why`, `ERROR name - why`. A test passes if a line says so and no
/// line says otherwise: whoever can write to the same output cannot take a failure back.
#[derive(Debug)]
pub struct TestLines {
    tests: BTreeMap<String, TestOutcome>,
    line: Vec<u8>,
}

const LONGEST_LINE: usize = 64 << 10;

impl TestLines {
    /// Looks for these tests.
    pub fn of(listed: Vec<&str>) -> Self {
        Self { tests: listed.into_iter().map(|test| (test.to_owned(), TestOutcome::Missing)).collect(), line: Vec::new() }
    }

    /// More output.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.tests.is_empty() {
            return;
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // The rest of an overlong line is part of none.
            let room = LONGEST_LINE - self.line.len().min(LONGEST_LINE);
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "PASSED" => {
                if let Some(outcome) = self.tests.get_mut(rest.trim())
                    && *outcome == TestOutcome::Missing
                {
                    *outcome = TestOutcome::Passed;
                }
            }
            "FAILED" | "ERROR" | "SKIPPED" | "XFAIL" => {
                let name = rest.split(" - ").next().unwrap_or(rest).trim();
                if let Some(outcome) = self.tests.get_mut(name) {
                    *outcome = TestOutcome::Failed;
                }
            }
            _ => {}
        }
    }

    /// Each test.
    pub fn finish(mut self) -> BTreeMap<String, TestOutcome> {
        self.end_line();
        self.tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn evidence(tests: &BTreeMap<String, TestOutcome>) -> Evidence<'_> {
        Evidence { exit_code: 0, tests, reward_text: None, reward_json: None, file_only: false }
    }

    fn lines(listed: &[&str], output: &str) -> BTreeMap<String, TestOutcome> {
        let mut lines = TestLines::of(listed.to_vec());
        // In pieces, as a pipe hands it over.
        output.as_bytes().chunks(7).for_each(|chunk| lines.feed(chunk));
        lines.finish()
    }

    #[test]
    fn the_order_of_evidence() {
        let some = lines(&["a::x", "a::y"], "PASSED a::x\nFAILED a::y\n");
        let listed = Evidence { reward_text: Some("1"), ..evidence(&some) };
        assert_eq!(judge(&listed).map(|verdict| verdict.reward), Ok(0.0));
        let all = lines(&["a::x", "a::y"], "PASSED a::y\nPASSED a::x");
        let both = Evidence { exit_code: 1, tests: &all, ..listed };
        assert_eq!(judge(&both).map(|verdict| verdict.reward), Ok(1.0));
        let none = BTreeMap::new();
        let file = Evidence { reward_text: Some(" 0.25\n"), ..evidence(&none) };
        assert_eq!(judge(&file).map(|verdict| verdict.reward), Ok(0.25));
        let json = Evidence { exit_code: 1, reward_json: Some("{\"reward\": 1}"), ..evidence(&none) };
        assert_eq!(judge(&json).map(|verdict| verdict.reward), Ok(1.0));
        assert_eq!(judge(&Evidence { exit_code: 3, ..evidence(&none) }).map(|verdict| verdict.reward), Ok(0.0));
        let harbor = Evidence { reward_text: Some("0"), file_only: true, ..json };
        assert_eq!(judge(&harbor).map(|verdict| verdict.reward), Ok(1.0));
        assert!(judge(&Evidence { file_only: true, ..evidence(&none) }).is_err(), "no file, no verdict");
    }

    #[test]
    fn a_failure_is_not_taken_back() {
        use TestOutcome::{Failed, Missing, Passed};
        for (output, outcome) in [
            ("PASSED t\n", Passed),
            ("PASSED t\nFAILED t - assert 1 == 2\n", Failed),
            ("FAILED t - x\nPASSED t\n", Failed),
            ("ERROR t\nPASSED t\n", Failed),
            ("SKIPPED t\nPASSED t\n", Failed),
            (" PASSED t\n", Missing),
            ("PASSED t2\nxPASSED t\n", Missing),
            ("PASSED", Missing),
        ] {
            assert_eq!(lines(&["t"], output)["t"], outcome, "{output:?}");
        }
        let flood = format!("{}PASSED t\nPASSED t", "x".repeat(3 * LONGEST_LINE));
        assert_eq!(lines(&["t"], &flood)["t"], Passed, "only the overlong line is lost");
    }

    proptest! {
        /// Whatever a reward file holds, a verdict is from 0 to 1 or an error.
        #[test]
        fn rewards_are_bounded(text in ".*") {
            let none = BTreeMap::new();
            for evidence in [Evidence { reward_text: Some(&text), ..evidence(&none) }, Evidence { reward_json: Some(&text), ..evidence(&none) }] {
                if let Ok(verdict) = judge(&evidence) {
                    prop_assert!((0.0..=1.0).contains(&verdict.reward));
                }
            }
        }
    }

    #[test]
    fn odd_rewards_are_refused() {
        let none = BTreeMap::new();
        for text in ["", "NaN", "inf", "-0.1", "1.1", "1e9", "yes", "0,5"] {
            assert!(judge(&Evidence { reward_text: Some(text), ..evidence(&none) }).is_err(), "{text}");
        }
    }
}
