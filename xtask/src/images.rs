//! Builds every definition of the project twice, and compares what is stored with what `umoci` unpacks of it.

use crate::packages;
use crate::shell::{self, Step, binary, output, target};
use std::path::Path;

/// Every path with its kind, mode, owner, size and target.
const LIST: &str = "find . -mindepth 1 -printf '%p %y %m %U:%G %l ' \\( -type f -printf '%s\\n' -o -printf '\\n' \\) | LC_ALL=C sort";

/// Builds those that are named, else all.
pub fn run(names: &[String]) -> Step {
    packages::for_tests()?;
    shell::run(&["cargo", "build", "--release", "--package", "cofferdam-cli", "--target", &target()])?;
    let own = std::fs::read_dir("images").map_err(|error| format!("images: {error}"))?.flatten();
    let mut all: Vec<String> = own.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    let place = output(&["mktemp", "-d", "/var/tmp/cofferdam-images.XXXXXX"])?;
    let place = Path::new(place.trim());
    let wanted = if names.is_empty() { &all } else { names };
    let result = wanted.iter().try_for_each(|name| one(name, place).map_err(|why| format!("{name}: {why}")));
    std::fs::remove_dir_all(place).map_err(|error| error.to_string())?;
    result
}

fn one(name: &str, place: &Path) -> Step {
    let program = std::path::absolute(binary()).map_err(|error| error.to_string())?;
    let data = place.join("data").display().to_string();
    let cofferdam = |words: &str| output(&["sh", "-c", &format!("COFFERDAM_DATA_DIR={data} {} {words}", program.display())]);
    let base = if Path::new("images").join(name).join("Dockerfile").exists() { format!("{name}-base") } else { name.to_owned() };
    let inspected = || -> Result<(String, String), String> {
        let record: serde_json::Value =
            serde_json::from_str(&cofferdam(&format!("image inspect localhost/{base} -o json"))?).map_err(|error| error.to_string())?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("not as expected: {record}"));
        Ok((text(&record["digest"])?, text(&record["layers"][0]["directory"])?))
    };
    let mut digests = Vec::new();
    for flags in ["", "--no-cache"] {
        eprintln!("+ image build {flags} {name}");
        cofferdam(&format!("image build -q {flags} {name}"))?;
        digests.push(inspected()?.0);
    }
    if digests[0] != digests[1] {
        return Err(format!("built twice, it is {} and {}", digests[0], digests[1]));
    }
    let layout = place.join("layout").display().to_string();
    let unpack = format!(
        "mkdir {layout} && COFFERDAM_DATA_DIR={data} {} image save localhost/{base} - | tar -x -C {layout} && \
         umoci unpack --image {layout}:$(umoci ls --layout {layout}) {layout}-bundle >/dev/null && cd {layout}-bundle/rootfs && {LIST}",
        program.display()
    );
    let theirs = output(&["sh", "-c", &unpack])?;
    let layer = inspected()?.1;
    let ours = output(&["sh", "-c", &format!("cd {data}/images/layers/{layer}/root && {LIST}")])?;
    output(&["rm", "-rf", &layout, &format!("{layout}-bundle")])?;
    cofferdam(&format!("image rm localhost/{name} >/dev/null; COFFERDAM_DATA_DIR={data} {} image gc", program.display()))?;
    let known: std::collections::BTreeSet<&str> = theirs.lines().collect();
    let different: Vec<&str> = ours.lines().filter(|line| !known.contains(line)).take(10).collect();
    if !different.is_empty() || ours.lines().count() != known.len() {
        return Err(format!("umoci has {} entries, we {}; ours only: {different:#?}", known.len(), ours.lines().count()));
    }
    println!("{name}: the same twice, {} entries as umoci has them", known.len());
    Ok(())
}
