//! A gate in a container beside each sandbox of a daemon: tests of other files again, and what is different.

use crate::docker::On;
use crate::gate::leads;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::lab::{Lab, SITE};
use cofferdam_tests::{Ended, ended, eventually};
use std::fs;
use std::process::Command;

again! {
    cofferdam_tests::beside_on_docker;
    gate: what_is_allowed_is_reached_and_on_record, what_is_not_allowed_is_refused_and_nothing_is_asked_outside,
        names_that_lead_inside_are_not_dialled, names_are_resolved_however_they_are_asked_for, an_open_network_is_gated_all_the_same,
        half_closed_and_server_first_connections_work, an_upstream_proxy_is_asked_for_what_was_checked,
        a_killed_supervisors_decisions_are_swept_into_the_record, the_resolver_answers_what_it_should;
    policies: a_policy_is_replaced_while_connections_stand, a_policy_file_is_followed_and_edited, a_policy_is_learned;
    clients: git_over_https_and_its_own_protocol, pip_and_apt_fetch_packages, psql_a_web_socket_and_openssl,
        tools_that_look_for_a_way_out_find_none;
}

/// A daemon with a bridge that leads to a laboratory, and sandboxes with their gates beside them.
struct Place {
    lab: Lab,
    on: On,
}

impl Place {
    fn new() -> Self {
        let docker = Docker::start_bridged();
        cofferdam_tests::connect_labs(&docker);
        let on = On::with(docker);
        fs::write(on.home.path("config.yaml"), "docker: {gate: sidecar}\n").expect("written");
        Self { lab: Lab::new(&on.home), on }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(&self.on.home, words);
        command.env("DOCKER_HOST", self.on.docker.host()).env("COFFERDAM_CONFIG_PATH", self.on.home.path("config.yaml"));
        command
    }

    fn sandbox(&self, options: &[&str], script: &str) -> Ended {
        let engine = ["run", "--engine", "docker", "--image", "base:1"];
        let words: Vec<&str> = engine.iter().chain(options).copied().chain(["--", "sh", "-c", script]).collect();
        ended(&mut self.command(&words))
    }
}

const ALLOWED: &[&str] = &["--allow", "site.test:80"];
const FETCH: &str = "busybox timeout 5 busybox wget -q -O - http://site.test/";

/// Nothing stands in its place: the sandbox ends, and nothing came out meanwhile.
#[test]
fn a_gate_that_is_killed_ends_its_sandbox() {
    let place = Place::new();
    let capture = place.lab.capture();
    let script =
        format!("{FETCH}x && touch /tmp/reached; while true; do busybox timeout 2 busybox nc {SITE} 22; {FETCH}y; sleep 0.1; done");
    let options = [&["-d", "--name", "held"], ALLOWED].concat();
    let begun = place.sandbox(&options, &script);
    assert_eq!(begun.code, 0, "{begun:?}");
    eventually("it reaches what it may", || ended(&mut place.command(&["exec", "held", "--", "test", "-e", "/tmp/reached"])).code == 0);
    place.on.docker.ok("docker kill $(docker ps -q --filter name=-gate)");
    let waited = ended(&mut place.command(&["wait", "held"]));
    let shown = ended(&mut place.command(&["inspect", "held"]));
    assert!(shown.out.contains("gate_lost"), "{waited:?} {shown:?}");
    place.on.ok(&["rm", "held"]);
    eventually("its containers are gone", || place.on.containers().is_empty());
    let went = capture.finish();
    assert!(went.contains(&format!("tcp {SITE} 80")) && went.iter().all(|what| leads(what, &[80])), "{went:?}");
}

/// Of every thread: the first one stays in the network that the workload shares.
#[test]
fn a_gate_beside_has_no_rights() {
    let place = Place::new();
    assert_eq!(place.sandbox(&[&["-d", "--name", "held"], ALLOWED].concat(), "sleep 100").code, 0);
    let pid = place.on.docker.ok("docker inspect -f '{{.State.Pid}}' $(docker ps -q --filter name=-gate)");
    let other = place.on.docker.ok("docker inspect -f '{{.State.Pid}}' $(docker ps -q | grep -v $(docker ps -q --filter name=-gate))");
    let network = |pid: &str| fs::read_link(format!("/proc/{}/ns/net", pid.trim())).expect("it runs");
    assert_eq!(network(&pid), network(&other), "they share a network");
    let links = Command::new("nsenter").args([&format!("--net=/proc/{}/ns/net", other.trim()), "ip", "-o", "link"]).output().expect("ip");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(links.lines().all(|line| line.split(": ").nth(1).is_some_and(|name| name == "lo" || line.contains("state DOWN"))), "{links}");
    let threads = fs::read_dir(format!("/proc/{}/task", pid.trim())).expect("it runs");
    let mut networks = std::collections::BTreeSet::new();
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("read");
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert!(line("Uid:").split(' ').all(|uid| uid == "1878982657"), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
        assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"), "{status}");
        networks.insert(fs::read_link(thread.path().join("ns/net")).expect("read"));
    }
    assert_eq!(networks.len(), 2, "it serves from a network of its own");
    place.on.ok(&["rm", "-f", "held"]);
}

/// Root of such a sandbox may not become somebody else, and holds nothing over the network.
#[test]
fn root_beside_a_gate_holds_less() {
    let place = Place::new();
    let ran = place.sandbox(&[&["-u", "root"], ALLOWED].concat(), "grep CapBnd /proc/self/status; id -u");
    assert_eq!(ran.out, "CapBnd:\t000000000000002b\n0\n", "{ran:?}");
}

/// What the host's own network is, is not split in two, and a workload that could undo it is not served.
#[test]
fn what_a_sidecar_does_not_take_over() {
    let on = On::new();
    let program = on.home.command(&["gate", "--sidecar"]).get_program().to_owned();
    let attempt = |network: &str, held: &[&str]| {
        let name = format!("cfs-{}", std::process::id());
        let script = format!(
            "ip netns add {name}; there() {{ nsenter --net=/run/netns/{name} \"$@\"; }}; {network}; there \"$0\" gate --sidecar --socket {} \"$@\"; \
             there ip -o link | cut -d: -f2; kill $! 2>/dev/null; ip netns del {name}",
            on.home.path("gate.sock").display()
        );
        ended(Command::new("bash").args(["-c", &script]).arg(&program).args(held))
    };
    let none = ["--workload-capabilities", "none"];
    for (network, held, why) in [
        ("there ip link add name br0 type bridge; there ip link add eth0 type veth peer name eth1", &none[..], "br0 is bridge"),
        ("true", &none, "no link that leads outside"),
        ("true", &["--workload-capabilities", "chown,cap_net_raw"], "it holds NET_RAW"),
        ("true", &[], "--workload-capabilities is wanted"),
        ("there sleep 3 & there ip link add eth0 type veth peer name eth1", &none, "it holds SETGID"),
    ] {
        let ended = attempt(network, held);
        assert!(ended.err.contains(why), "{network}: {ended:?}");
        let links = network.matches("link add").count() + network.matches("peer").count() + 1;
        assert_eq!(ended.out.lines().count(), links, "{network}: nothing was moved: {ended:?}");
    }
}

/// A gate that anybody starts by hand, before whatever they want to contain.
#[test]
fn a_sidecar_by_hand() {
    let place = Place::new();
    let docker = &place.on.docker;
    let name = format!("localhost/cofferdam/gate:{}", env!("CARGO_PKG_VERSION"));
    place.on.ok(&["image", "load", "--engine", "docker", &name]);
    place.on.ok(&["image", "load", "--engine", "docker", "base:1"]);
    let image = |name: &str| {
        let listed = place.on.ok(&["image", "inspect", "-o", "json", name]);
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        listed["config_digest"].as_str().expect("a digest").to_owned()
    };
    let (gate, base) = (image(&name), image("base:1"));
    let policy = place.on.home.path("policy");
    fs::create_dir(&policy).expect("made");
    let write = |text: &str| fs::write(policy.join("policy.yaml"), text).expect("written");
    write("version: 1\nnetwork: limited_web\nallow: ['site.test:80']\n");
    // In a network of the user's the daemon has a resolver, which is one more way out.
    docker.ok("docker network create --subnet 172.29.0.128/25 named || docker network create --subnet 172.30.0.0/24 named");
    for network in ["bridge", "named"] {
        let resolver = if network == "named" { format!("--resolver {SITE}") } else { String::new() };
        docker.ok(&format!(
            "docker run -d --name gate --network {network} --read-only --tmpfs /run/cofferdam --cap-drop ALL --cap-add NET_ADMIN --cap-add SYS_ADMIN \
             --cap-add SETUID --cap-add SETGID --security-opt no-new-privileges -v {}:/etc/cofferdam:ro --health-interval 1s \
             --health-cmd '[\"/cofferdam\", \"gate\", \"--healthy\", \"/run/cofferdam/gate.sock\"]' --entrypoint /cofferdam {gate} gate --sidecar \
             --policy /etc/cofferdam/policy.yaml --workload-capabilities none {resolver}",
            policy.display()
        ));
        let healthy = || docker.run("docker exec gate /cofferdam gate --healthy /run/cofferdam/gate.sock").code == 0;
        eventually("the gate is there", healthy);
        let work = |script: &str| {
            docker.run(&format!(
                "docker run --rm --network container:gate --cap-drop ALL --security-opt no-new-privileges -u 10001:10001 \
                 -v {}:/etc/resolv.conf:ro {base} sh -c '{script}'",
                place.on.home.path("resolv.conf").display()
            ))
        };
        fs::write(place.on.home.path("resolv.conf"), "nameserver 198.18.0.1\n").expect("written");
        let reached = work(&format!("{FETCH}x"));
        if network == "bridge" {
            assert!(reached.out.contains("site.test /x"), "{reached:?} {}", docker.ok("docker logs gate 2>&1"));
        }
        for script in [
            "busybox timeout 5 busybox wget -q -O - http://other.test/",
            "busybox timeout 5 busybox wget -q -O - http://93.184.0.3/",
            "busybox timeout 5 busybox nslookup site.test 127.0.0.11",
            "busybox timeout 5 busybox nc 127.0.0.11 53 < /dev/null",
        ] {
            assert_ne!(work(script).code, 0, "{network}: {script}");
        }
        let log = docker.ok("docker logs gate 2>&1");
        assert!(log.contains("\"verdict\":\"denied\",\"host\":\"other.test\"") && log.contains("127.0.0.11"), "{log}");
        write("version: 1\nnetwork: limited_web\nallow: ['other.test:80']\n");
        eventually("the new policy is in force", || docker.ok("docker logs gate 2>&1").contains("generation 2"));
        assert_ne!(work(&format!("{FETCH}y")).code, 0, "what is no longer allowed");
        write("version: 1\nnetwork: limited_web\nallow: ['site.test:80']\n");
        docker.ok("docker rm -f gate");
    }
    docker.ok("docker network rm named");
}
