//! What a supervisor does itself for an ordinary user without cgroups: tells what a sandbox uses, kills the largest process of one that
//! uses more memory than it may, ends what an exec'd process started. A workload that means to can escape the last two for a moment, or
//! for good: they are said to be missing.

use cofferdam_engine::Usage;
use cofferdam_sys::process::{self, read_kernel_file};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

const PERIOD: Duration = Duration::from_millis(50);
/// Ticks of a second in `/proc/<pid>/stat` (`USER_HZ`, the same on every architecture that we build for).
const TICKS: u64 = 100;
const ROUNDS: u32 = 50;
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// What watches one sandbox. It stops when this is dropped.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    kills: Arc<AtomicU64>,
    peak: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Watch {
    /// Of the sandbox with this pid 1: no more than so many bytes of memory. None if it has ended already.
    pub fn begin(pidfd: &OwnedFd, most_memory: u64) -> Option<Self> {
        let pid = process::pid_of(pidfd.as_fd())?;
        let (kills, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, highest) = (Arc::clone(&kills), Arc::clone(&peak));
        let watch = async move {
            loop {
                let begun = Instant::now();
                let used: Vec<(u32, u64)> = tree(pid).into_iter().map(|one| (one, memory(one))).collect();
                let total = used.iter().map(|(_, bytes)| bytes).sum::<u64>();
                highest.fetch_max(total, Ordering::Relaxed);
                // Pages that several share were counted for each: looked at more closely before anything is killed.
                if total > most_memory
                    && used.iter().map(|(one, _)| share(*one)).sum::<u64>() > most_memory
                    && let Some((largest, _)) = used.iter().filter(|(one, _)| *one != pid).max_by_key(|(_, bytes)| *bytes)
                {
                    counted.fetch_add(signal(pid, &[*largest], Signal::KILL).len() as u64, Ordering::Relaxed);
                }
                // Seldom while it is far from the limit; a tenth of one CPU at most.
                let pause = if total > most_memory / 4 { PERIOD } else { PERIOD * 4 };
                tokio::time::sleep(pause.max(begun.elapsed() * 9)).await;
            }
        };
        Some(Self { pid, kills, peak, task: tokio::spawn(watch).abort_handle() })
    }

    /// Processes killed for want of memory so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// What is used now.
    pub fn usage(&self) -> Usage {
        let pids = tree(self.pid);
        let memory_bytes = pids.iter().map(|pid| memory(*pid)).sum();
        let micros = pids.iter().map(|pid| cpu_micros(*pid)).sum();
        let peak = self.peak.fetch_max(memory_bytes, Ordering::Relaxed).max(memory_bytes);
        Usage { memory_bytes, memory_peak_bytes: peak, pids: pids.len() as u64, cpu_micros: micros }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends an exec'd process of the sandbox with this pid 1, and what it started: what descends from it, and what is of its session still.
pub fn end(pid_one: BorrowedFd<'_>, leader: u32) {
    let Some(pid_one) = process::pid_of(pid_one) else { return };
    let mut found: Vec<(u32, OwnedFd)> = Vec::new();
    for _ in 0..ROUNDS {
        let all = tree(pid_one).split_off(1);
        let below = tree(leader).into_iter().filter(|pid| all.contains(pid));
        let of_session = all.iter().copied().filter(|pid| session(*pid) == Some(leader));
        let new: Vec<u32> = below.chain(of_session).filter(|pid| !found.iter().any(|(known, _)| known == pid)).collect();
        // What stands still starts nothing new.
        let stopped = signal(pid_one, &new, Signal::STOP);
        if stopped.is_empty() {
            break;
        }
        found.extend(stopped);
    }
    for (_, pidfd) in &found {
        // One that is gone already needs none.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    for (_, pidfd) in &found {
        process::wait_ended(pidfd.as_fd(), GONE_WITHIN);
    }
}

/// Signals those that descend from this one; gives those that it reached. A number that meanwhile stands for somebody else's process is
/// not signalled: what is signalled was opened first, and seen below after that.
fn signal(above: u32, pids: &[u32], signal: Signal) -> Vec<(u32, OwnedFd)> {
    let open = |pid: &u32| Some((*pid, pidfd_open(Pid::from_raw(i32::try_from(*pid).ok()?)?, PidfdFlags::empty()).ok()?));
    let opened: Vec<(u32, OwnedFd)> = pids.iter().filter_map(open).collect();
    if opened.is_empty() {
        return opened;
    }
    let below = tree(above);
    opened.into_iter().filter(|(pid, pidfd)| below.contains(pid) && pidfd_send_signal(pidfd, signal).is_ok()).collect()
}

/// A process, which may have ended, and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = read_kernel_file(&task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Bytes of memory that are a process's own, files left out.
fn memory(pid: u32) -> u64 {
    let status = read_kernel_file(Path::new(&format!("/proc/{pid}/status"))).unwrap_or_default();
    kibibytes(&status, &["RssAnon:", "RssShmem:"])
}

/// The same, each page divided by those that share it. It costs more to ask for.
fn share(pid: u32) -> u64 {
    let rollup = read_kernel_file(Path::new(&format!("/proc/{pid}/smaps_rollup"))).unwrap_or_default();
    kibibytes(&rollup, &["Pss_Anon:", "Pss_Shmem:"])
}

fn kibibytes(text: &str, names: &[&str]) -> u64 {
    let value = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    text.lines().filter_map(value).sum::<u64>() * 1024
}

/// A field of `/proc/<pid>/stat`, counted from the one behind the name in parentheses.
fn stat_fields(pid: u32) -> Option<Vec<u64>> {
    let stat = read_kernel_file(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
}

fn session(pid: u32) -> Option<u32> {
    const SESSION: usize = 3;
    u32::try_from(*stat_fields(pid)?.get(SESSION)?).ok()
}

/// Its own time and that of children that it has collected.
fn cpu_micros(pid: u32) -> u64 {
    const USER_TIME: usize = 11;
    let ticks = stat_fields(pid).map_or(0, |fields| fields.iter().skip(USER_TIME).take(4).sum::<u64>());
    ticks * 1_000_000 / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn end_all(pidfd: &OwnedFd) {
        let own = process::pid_of(pidfd.as_fd()).expect("it lives");
        for pid in tree(own) {
            end(pidfd.as_fd(), pid);
        }
        signal(own, &[own], Signal::KILL);
    }

    #[test]
    fn a_tree_is_seen_and_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let script = "sleep 60 & sh -c 'sleep 60 & sleep 60' & wait";
            let mut shell = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("a shell");
            let pid = rustix::process::Pid::from_child(&shell);
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
            let watch = Watch::begin(&pidfd, u64::MAX).expect("it lives");
            while watch.usage().pids < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(watch.usage().memory_bytes > 0);
            let all = tree(shell.id());
            end_all(&pidfd);
            shell.wait().expect("ended");
            for pid in all {
                while session(pid).is_some()
                    && !read_kernel_file(Path::new(&format!("/proc/{pid}/stat"))).unwrap_or_default().contains(") Z")
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }

    #[test]
    fn the_largest_is_killed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let script = "head -c 67108864 /dev/zero | tail -c 67108864 | sleep 60";
            let mut shell = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("a shell");
            let pid = rustix::process::Pid::from_child(&shell);
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
            let watch = Watch::begin(&pidfd, 16 << 20).expect("it lives");
            while watch.kills() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            end_all(&pidfd);
            shell.wait().expect("ended");
        });
    }
}
