//! Where the parts of a task are inside its sandboxes.

use crate::{ImageRef, Span};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a task was written, which says where its parts are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A `task.yaml`: everything is in `/workspace`.
    #[default]
    Workspace,
    /// A Harbor directory: the image's own working directory, `/tests`, `/solution`, `/logs`.
    Harbor(Box<Harbor>),
}

/// What a Harbor directory says beyond a task file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harbor {
    /// What both sandboxes start from.
    pub environment: Environment,
    /// Working directory; the image's own where none is named.
    pub workdir: Option<String>,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Environment of the reference solution.
    pub solution_env: BTreeMap<String, String>,
    /// What of the agent's work the verifier gets.
    pub carried: Carried,
    /// What the verifier starts from, where that is another image; its tests are in it then.
    pub verifier: Option<Environment>,
    /// A command that must succeed before the agent starts.
    pub ready: Option<super::Ready>,
}

/// An image, or what one is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    /// An image.
    Image(ImageRef),
    /// A directory with a Dockerfile, beside the task file.
    Dockerfile {
        /// The build context.
        directory: PathBuf,
        /// The build may take so long.
        timeout: Span,
    },
}

/// What the verifier gets of the agent's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Everything that it changed.
    Everything,
    /// These paths, absolute.
    Paths(Vec<String>),
}
