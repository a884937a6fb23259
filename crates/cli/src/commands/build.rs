//! `cofferdam image build`.

use crate::args::{BuildArgs, Global};
use crate::exit::Failure;
use std::process::ExitCode;

/// Builds it.
pub fn run(_global: Global, _arguments: &BuildArgs) -> Result<ExitCode, Failure> {
    Err(Failure::usage("not yet"))
}
