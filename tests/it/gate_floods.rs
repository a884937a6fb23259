//! What a sandbox that floods does to others: to the host's table of connections, and to a neighbour.

use crate::gate::Place;
use cofferdam_tests::lab::SITE;

/// Denied connections, and questions for names that are not allowed and for one that is.
const FLOOD: &str = "
import os, socket, sys
connects, questions = int(sys.argv[1]), int(sys.argv[2])
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.connect((open('/etc/resolv.conf').read().split()[1], 53))
resolver.setblocking(False)
def question(number):
    name = b'' .join(bytes([len(part)]) + part for part in (b'n%d' % number, b'test')) + b'\\0'
    return os.urandom(2) + b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + name + b'\\0\\1\\0\\1'
for number in range(questions):
    try: resolver.send(question(number))
    except OSError: pass
    try: resolver.recv(512)
    except OSError: pass
refused = 0
for number in range(connects):
    with socket.socket() as attempt:
        attempt.settimeout(2)
        try: attempt.connect((f'93.184.{number % 250}.{number // 250 % 250}', 1 + number % 60000))
        except OSError: refused += 1
print(refused)
";

fn tracked(place: &Place) -> u32 {
    let output = place.lab.in_host(&["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).output().expect("cat runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the host tracks connections")
}

#[test]
fn the_hosts_table_of_connections_stays_as_it_is() {
    let place = Place::new();
    // Tracking is on where a rule asks for it.
    let rule = "add table inet tracks; add chain inet tracks out { type filter hook output priority 0; }; add rule inet tracks out ct state new counter";
    let status = place.lab.in_host(&["nft", rule]).status().expect("nft runs");
    assert!(status.success());
    let flood = |options: &[&str]| {
        let words = [&["run"], options, &["--", "python3", "-c", FLOOD, "10000", "20000"]].concat();
        let ran = place.lab.run(&place.home, &words);
        assert_eq!((ran.code, ran.out.trim()), (0, "10000"), "{ran:?}");
    };
    for options in [&[][..], &["--allow", "site.test:80"]] {
        flood(options);
        assert_eq!(tracked(&place), 0, "{options:?}");
    }
    let ran = place.lab.run(&place.home, &["run", "--allow", "site.test:80", "--", "curl", "-sS", "-m", "9", "http://site.test/"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        (1..5).contains(&tracked(&place)),
        "the gate's own connection to {SITE} and its question are what is tracked: {}",
        tracked(&place)
    );
}
