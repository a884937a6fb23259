//! Compiles the spawner and pid 1 of a sandbox (`init/main.rs`): a freestanding static program of a few kilobytes, so that it costs
//! next to nothing to execute and holds nothing worth reading. Needs no C library and no linker but the toolchain's own.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=src/init_wire.rs");
    println!("cargo::rerun-if-changed=src/plan_wire.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("init");
    let target = env::var("TARGET").unwrap_or_default();
    let status = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-name=init", "--crate-type=bin", "--target", &target])
        .args(["-Cpanic=abort", "-Copt-level=s", "-Cdebuginfo=0", "-Cstrip=symbols", "-Ccodegen-units=1"])
        .args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static", "-Clink-self-contained=no"])
        .args(["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Cdefault-linker-libraries=no"])
        .args(["-Clink-arg=--no-dynamic-linker", "-Clink-arg=-no-pie", "-Clink-arg=--build-id=none", "-Clink-arg=-zseparate-code"])
        .args(["-Clink-arg=-znoexecstack", "-Coverflow-checks=off", "--remap-path-prefix", "init=init"])
        .arg("-o")
        .arg(&out)
        .arg("init/main.rs")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("rustc ended with {status}")),
        Err(error) => fail(&format!("rustc could not be run: {error}")),
    }
}

fn fail(why: &str) -> ! {
    println!("cargo::error=pid 1 (crates/sys/init) did not compile: {why}");
    std::process::exit(1)
}
