//! The static binary, reproducibly: paths of the building machine are mapped away, and two builds in different
//! directories give the same bytes.

use crate::packages;
use crate::shell::{Step, command, output, target};
use std::fs;
use std::path::{Path, PathBuf};

/// Builds twice and compares; the binary and its checksum go to `dist/`.
pub fn run() -> Step {
    packages::for_build()?;
    let first = build(Path::new("target/dist-1"))?;
    let second = build(Path::new("target/dist-2"))?;
    let (one, two) = (fs::read(&first).map_err(|e| e.to_string())?, fs::read(&second).map_err(|e| e.to_string())?);
    if one != two {
        return Err(format!("{} and {} differ: the build is not reproducible", first.display(), second.display()));
    }
    fs::create_dir_all("dist").map_err(|e| e.to_string())?;
    let name = format!("cofferdam-{}", target());
    fs::copy(&first, Path::new("dist").join(&name)).map_err(|e| e.to_string())?;
    let sum = output(&["sh", "-c", &format!("cd dist && sha256sum {name} | tee {name}.sha256")])?;
    print!("{sum}");
    let kind = output(&["sh", "-c", &format!("readelf -l dist/{name} | grep -c INTERP || true")])?;
    if kind.trim() == "0" { Ok(()) } else { Err("the binary asks for a dynamic loader".into()) }
}

fn build(directory: &Path) -> Result<PathBuf, String> {
    let target = target();
    let here = std::env::current_dir().map_err(|e| e.to_string())?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo"))).unwrap_or_default();
    let flags = format!("--remap-path-prefix={}=. --remap-path-prefix={home}=cargo", here.display());
    let status = command(&["cargo", "build", "--release", "--locked", "--package", "cofferdam-cli", "--target", &target])
        .env("CARGO_TARGET_DIR", directory)
        .env("RUSTFLAGS", flags)
        .env("SOURCE_DATE_EPOCH", "0")
        .env("CFLAGS", format!("-ffile-prefix-map={}=. -ffile-prefix-map={home}=cargo", here.display()))
        .status()
        .map_err(|e| e.to_string())?;
    if status.success() { Ok(directory.join(target).join("release/cofferdam")) } else { Err("the build failed".into()) }
}
