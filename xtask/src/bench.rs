//! Against other systems, in one run, as ratios: these machines are noisy, so contenders take turns.

use crate::packages;
use crate::shell::{Step, binary, command, output, run as run_words, target};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const ROUNDS: u32 = 4;
const RUNS: &str = "15";
const HARDENED: &str =
    "--rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges -m 512m --cpus 1 --pids-limit 128 -u 1000";

/// Measures and writes `docs/benchmarks.md`.
pub fn run() -> Step {
    packages::for_bench()?;
    run_words(&["cargo", "build", "--release", "--package", "cofferdam-cli", "--target", &target()])?;
    let work = std::env::temp_dir().join(format!("cofferdam-bench-{}", std::process::id()));
    std::fs::create_dir_all(&work).map_err(|e| e.to_string())?;
    let mut docker = Docker::start(&work)?;
    let result = measure(&work, &docker.host);
    docker.stop();
    let _ = std::fs::remove_dir_all(&work);
    let report = result?;
    print!("{report}");
    std::fs::write("docs/benchmarks.md", report).map_err(|e| e.to_string())
}

/// A Docker daemon of our own, with its own data and socket.
struct Docker {
    child: Child,
    host: String,
}

impl Docker {
    fn start(work: &Path) -> Result<Self, String> {
        Self::begin(work, &["dockerd", "--iptables=false", "--bridge=none"])
    }

    /// In a network namespace of its own, where it may have its bridges.
    fn with_network(work: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(work).map_err(|e| e.to_string())?;
        Self::begin(work, &["unshare", "-n", "--", "dockerd", "--iptables=false"])
    }

    fn begin(work: &Path, words: &[&str]) -> Result<Self, String> {
        let host = format!("unix://{}", work.join("docker.sock").display());
        let place = |name: &str| work.join(name).display().to_string();
        let log = std::fs::File::create(work.join("dockerd.log")).map_err(|e| e.to_string())?;
        let child = command(words)
            .args(["-H", &host, "--data-root", &place("root"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| e.to_string())?;
        for _ in 0..100 {
            if command(&["docker", "-H", &host, "version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
            {
                return Ok(Self { child, host });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err("dockerd did not answer".into())
    }

    fn stop(&mut self) {
        let _ = run_words(&["kill", &self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

/// Docker and crun run a program that needs no loader; the host's needs one.
const SAME_ROOT: &str = "cofferdam run, root file system of docker and crun";

/// Medians in milliseconds by round.
fn hyperfine(words: &str, work: &Path, within: Option<&str>) -> Result<f64, String> {
    let json = work.join("hyperfine.json");
    let line = format!("hyperfine -N --style none --warmup 3 --runs {RUNS} --export-json {} '{words}' >/dev/null", json.display());
    let line = within.map_or_else(|| line.clone(), |prefix| format!("{prefix} '{}'", line.replace('\'', "'\\''")));
    run_words(&["sh", "-c", &line])?;
    let value: Value = serde_json::from_str(&std::fs::read_to_string(json).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    value["results"][0]["median"].as_f64().map(|seconds| seconds * 1e3).ok_or_else(|| "no median".into())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(work: &Path, docker: &str) -> Result<String, String> {
    let program = std::path::absolute(binary()).map_err(|e| e.to_string())?.display().to_string();
    let data = work.join("data").display().to_string();
    let cofferdam = format!("{program} --data-dir {data}");
    let rootfs = work.join("rootfs");
    prepare_images(work, &rootfs, docker)?;
    let crun = "unshare -m --propagation private sh -c";
    let bundle = work.join("bundle").display().to_string();
    let contenders = [
        ("cofferdam run", format!("{cofferdam} run -- /bin/true"), None),
        (SAME_ROOT, format!("{cofferdam} run --image {} -- /bin/true", rootfs.display()), None),
        ("docker run, hardened", format!("docker -H {docker} run {HARDENED} bench /bin/true"), None),
        (
            "crun run, hardened",
            format!("crun run --bundle {bundle} bench"),
            Some(format!("umount /sys/fs/cgroup/unified 2>/dev/null; {crun}")),
        ),
        ("bwrap --unshare-all", "bwrap --unshare-all --ro-bind / / /bin/true".to_owned(), None),
    ];
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (index, (_, words, within)) in contenders.iter().enumerate() {
            let within = within.as_ref().map(|_| "unshare -m --propagation private sh -c");
            let prefixed = if within.is_some() { crun_in_private_view(words, work)? } else { words.clone() };
            samples[index].push(hyperfine(&prefixed, work, None)?);
        }
    }
    run_words(&["sh", "-c", &format!("{cofferdam} run -d --name bench -- sleep 3600 >/dev/null")])?;
    run_words(&[
        "sh",
        "-c",
        &format!("docker -H {docker} run -d --name bench {} bench /bin/sleep 3600 >/dev/null", HARDENED.trim_start_matches("--rm ")),
    ])?;
    let execs = [
        ("cofferdam exec", format!("{cofferdam} exec bench /bin/true")),
        ("docker exec", format!("docker -H {docker} exec bench /bin/true")),
    ];
    let mut exec_samples: Vec<Vec<f64>> = vec![Vec::new(); execs.len()];
    for _ in 0..ROUNDS {
        for (index, (_, words)) in execs.iter().enumerate() {
            exec_samples[index].push(hyperfine(words, work, None)?);
        }
    }
    run_words(&["sh", "-c", &format!("{cofferdam} rm -f bench >/dev/null; docker -H {docker} rm -f bench >/dev/null")])?;
    let detached = detached_memory(&cofferdam)?;
    let own: Value = serde_json::from_str(&output(&["sh", "-c", &format!("{cofferdam} bench -o json")])?).map_err(|e| e.to_string())?;
    let many: Value =
        serde_json::from_str(&output(&["sh", "-c", &format!("{cofferdam} bench --starts 20 --many 1000 --together 2 -o json")])?)
            .map_err(|e| e.to_string())?;
    let starts = contenders.iter().map(|(name, ..)| *name).zip(samples.into_iter().map(median)).collect::<Vec<_>>();
    let execs = execs.iter().map(|(name, _)| *name).zip(exec_samples.into_iter().map(median)).collect::<Vec<_>>();
    let network = network_cost(&cofferdam, work)?;
    let gate = gate(&program, work)?;
    let images = images(&program, work, docker)?;
    let suites = suites(&program, work)?;
    Ok(report(&starts, &execs, &own, &many, detached)?
        + &gate
        + &format!("\nA gated network adds {network:.2} ms to `run`, the gate running.\n")
        + &images
        + &suites)
}

/// The gate beside other relays.
fn gate(program: &str, work: &Path) -> Result<String, String> {
    let directory = work.join("gate");
    std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
    let rows = output(&["bash", "xtask/bench/gate.sh", program, &directory.display().to_string()])?;
    Ok(format!("\n## The gate beside other relays (three rounds of two seconds, 32 connections; medians)\n\n{rows}"))
}

/// Images beside those who pull and build them.
fn images(program: &str, work: &Path, docker: &str) -> Result<String, String> {
    let directory = work.join("images");
    std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
    let rows = output(&["bash", "xtask/bench/images.sh", program, &directory.display().to_string(), docker])?;
    Ok(format!("\n## Images (five rounds; medians)\n\n{rows}"))
}

/// Suites, and the same Harbor directories through Harbor on Docker where that is installed.
fn suites(program: &str, work: &Path) -> Result<String, String> {
    let place = |name: &str| {
        let directory = work.join(name);
        std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
        Ok::<_, String>(directory.display().to_string())
    };
    let rows = output(&["bash", "xtask/bench/suites.sh", program, &place("suites")?])?;
    let mut docker = Docker::start(Path::new(&place("docker")?))?;
    let on_docker = output(&["bash", "xtask/bench/docker.sh", program, &place("on-docker")?, &docker.host]);
    docker.stop();
    let on_docker = on_docker?;
    let harbor = output(&["sh", "-c", "command -v harbor || true"])?;
    let others = if harbor.trim().is_empty() {
        "| the same directories through Harbor on Docker (oracle) | 5x, 10x | not measured: no harbor on PATH |\n".to_owned()
    } else {
        let mut docker = Docker::with_network(&work.join("harbor-docker"))?;
        let rows = output(&["bash", "xtask/bench/harbor.sh", program, &place("harbor")?, &docker.host, harbor.trim()]);
        docker.stop();
        rows?
    };
    let without_root = output(&["bash", "xtask/bench/rootless.sh", program])?;
    Ok(format!(
        "\n## Without root; a repository; a pause\n\n| what | must, aim | measured |\n|---|---|---|\n{without_root}\
         \n## Tasks and suites\n\n| what | must, aim | measured |\n|---|---|---|\n{rows}{others}\n\
         ## Engine docker, beside `docker run` with the same flags\n\n| what | must, aim | cofferdam | docker | more |\n|---|---|---|---|---|\n{on_docker}"
    ))
}

/// Milliseconds that a gated network adds to a run.
fn network_cost(cofferdam: &str, work: &Path) -> Result<f64, String> {
    run_words(&["sh", "-c", &format!("{cofferdam} run -d --name gated --allow a.test -- sleep 3600 >/dev/null")])?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(hyperfine(&format!("{cofferdam} run -- /bin/true"), work, None)?);
        with.push(hyperfine(&format!("{cofferdam} run --allow a.test -- /bin/true"), work, None)?);
    }
    run_words(&["sh", "-c", &format!("{cofferdam} rm -f gated >/dev/null")])?;
    Ok(median(with) - median(without))
}

/// A script that runs crun without the version 2 hierarchy, which it refuses on hybrid hosts.
fn crun_in_private_view(words: &str, work: &Path) -> Result<String, String> {
    let script = work.join("crun.sh");
    let text = format!("#!/bin/sh\numount /sys/fs/cgroup/unified 2>/dev/null\nexec {words}\n");
    std::fs::write(&script, text).map_err(|e| e.to_string())?;
    Ok(format!("unshare -m --propagation private sh {}", script.display()))
}

fn prepare_images(work: &Path, rootfs: &Path, docker: &str) -> Step {
    let (root, bundle) = (rootfs.display(), work.join("bundle").display().to_string());
    let script = format!(
        "set -e; mkdir -p {root}/bin {root}/proc {root}/dev {root}/sys {root}/tmp {bundle}; cp /bin/busybox {root}/bin/; \
         for a in true sleep sh; do ln -sf busybox {root}/bin/$a; done; tar -C {root} -c . | docker -H {docker} import - bench >/dev/null; \
         cd {bundle} && crun spec && ln -sfn {root} rootfs"
    );
    run_words(&["sh", "-c", &script])?;
    let config = work.join("bundle/config.json");
    let mut spec: Value = serde_json::from_str(&std::fs::read_to_string(&config).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    spec["process"]["terminal"] = serde_json::json!(false);
    spec["process"]["noNewPrivileges"] = serde_json::json!(true);
    spec["process"]["rlimits"] = serde_json::json!([]);
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        spec["process"]["capabilities"][set] = serde_json::json!([]);
    }
    spec["linux"]["resources"] =
        serde_json::json!({ "memory": { "limit": 536_870_912 }, "pids": { "limit": 128 }, "cpu": { "quota": 100_000, "period": 100_000 } });
    std::fs::write(&config, spec.to_string()).map_err(|e| e.to_string())
}

/// KiB that one more `run -d` takes of the machine's memory.
fn detached_memory(cofferdam: &str) -> Result<u64, String> {
    const MANY: u64 = 40;
    let available = || -> Result<u64, String> {
        let text = output(&["sh", "-c", "sleep 1; awk '/MemAvailable/ {print $2}' /proc/meminfo"])?;
        text.trim().parse().map_err(|e: std::num::ParseIntError| e.to_string())
    };
    let start = |many| {
        let line = format!("for i in $(seq {many}); do {cofferdam} run -d --label bench=1 -- sleep 3600 >/dev/null; done");
        run_words(&["sh", "-c", &line])
    };
    start(1)?;
    let before = available()?;
    start(MANY)?;
    let after = available()?;
    run_words(&["sh", "-c", &format!("{cofferdam} kill $({cofferdam} ps -q) >/dev/null")])?;
    Ok(before.saturating_sub(after) / MANY)
}

fn report(starts: &[(&str, f64)], execs: &[(&str, f64)], own: &Value, many: &Value, detached: u64) -> Result<String, String> {
    let machine = output(&[
        "sh",
        "-c",
        "echo \"$(nproc) CPUs, Linux $(uname -r | cut -d- -f1), cgroups $(stat -fc %T /sys/fs/cgroup | sed s/cgroup2fs/v2/\\;s/tmpfs/'v1 or hybrid'/)\"",
    ])?;
    let mut text = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`: contenders take turns in one run, {ROUNDS} rounds of {RUNS}; medians of medians.\n\
         Compare ratios, not milliseconds: the machine is shared.\n\nMachine: {}\nDocker is run with `{HARDENED}`.\n\n",
        machine.trim()
    );
    for (title, rows) in [
        ("Start to exit of /bin/true, whole process, record committed", starts),
        ("exec of /bin/true in a live sandbox, whole process", execs),
    ] {
        let base = rows[0].1;
        let _ = writeln!(text, "## {title}\n\n| contender | median ms | cofferdam is |\n|---|---|---|");
        for (name, value) in rows {
            let _ = writeln!(text, "| {name} | {value:.2} | {:.2}x faster |", value / base);
        }
        text.push('\n');
        if let Some((_, same)) = rows.iter().find(|(name, _)| *name == SAME_ROOT) {
            let others = rows.iter().filter(|(name, _)| name.ends_with("hardened"));
            let ratios: Vec<String> = others.map(|(name, value)| format!("{:.2} times faster than `{name}`", value / same)).collect();
            let _ = writeln!(text, "With the same root file system: {}.\n", ratios.join(", "));
        }
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let _ = writeln!(text, "## In one process (`cofferdam bench`)\n\n| what | measured |\n|---|---|");
    let rows = [
        ("start to exit, median", format!("{:.2} ms", number(&own["start_to_exit_ms"]["median"]))),
        ("exec, median", format!("{:.2} ms", number(&own["exec_ms"]["median"]))),
        ("100 sandboxes running, four being started at a time", format!("{:.0} ms", number(&own["many_running_ms"]))),
        ("memory of each of 100", format!("{:.0} KiB", number(&own["many_memory_kib_each"]))),
        ("memory of each of 1,000", format!("{:.0} KiB", number(&many["many_memory_kib_each"]))),
        ("memory of each more by `run -d`", format!("{detached} KiB")),
        ("the last 50 of 1,000 starts against the 10th to 60th, medians", format!("{:.2}x", number(&many["last_start_against_first"]))),
    ];
    for (what, measured) in rows {
        let _ = writeln!(text, "| {what} | {measured} |");
    }
    for neighbour in own["neighbours"].as_array().into_iter().flatten() {
        let (beside, exec) = (neighbour["beside"].as_str().unwrap_or_default(), &neighbour["exec_ms"]);
        let _ = writeln!(text, "| exec beside {beside}: median, p95 | {:.2} ms, {:.2} ms |", number(&exec["median"]), number(&exec["p95"]));
    }
    Ok(text)
}
