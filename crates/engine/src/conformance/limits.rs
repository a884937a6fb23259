//! Limits: reached inside, felt nowhere else, reported as what they are.

use super::{Check, Kit, Verdict, check, expect};
use crate::ExitStatus;
use cofferdam_model::{Bytes, Cpus};
use std::time::Instant;

async fn memory_is_reported(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.memory = Bytes::mebibytes(64)).await?;
    let ran = made.main(&["/bin/sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"]).await?;
    let kills = made.observe().await?.out_of_memory_kills;
    made.delete().await?;
    expect(!ran.out.contains("survived") && kills > 0, || format!("{:?}, {kills} kills", ran.status))
}

async fn memory_files_are_charged(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.memory = Bytes::mebibytes(64)).await?;
    let ran = made
        .main(&[
            "/bin/sh",
            "-c",
            "head -c 60000000 /dev/zero > /dev/shm/f && head -c 60000000 /dev/zero > /tmp/f; ls -l /dev/shm /tmp | wc -c",
        ])
        .await?;
    let used = made.observe().await?.usage.memory_bytes;
    made.delete().await?;
    expect(used <= 64 << 20, || format!("{used} bytes, {:?}", ran.status))
}

async fn processes(kit: &Kit<'_>) -> Verdict {
    let ran = kit.script("i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; echo all").await?;
    expect(!ran.out.contains("all"), || format!("{ran:?}"))
}

async fn fork_bomb_is_killable(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&["/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done"]).await?;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let begun = Instant::now();
    made.sandbox.control(crate::Control::Kill).await.map_err(|e| e.to_string())?;
    main.wait().await;
    let took = begun.elapsed();
    made.delete().await?;
    expect(took.as_secs() < 5, || format!("it took {took:?}"))
}

async fn disk_in_memory(kit: &Kit<'_>) -> Verdict {
    disk(kit, Bytes::mebibytes(16)).await
}

async fn disk_on_disk(kit: &Kit<'_>) -> Verdict {
    disk(kit, Bytes::mebibytes(160)).await
}

/// Root, `/workspace` and `/tmp` share the limit; a full disk is ENOSPC, not a kill.
async fn disk(kit: &Kit<'_>, limit: Bytes) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.disk = Some(limit)).await?;
    let script = "for d in /workspace /tmp $HOME; do dd if=/dev/zero of=$d/f bs=1M count=400 2>&1 | grep -o 'No space left'; rm -f $d/f; done; echo end";
    let ran = made.main(&["/bin/sh", "-c", script]).await?;
    made.delete().await?;
    expect(ran.out.matches("No space left").count() == 3 && ran.out.ends_with("end\n"), || format!("{ran:?}"))
}

async fn inodes(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.disk = Some(Bytes::mebibytes(16))).await?;
    let ran = made.main(&["/bin/sh", "-c", "cd /tmp; seq 1 100000 | xargs touch 2>&1 | grep -c 'No space left' || true"]).await?;
    made.delete().await?;
    expect(ran.out.trim().parse::<u64>().is_ok_and(|count| count > 0), || format!("{:?} {:?}", ran.status, ran.out))
}

async fn open_files(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.open_files = 100).await?;
    let ran = made.main(&["/bin/sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"]).await?;
    made.delete().await?;
    expect(ran.out == "100\n100\n0\n", || format!("{ran:?}"))
}

/// A spinning process gets its share: measured in CPU time, so that a busy machine changes nothing.
async fn cpu(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.cpus = Cpus::from_millis(200).unwrap_or(spec.limits.cpus)).await?;
    let _main = made.start(&["/bin/sh", "-c", "while :; do :; done"]).await?;
    let (begun, before) = (Instant::now(), made.observe().await?.usage.cpu_micros);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let (took, after) = (begun.elapsed(), made.observe().await?.usage.cpu_micros);
    made.delete().await?;
    let share = (after - before) as f64 / took.as_micros() as f64;
    expect(share < 0.2 * 1.25, || format!("it had {share:.3} of a CPU, 0.2 is the limit"))
}

async fn limits_survive_exec(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|spec| spec.limits.memory = Bytes::mebibytes(64)).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let ran = made.exec(&["/bin/sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"]).await?;
    let alive = made.exec(&["/bin/echo", "alive"]).await?;
    made.delete().await?;
    let stopped = !ran.out.contains("survived");
    expect(stopped && alive.status == ExitStatus::Code(0), || format!("{ran:?} {alive:?}"))
}

/// Pipes and sockets full of bytes are charged to whoever made them (B6.74).
async fn kernel_objects_are_charged(kit: &Kit<'_>) -> Verdict {
    let limit = Bytes::mebibytes(96);
    let made = kit.sandbox(|spec| (spec.limits.memory, spec.limits.open_files) = (limit, 100_000)).await?;
    let neighbour = kit.sandbox(|_| {}).await?;
    let _main = neighbour.start(&["/bin/sleep", "60"]).await?;
    let ran = made.main(&[super::kit::PROBE_PATH, "probe", "hoard"]).await?;
    let used = made.observe().await?.usage.memory_peak_bytes;
    let alive = neighbour.exec(&["/bin/echo", "alive"]).await?;
    made.delete().await?;
    neighbour.delete().await?;
    let hoarded: u64 = ran.out.trim().parse().unwrap_or(0);
    let stopped = hoarded < 200_000 && used <= limit.get();
    expect(stopped && alive.out == "alive\n", || format!("{hoarded} hoarded, {used} bytes, {:?}, {alive:?}", ran.status))
}

/// While one sandbox does its worst with processes, memory, disk and CPU, another starts, works and ends (B6).
async fn a_neighbour_goes_on(kit: &Kit<'_>) -> Verdict {
    let worst = kit.sandbox(|spec| spec.limits.disk = Some(Bytes::mebibytes(32))).await?;
    let script = "bomb() { bomb | bomb & }; (while :; do cat /dev/zero > /tmp/f; rm -f /tmp/f; done) & \
                  (while :; do x=$(head -c 60000000 /dev/zero | tr '\\0' x); done) & bomb; while :; do :; done";
    let _main = worst.start(&["/bin/sh", "-c", script]).await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(kit.script("echo here; ls / >/dev/null; : > /tmp/mine").await?);
    }
    worst.delete().await?;
    expect(seen.iter().all(|ran| ran.out == "here\n" && ran.status == ExitStatus::Code(0)), || format!("{seen:?}"))
}

/// All of them.
pub const CHECKS: &[Check] = &[
    check!(memory_is_reported, "memory is limited, and a kill for want of it told"),
    check!(memory_files_are_charged, "files in memory count"),
    check!(processes, "processes are limited"),
    check!(fork_bomb_is_killable, "a fork bomb ends within seconds of a kill"),
    check!(disk_in_memory, "a full disk is ENOSPC, the root and /tmp within the same limit: a small one"),
    check!(disk_on_disk, "the same of a large one"),
    check!(inodes, "files are limited in number"),
    check!(open_files, "open files and core dumps are limited"),
    check!(cpu, "a spinning process gets its share"),
    check!(limits_survive_exec, "limits hold for execs"),
    check!(kernel_objects_are_charged, "kernel memory counts"),
    check!(a_neighbour_goes_on, "a neighbour goes on beside one that uses up everything"),
];
