//! What a dataset says about a task: the columns of the SWE-bench family
//! (<https://huggingface.co/datasets/SWE-bench/SWE-bench>) that the task file does not have elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Columns of an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Where the source comes from.
    pub repo: Option<String>,
    /// The commit that the task begins at.
    pub base_commit: Option<String>,
    /// The commit that the environment is made at.
    pub environment_setup_commit: Option<String>,
    /// The reference solution as a patch.
    pub patch: Option<String>,
    /// The tests as a patch.
    pub test_patch: Option<String>,
    /// What else an agent may be told.
    pub hints_text: Option<String>,
    /// When the task was made.
    pub created_at: Option<String>,
    /// Version of the task or of its source.
    pub version: Option<String>,
    /// Language of the source.
    pub language: Option<String>,
    /// Difficulty as a number.
    pub difficulty_score: Option<f64>,
    /// Quality as a number.
    pub quality_score: Option<f64>,
    /// Words to find it by.
    pub tags: Vec<String>,
}
