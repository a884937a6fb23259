//! From what a verifier left to a reward.

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
}

/// What a verifier left.
#[derive(Clone, Debug, Default)]
pub struct Evidence<'a> {
    /// Its exit status.
    pub exit_code: i32,
    /// What it wrote to standard output.
    pub output: &'a str,
    /// `/logs/verifier/reward.txt`.
    pub reward_text: Option<&'a str>,
    /// `/logs/verifier/reward.json`: a number, or an object with a number `reward`.
    pub reward_json: Option<&'a str>,
    /// Tests that must have passed, by name.
    pub listed: Vec<&'a str>,
}

/// Listed tests count first: each needs a line `PASSED name` (as `pytest -rA` prints), and what is missing has failed.
/// Without a list the reward file counts, and without one the exit status.
pub fn judge(evidence: &Evidence<'_>) -> Result<Verdict, VerdictError> {
    if !evidence.listed.is_empty() {
        let passed =
            |name: &&&str| evidence.output.lines().any(|line| line.strip_prefix("PASSED ").is_some_and(|rest| rest.trim() == **name));
        let failed: Vec<&str> = evidence.listed.iter().filter(|name| !passed(name)).copied().collect();
        let reward = if failed.is_empty() { 1.0 } else { 0.0 };
        let detail = if failed.is_empty() { "every listed test passed".to_owned() } else { format!("not passed: {}", failed.join(", ")) };
        return Ok(Verdict { reward, detail });
    }
    if let Some(text) = evidence.reward_text {
        return number(text.trim(), text.trim().parse().ok());
    }
    if let Some(text) = evidence.reward_json {
        let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let found = value.as_ref().and_then(|value| value.as_f64().or_else(|| value.get("reward")?.as_f64()));
        return number(text.trim(), found);
    }
    let reward = if evidence.exit_code == 0 { 1.0 } else { 0.0 };
    Ok(Verdict { reward, detail: format!("the verifier's exit status was {}", evidence.exit_code) })
}

fn number(text: &str, value: Option<f64>) -> Result<Verdict, VerdictError> {
    match value {
        Some(reward) if (0.0..=1.0).contains(&reward) => Ok(Verdict { reward, detail: "from the verifier's reward file".to_owned() }),
        _ => Err(VerdictError::NoNumber { text: text.chars().take(80).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_of_evidence() {
        let listed = Evidence {
            exit_code: 0,
            listed: vec!["a::x", "a::y"],
            output: "PASSED a::x\nFAILED a::y\n",
            reward_text: Some("1"),
            ..Evidence::default()
        };
        assert_eq!(judge(&listed).map(|verdict| verdict.reward), Ok(0.0));
        let both = Evidence { output: "PASSED a::y\nPASSED a::x\n", exit_code: 1, ..listed };
        assert_eq!(judge(&both).map(|verdict| verdict.reward), Ok(1.0));
        let file = Evidence { exit_code: 0, reward_text: Some(" 0.25\n"), ..Evidence::default() };
        assert_eq!(judge(&file).map(|verdict| verdict.reward), Ok(0.25));
        let json = Evidence { exit_code: 1, reward_json: Some("{\"reward\": 1}"), ..Evidence::default() };
        assert_eq!(judge(&json).map(|verdict| verdict.reward), Ok(1.0));
        assert_eq!(judge(&Evidence { exit_code: 3, ..Evidence::default() }).map(|verdict| verdict.reward), Ok(0.0));
    }

    proptest! {
        /// Whatever a reward file holds, a verdict is from 0 to 1 or an error.
        #[test]
        fn rewards_are_bounded(text in ".*") {
            for evidence in [Evidence { reward_text: Some(&text), ..Evidence::default() }, Evidence { reward_json: Some(&text), ..Evidence::default() }] {
                if let Ok(verdict) = judge(&evidence) {
                    prop_assert!((0.0..=1.0).contains(&verdict.reward));
                }
            }
        }
    }

    #[test]
    fn odd_rewards_are_refused() {
        for text in ["", "NaN", "inf", "-0.1", "1.1", "1e9", "yes", "0,5"] {
            assert!(judge(&Evidence { reward_text: Some(text), ..Evidence::default() }).is_err(), "{text}");
        }
    }
}
