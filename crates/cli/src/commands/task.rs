//! stub
use crate::args::{TaskRunArgs, Global};
use crate::exit::Failure;
use std::process::ExitCode;
pub fn run(_g: Global, _a: &TaskRunArgs) -> Result<ExitCode, Failure> { Err(Failure::usage("x")) }
pub fn validate(_g: Global, _a: &std::path::Path) -> Result<ExitCode, Failure> { Err(Failure::usage("x")) }
pub fn list(_g: Global, _a: Option<&cofferdam_model::Name>) -> Result<ExitCode, Failure> { Err(Failure::usage("x")) }
