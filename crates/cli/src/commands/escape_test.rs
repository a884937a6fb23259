//! stub
use crate::args::{EscapeArgs, Global};
use crate::exit::Failure;
pub fn run(_g: Global, _a: &EscapeArgs) -> Result<std::process::ExitCode, Failure> { Err(Failure::usage("x")) }
