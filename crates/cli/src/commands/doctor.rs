//! stub
use crate::args::{DoctorArgs, Global};
use crate::exit::Failure;
pub fn run(_g: Global, _a: &DoctorArgs) -> Result<std::process::ExitCode, Failure> { Err(Failure::usage("x")) }
