//! Floods and slow ends of the standard streams (B6.78): nothing is lost, nothing piles up in memory.

use cofferdam_tests::Home;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Far more than any buffer on the way, far less than the flood.
const MOST_KIB: u64 = 64 << 10;
const FLOOD: u64 = 200 << 20;

fn peak_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
pub fn a_flood_waits_for_its_slow_reader() {
    let home = Home::new();
    let flood = FLOOD.to_string();
    let mut child = home.command(&["run", "--", "head", "-c", &flood, "/dev/zero"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut out = child.stdout.take().expect("piped");
    std::thread::sleep(Duration::from_secs(1));
    let peak = peak_kib(&child);
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match out.read(&mut buffer).expect("reads") {
            0 => break,
            length => total += length as u64,
        }
    }
    assert!(child.wait().expect("ends").success());
    assert_eq!(total, FLOOD);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[test]
pub fn a_flood_of_input_waits_for_a_slow_workload() {
    let home = Home::new();
    let words = ["run", "-i", "--", "sh", "-c", "sleep 1; wc -c"];
    let mut child = home.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut input = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || {
        let chunk = vec![b'x'; 1 << 20];
        (0..FLOOD >> 20).try_for_each(|_| input.write_all(&chunk))
    });
    std::thread::sleep(Duration::from_millis(800));
    let peak = peak_kib(&child);
    writer.join().expect("no panic").expect("all of it is taken");
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("reads");
    assert!(child.wait().expect("ends").success());
    assert_eq!(said.trim(), FLOOD.to_string());
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[test]
pub fn a_reader_that_goes_away_ends_the_workload() {
    let home = Home::new();
    let mut child = home.command(&["run", "--", "yes"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut out = child.stdout.take().expect("piped");
    let mut some = [0; 100];
    out.read_exact(&mut some).expect("reads");
    drop(out);
    let status = child.wait().expect("ends");
    assert_eq!(status.code(), Some(141), "as in a pipeline: SIGPIPE");
}

#[test]
pub fn odd_bytes_come_through_unchanged() {
    let home = Home::new();
    let words = ["run", "--", "printf", "%b", r"a\0b\xff\xfe\033[31m\r\n\tno end of line"];
    let out = home.command(&words).output().expect("runs").stdout;
    assert_eq!(out, b"a\0b\xff\xfe\x1b[31m\r\n\tno end of line");
}
