//! Processes: status, streams, users, signals, terminals.

use super::{Check, Kit, Made, Verdict, check, expect};
use crate::{Control, EngineError, ErrorKind, ExitStatus, Stdio};
use std::time::{Duration, Instant};

async fn exit_status(kit: &Kit<'_>) -> Verdict {
    for code in [0, 1, 42, 255] {
        let ran = kit.script(&format!("exit {code}")).await?;
        expect(ran.status == ExitStatus::Code(code), || format!("{code}: {:?}", ran.status))?;
    }
    Ok(())
}

async fn signal_status(kit: &Kit<'_>) -> Verdict {
    let ran = kit.script("kill -SEGV $$").await?;
    expect(ran.status == ExitStatus::Signal(11), || format!("{:?}", ran.status))
}

async fn streams_are_apart(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let ran = made.run(made.process(&["/bin/sh", "-c", "cat; echo problem >&2"]), true, "typed\n").await?;
    made.delete().await?;
    expect(ran.out == "typed\n" && ran.err == "problem\n", || format!("{ran:?}"))
}

async fn missing_program(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let error = made.try_run(made.process(&["no-such-program"]), true, "").await?;
    made.delete().await?;
    expect(matches!(error, Err(EngineError::NotFound { .. })), || format!("{error:?}"))
}

async fn program_without_permission(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let error = made.try_run(made.process(&["/etc/passwd"]), true, "").await?;
    made.delete().await?;
    expect(matches!(error, Err(EngineError::NotExecutable { .. })), || format!("{error:?}"))
}

async fn missing_directory(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut process = made.process(&["/bin/true"]);
    process.directory = "/no/such/directory".into();
    let error = made.try_run(process, true, "").await?;
    made.delete().await?;
    expect(error.as_ref().is_err_and(|e| e.kind() == ErrorKind::Program), || format!("{error:?}"))
}

async fn oversized_arguments(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let long = "x".repeat(3 << 20);
    let error = made.try_run(made.process(&["/bin/true", &long]), true, "").await?;
    let still = made.main(&["/bin/echo", "alive"]).await?;
    made.delete().await?;
    expect(error.as_ref().is_err_and(|e| e.kind() == ErrorKind::Invalid) && still.out == "alive\n", || format!("{error:?} {still:?}"))
}

async fn large_environment(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut process = made.process(&["/bin/sh", "-c", "env | wc -c"]);
    process.environment.extend((0..10_000).map(|i| format!("KEY_{i}={}", "v".repeat(80)).into_bytes()));
    let ran = made.run(process, true, "").await?;
    made.delete().await?;
    expect(ran.out.trim().parse::<u64>().is_ok_and(|bytes| bytes > 890_000), || format!("{ran:?}"))
}

async fn script_without_interpreter_line(kit: &Kit<'_>) -> Verdict {
    let script = "printf 'echo from $0 $1' > /tmp/plain; chmod +x /tmp/plain; exec env /tmp/plain word";
    let ran = kit.script(script).await?;
    expect(ran.out == "from /tmp/plain word\n", || format!("{ran:?}"))
}

async fn users(kit: &Kit<'_>) -> Verdict {
    for (user, expected) in [(None, "10001 10001"), (Some("0"), "0 0"), (Some("1234:99"), "1234 99"), (Some("nobody"), "")] {
        if expected.is_empty() && kit.image.user(user).is_err() {
            continue;
        }
        let made = kit.sandbox_of(user).await?;
        let ran = made.main(&["/bin/sh", "-c", "echo $(id -u) $(id -g)"]).await?;
        made.delete().await?;
        expect(ran.out.trim() == expected, || format!("{user:?}: {ran:?}"))?;
    }
    Ok(())
}

async fn root_manages_its_range(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox_of(Some("0")).await?;
    let script =
        "touch /tmp/f && chown 1234:99 /tmp/f && stat -c %u:%g /tmp/f && mkdir /srv/own && su -s /bin/sh nobody -c 'id -u' || exit 1";
    let ran = made.main(&["/bin/sh", "-c", script]).await?;
    made.delete().await?;
    expect(ran.out.starts_with("1234:99\n"), || format!("{ran:?}"))
}

async fn host_name_and_hosts(kit: &Kit<'_>) -> Verdict {
    let ran = kit.script("hostname; cat /etc/hostname; grep -c conformance /etc/hosts; grep -c nameserver /etc/resolv.conf").await?;
    expect(ran.out == "conformance\nconformance\n1\n1\n", || format!("{ran:?}"))
}

async fn terminal(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut process = made.process(&["/bin/sh", "-c", "tty && stty size && test -t 0 && test -t 2"]);
    process.terminal = Some((33, 77));
    let mut process = made.sandbox.start(process, Stdio::Terminal).await.map_err(|e| e.to_string())?;
    let master = process.terminal.take().ok_or("no terminal")?;
    let status = process.wait().await;
    let mut shown = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut buffer) {
        shown.extend_from_slice(&buffer[..length]);
    }
    made.delete().await?;
    let shown = String::from_utf8_lossy(&shown);
    expect(status == ExitStatus::Code(0) && shown.contains("33 77") && shown.contains("/dev/pts/"), || format!("{status:?} {shown:?}"))
}

async fn exec_joins(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sh", "-c", "echo here > /tmp/mark; exec sleep 60"]).await?;
    let wait = "until grep -q here /tmp/mark 2>/dev/null; do sleep 0.01; done; cat /tmp/mark; exit 9";
    let ran = made.exec(&["/bin/sh", "-c", wait]).await?;
    made.delete().await?;
    expect(ran.out == "here\n" && ran.status == ExitStatus::Code(9), || format!("{ran:?}"))
}

async fn many_execs_at_once(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let words: Vec<String> = (0..20).map(|number| format!("echo {number}")).collect();
    let mut running = Vec::new();
    for word in &words {
        running.push(made.exec(&["/bin/sh", "-c", word]).await?);
    }
    made.delete().await?;
    expect(running.iter().enumerate().all(|(number, ran)| ran.out.trim() == number.to_string()), || format!("{running:?}"))
}

/// Ending an exec ends everything it started, a daemon in a session of its own included, and nothing else.
async fn exec_ends_with_its_children(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let script = "setsid sh -c 'sh -c \"sleep 1001 & sleep 1002 &\" &' ; sleep 1003";
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(Into::into).map_err(|e| e.to_string());
    let stdio = Stdio::Fds([null()?, null()?, null()?]);
    let process = made.sandbox.exec(made.process(&["/bin/sh", "-c", script]), stdio).await.map_err(|e| e.to_string())?;
    let count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 100[123]' | sort -u | wc -l";
    let mut before = String::new();
    for _ in 0..100 {
        before = made.exec(&["/bin/sh", "-c", count]).await?.out;
        if before.trim() == "3" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    made.sandbox.control(Control::End { process: process.id }).await.map_err(|e| e.to_string())?;
    let after = made.exec(&["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).await?.out;
    made.delete().await?;
    let only_main = after.contains("sleep 60") && !after.contains("sleep 100");
    expect(before.trim() == "3" && only_main, || format!("before {before:?}, after {after:?}"))
}

async fn main_ends_everything(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let ran = made.main(&["/bin/sh", "-c", "setsid sleep 1000 & exit 3"]).await?;
    let id = made.spec.id;
    made.delete().await?;
    let swept = kit.engine.sweep(id).await.map_err(|e| e.to_string())?;
    expect(ran.status == ExitStatus::Code(3) && !swept, || format!("{ran:?}, something was left: {swept}"))
}

/// Until the script has made `/tmp/ready`.
async fn until_ready(made: &Made) -> Verdict {
    for _ in 0..1000 {
        if made.exec(&["/bin/test", "-e", "/tmp/ready"]).await?.status == ExitStatus::Code(0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the script did not become ready".into())
}

async fn stop_lets_it_end(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&["/bin/sh", "-c", "trap 'exit 5' TERM; : > /tmp/ready; while :; do sleep 0.05; done"]).await?;
    until_ready(&made).await?;
    made.sandbox.control(Control::Stop { grace: Duration::from_secs(20) }).await.map_err(|e| e.to_string())?;
    let status = main.wait().await;
    made.delete().await?;
    expect(status == ExitStatus::Code(5), || format!("{status:?}"))
}

/// Without a program the main process is there and does nothing; the sandbox serves others.
async fn held_for_others(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&[]).await?;
    made.exec(&["/bin/sh", "-c", "echo kept > /tmp/x"]).await?;
    let again = made.exec(&["/bin/cat", "/tmp/x"]).await?;
    made.sandbox.control(Control::Stop { grace: Duration::from_secs(20) }).await.map_err(|e| e.to_string())?;
    let status = main.wait().await;
    made.delete().await?;
    expect(again.out == "kept\n" && status == ExitStatus::Signal(15), || format!("{again:?} {status:?}"))
}

async fn stop_kills_the_stubborn(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&["/bin/sh", "-c", "trap '' TERM INT HUP; : > /tmp/ready; while :; do sleep 1; done"]).await?;
    until_ready(&made).await?;
    let begun = Instant::now();
    made.sandbox.control(Control::Stop { grace: Duration::from_millis(200) }).await.map_err(|e| e.to_string())?;
    let status = main.wait().await;
    made.delete().await?;
    expect(status == ExitStatus::Signal(9) && begun.elapsed() < Duration::from_secs(10), || {
        format!("{status:?} after {:?}", begun.elapsed())
    })
}

async fn kill_ends_a_stopped_process(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&["/bin/sh", "-c", "kill -STOP $$; sleep 60"]).await?;
    made.sandbox.control(Control::Kill).await.map_err(|e| e.to_string())?;
    let status = main.wait().await;
    made.delete().await?;
    expect(status == ExitStatus::Signal(9), || format!("{status:?}"))
}

async fn pause_and_kill(kit: &Kit<'_>) -> Verdict {
    if !kit.engine.capabilities().pause {
        return Ok(());
    }
    let made = kit.sandbox(|_| {}).await?;
    let mut main = made.start(&["/bin/sh", "-c", "while :; do :; done"]).await?;
    made.sandbox.control(Control::Pause).await.map_err(|e| e.to_string())?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = made.observe().await?.usage.cpu_micros;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = made.observe().await?.usage.cpu_micros;
    made.sandbox.control(Control::Kill).await.map_err(|e| e.to_string())?;
    let status = main.wait().await;
    made.delete().await?;
    expect(before == after && status == ExitStatus::Signal(9), || format!("{before} {after} {status:?}"))
}

async fn zombies_are_reaped(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let storm = "for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'true &' &) ; done; sleep 0.3; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l";
    let ran = made.exec(&["/bin/sh", "-c", storm]).await?;
    made.delete().await?;
    expect(ran.out.trim() == "0", || format!("{ran:?}"))
}

/// All of them.
pub const CHECKS: &[Check] = &[
    check!(exit_status, "an exit code comes through: 0, 1, 42, 255"),
    check!(signal_status, "a death by signal is told from an exit code"),
    check!(streams_are_apart, "standard input comes in; output and errors come out apart"),
    check!(missing_program, "a program that is not there is an error of its own"),
    check!(program_without_permission, "so is one that may not be executed"),
    check!(missing_directory, "so is a working directory that is not there"),
    check!(oversized_arguments, "3 MiB of arguments are refused, and the sandbox goes on"),
    check!(large_environment, "900 KB of environment arrive"),
    check!(script_without_interpreter_line, "a script without an interpreter line runs, as with execvp"),
    check!(users, "each user is who it should be: by default, by number, by name"),
    check!(root_manages_its_range, "root changes owners, makes directories and becomes somebody else"),
    check!(host_name_and_hosts, "host name, hosts and resolver are the sandbox's own"),
    check!(terminal, "a terminal of its own, with the size that was asked for"),
    check!(exec_joins, "a further process sees what the first one sees"),
    check!(many_execs_at_once, "twenty at once keep their output apart"),
    check!(exec_ends_with_its_children, "an exec ends with everything it started, daemons too, and with nothing else"),
    check!(main_ends_everything, "with the main process everything ends, and nothing is left"),
    check!(held_for_others, "without a program the sandbox is there for execs"),
    check!(stop_lets_it_end, "a stop is a TERM, and the program's own exit code"),
    check!(stop_kills_the_stubborn, "who ignores it is killed after the grace period"),
    check!(kill_ends_a_stopped_process, "a stopped process is killed, too"),
    check!(pause_and_kill, "paused, nothing uses the processor; killed, it ends"),
    check!(zombies_are_reaped, "orphans are collected"),
];
