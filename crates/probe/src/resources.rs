//! Limits (B6). What a limit must stop is tried a little beyond the limit that the runner sets (64 processes).

use crate::Probe;
use crate::report::{Finding, check, contained, open};
use std::process::{Child, Command};

const BEYOND: usize = 120;

fn processes() -> Finding {
    let mut children: Vec<Child> = Vec::new();
    let mut refused = None;
    for _ in 0..BEYOND {
        match Command::new("/bin/sleep").arg("30").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let count = children.len();
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    match refused {
        Some(error) => contained(format!("after {count}: {error}")),
        None => open(format!("{count} processes at once")),
    }
}

fn limit(name: &str) -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().nth(1)?.parse().ok()
}

fn core_dumps() -> Finding {
    check(limit("Max core file size") == Some(0), format!("core file size {:?}", limit("Max core file size")))
}

fn open_files() -> Finding {
    check(limit("Max open files").is_some_and(|most| most <= 1 << 20), format!("open files {:?}", limit("Max open files")))
}

fn locked_memory() -> Finding {
    check(limit("Max locked memory").is_some_and(|most| most <= 64 << 20), format!("locked memory {:?}", limit("Max locked memory")))
}

fn terminals() -> Finding {
    let mut held = Vec::new();
    for _ in 0..BEYOND {
        match std::fs::File::options().read(true).write(true).open("/dev/ptmx") {
            Ok(file) => held.push(file),
            Err(error) => return contained(format!("after {}: {error}", held.len())),
        }
    }
    open(format!("{} terminals at once", held.len()))
}

/// Hoards kernel objects until something stops it, and says how many it had: not one of the probes, since what stops it may
/// be the end of the process (B6.74).
pub fn hoard() {
    const MOST: usize = 200_000;
    let chunk = vec![0u8; 64 << 10];
    let mut held = Vec::new();
    while held.len() < MOST {
        let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK) else { break };
        // A pipe takes what it has room for; the rest is of no interest.
        let _ = rustix::io::write(&write, &chunk);
        held.push((read, write));
        if let Ok((one, other)) = std::os::unix::net::UnixStream::pair() {
            let _ = one.set_nonblocking(true);
            while rustix::io::write(&one, &chunk).is_ok() {}
            held.push((one.into(), other.into()));
        }
    }
    println!("{}", held.len());
}

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "process-limit", reference: "B6.72", control: Some("limits"), attempt: processes },
    Probe { name: "core-dumps", reference: "B6.80", control: None, attempt: core_dumps },
    Probe { name: "open-files", reference: "B6.80", control: None, attempt: open_files },
    Probe { name: "locked-memory", reference: "B6.80", control: None, attempt: locked_memory },
    Probe { name: "terminals", reference: "B6.82", control: None, attempt: terminals },
];
