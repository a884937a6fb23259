//! The gate as a process: found where it listens, else started, by one at a time.

use super::{READY, gate_directory, gate_socket};
use crate::control::short_path;
use cofferdam_gate::client::Gate;
use cofferdam_sys::lock;
use rustix::event::{PollFd, PollFlags};
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a gate may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at what others do.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Connects to the gate of a data directory, starting it if there is none.
pub fn find_or_start(data: &Path, program: &Path) -> io::Result<Gate> {
    let connect = || {
        // A socket's address holds 108 bytes, a data directory may be deeper.
        let short = short_path(&gate_socket(data))?;
        Gate::connect(short.path())
    };
    if let Ok(gate) = connect() {
        return Ok(gate);
    }
    let directory = gate_directory(data);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let _lock = wait_for_lock(&directory.join("lock"), STARTED_WITHIN)?;
    // Someone else may have started it while this process waited.
    if let Ok(gate) = connect() {
        return Ok(gate);
    }
    start(data, program, &directory, STARTED_WITHIN)?;
    connect()
}

/// A gate is started within milliseconds. Who has taken so long hangs, and must not make everybody hang.
fn wait_for_lock(path: &Path, within: Duration) -> io::Result<OwnedFd> {
    let file = lock::open_file(path).map_err(|error| error.source)?;
    let begun = Instant::now();
    while !lock::try_lock(&file, true).map_err(|error| error.source)? {
        if begun.elapsed() > within {
            let why = format!("another process has been starting the gate for {} s: it holds {}", within.as_secs(), path.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(file)
}

fn start(data: &Path, program: &Path, directory: &Path, within: Duration) -> io::Result<()> {
    let log = File::options().create(true).append(true).open(directory.join("gate.log"))?;
    let mut child = Command::new(program)
        .arg("--data-dir")
        .arg(data)
        .arg("gate")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let (mut word, mut hung) = (String::new(), false);
    if let Some(out) = child.stdout.take() {
        let mut polled = [PollFd::new(&out, PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
        if rustix::event::poll(&mut polled, Some(&wait))? == 0 {
            hung = true;
            child.kill()?;
        }
        BufReader::new(out).read_line(&mut word)?;
    }
    if word.trim() == READY {
        return Ok(());
    }
    let status = child.wait()?;
    // Somebody has ended it, and may not the next one; one that ends itself does so each time.
    let kind = if status.signal().is_some() && !hung { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, format!("the gate did not start ({status}): see {}", directory.join("gate.log").display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_that_hangs_holds_nobody_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, within) = (directory.path().join("lock"), Duration::from_millis(50));
        let held = wait_for_lock(&path, within).expect("free");
        assert_eq!(wait_for_lock(&path, within).expect_err("held").kind(), io::ErrorKind::TimedOut);
        drop(held);
        wait_for_lock(&path, within).expect("free again");
        // A gate that says nothing is ended.
        let program = directory.path().join("silent");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").expect("written");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let error = start(directory.path(), &program, directory.path(), within).expect_err("it is no gate");
        assert!(error.to_string().contains("the gate did not start (signal: 9"), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::Other, "the next one would say as little");
        // One that somebody else ends is worth another.
        std::fs::write(&program, "#!/bin/sh\nkill -9 $$\n").expect("written");
        let error = start(directory.path(), &program, directory.path(), Duration::from_secs(5)).expect_err("it is no gate");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
