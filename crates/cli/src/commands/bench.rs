//! stub
use crate::args::{BenchArgs, Global};
use crate::exit::Failure;
pub fn run(_g: Global, _a: &BenchArgs) -> Result<std::process::ExitCode, Failure> { Err(Failure::usage("x")) }
