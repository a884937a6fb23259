//! Compiles the system call table of `policy` to the filter of the target architecture.

use cofferdam_policy::seccomp::{Arch, TABLE, compile, parse};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let name = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let Some(arch) = Arch::from_name(&name) else {
        return fail(&format!("no system call table for {name}: sandboxes run on x86_64 and aarch64"));
    };
    let calls = match parse(TABLE) {
        Ok(calls) => calls,
        Err(error) => return fail(&error.to_string()),
    };
    let mut text = String::from("&[\n");
    for instruction in compile(&calls, arch) {
        let digits = format!("{:016x}", instruction.pack());
        let parts: Vec<&str> = [0, 4, 8, 12].iter().map(|at| &digits[*at..at + 4]).collect();
        let _ = writeln!(text, "    Instruction::unpack(0x{}),", parts.join("_"));
    }
    text.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("filter.rs");
    if let Err(error) = fs::write(&out, text) {
        fail(&format!("{}: {error}", out.display()));
    }
}

fn fail(why: &str) {
    println!("cargo::error={why}");
}
