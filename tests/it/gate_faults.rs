//! What leaves a sandbox while its gate is killed again and again: a capture of every packet says.

use crate::gate::Place;
use cofferdam_tests::lab::{OTHER, SITE};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// By name and by address, over TCP and UDP, to resolvers and to what is allowed under another name.
const WORKLOAD: &str = r#"
try() { while [ ! -e /tmp/end ]; do timeout 2 "$@" >/dev/null 2>&1; done; }
try curl -s -m 1 http://93.184.0.3/ &
try curl -s -m 1 http://other.test/ &
try bash -c 'echo x > /dev/udp/93.184.0.3/53' &
try bash -c 'exec 3<>/dev/tcp/93.184.0.2/22' &
try getent hosts private.test &
try curl -s -m 1 --resolve site.test:80:93.184.0.3 http://site.test/ &
for i in $(seq ROUNDS); do curl -s -m 5 http://site.test/ >/dev/null && echo yes || echo no; sleep 0.05; done
until curl -s -m 5 http://site.test/ >/dev/null; do sleep 0.1; done
echo goes on
touch /tmp/end
"#;

/// A sandbox outlives as many gates as there are; but one that lives for minutes shows no more.
const KILLS_OF_ONE: usize = 100;

fn one_sandbox(place: &Place, kills: usize) {
    const LONGEST: Duration = Duration::from_secs(12);
    let script = WORKLOAD.replace("ROUNDS", &(kills * 4).to_string());
    let words = ["run", "--timeout", "1h", "--allow", "site.test:80", "--", "bash", "-c", &script];
    let child = place.lab.command(&place.home, &words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    for killed in 0..kills {
        let before = Instant::now();
        while place.kill_gate() == 0 {
            assert!(before.elapsed() < LONGEST, "after {killed} kills no gate has come");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    let output = child.wait_with_output().expect("ends");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.trim_end().ends_with("goes on") && out.contains("yes"), "it goes on with the last gate: {out}");
}

/// `COFFERDAM_KILLS` says how often; a thousand take some minutes.
#[test]
pub fn a_gate_that_is_killed_again_and_again_lets_nothing_out() {
    let kills: usize = std::env::var("COFFERDAM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let place = Place::new();
    let capture = place.lab.capture();
    let mut left = kills;
    while left > 0 {
        one_sandbox(&place, left.min(KILLS_OF_ONE));
        left -= left.min(KILLS_OF_ONE);
    }
    let allowed = [format!("tcp {SITE} 80"), format!("udp {SITE} 53")];
    let went = capture.finish();
    assert!(went.contains(&allowed[0]), "the capture works: {went:?}");
    let escaped: Vec<&String> = went.iter().filter(|what| !allowed.contains(what)).collect();
    assert!(escaped.is_empty(), "{escaped:?} left");
    assert!(place.log().contains(OTHER), "what was refused is on record");
}
