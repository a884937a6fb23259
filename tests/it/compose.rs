//! `task render`: files for a daemon alone, brought up by hand with docker-compose 1.29 and Compose 2.

use crate::docker::On;
use crate::text::snapshot;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::lab::Lab;
use cofferdam_tests::registry::debian_root;
use cofferdam_tests::{Ended, Home, ended};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn task(home: &Home, name: &str, rest: &str) -> PathBuf {
    let directory = home.path(name);
    for part in ["src", "tests", "solution", "files"] {
        fs::create_dir_all(directory.join(part)).expect("made");
        fs::write(directory.join(part).join("there"), format!("{part}\n")).expect("written");
    }
    let image = if name == "kept" { "full:1" } else { "base:1" };
    let text = format!("version: 1\nid: {name}\ninstruction: do it for $5\nimage: {image}\n{rest}");
    fs::write(directory.join("task.yaml"), text).expect("written");
    directory
}

const CHECK: &str = "verify: {command: [sh, -c, 'test -e output/done']}\n";
const DONE: &str = "agent: {command: [sh, -c, 'echo done > output/done']}\n";

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Without what differs from host to host, from home to home and from attempt to attempt.
fn plain(home: &Home, text: &str) -> String {
    let text = text.replace(&home.path("").display().to_string(), "/home/");
    let mut words = Vec::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (body, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
        let odd = is_hexadecimal(body) && (body.len() == 64 || body.len() == 32);
        words.push(if odd { format!("{}{end}", "0".repeat(8)) } else { word.to_owned() });
    }
    let of_host = |line: &&str| !["soft:", "hard:"].iter().any(|key| line.trim_start().starts_with(key));
    words.concat().lines().filter(of_host).flat_map(|line| [line, "\n"]).collect()
}

/// What is on or off in a task is on or off in its file.
#[test]
fn the_file_says_what_the_task_says() {
    let home = Home::new();
    debian_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    let service = "{name: web, command: [sleep, '9'], files: files, ready: {port: 8080, timeout: 5s}, during: [agent, verify]}";
    let cases: &[(&str, &str, String)] = &[
        ("least", "task", format!("{DONE}{CHECK}")),
        ("files", "oracle", format!("workspace: {{src: src, tests: tests}}\nsolution: {{command: [sh, -c, 'echo $HOME']}}\n{CHECK}")),
        ("root", "task", format!("agent: {{command: ['true'], user: root, env: {{API_KEY: x, PLAIN: $y}}}}\n{CHECK}")),
        ("limits", "task", format!("limits: {{memory: 64MiB, cpus: 1.5, pids: 20, disk: 8MiB, timeout: 7s}}\n{DONE}{CHECK}")),
        ("services", "task", format!("services: [{service}, {{name: two, command: [sleep, '9'], user: web}}]\n{DONE}{CHECK}")),
        (
            "network",
            "task",
            format!(
                "network: limited_web\nallow: [site.test, 'preset:git-hosting']\nservices: [{service}]\n{DONE}verify: {{command: ['true'], network: full_web}}\n"
            ),
        ),
        ("tests", "nop", "verify: {command: [sh, tests/run], fail_to_pass: [\"it's::a\"], pass_to_pass: [b], user: web}\n".to_owned()),
    ];
    for (name, agent, rest) in cases {
        let (directory, to) = (task(&home, name, rest), home.path(&format!("rendered-{name}")));
        home.ok(&["task", "render", &directory.display().to_string(), "--agent", agent, "--to", &to.display().to_string()]);
        let text = fs::read_to_string(to.join("compose.yaml")).expect("written");
        assert!(!text.contains("API_KEY: x"), "a secret is the caller's: {text}");
        snapshot(&format!("compose-{name}.yaml"), &plain(&home, &text));
        let profile: Value = serde_json::from_str(&fs::read_to_string(to.join("seccomp.json")).expect("written")).expect("JSON");
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    }
}

#[test]
fn what_a_compose_file_cannot_say_is_refused() {
    let home = Home::new();
    debian_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    let refused = |name: &str, rest: &str, why: &str| {
        let directory = task(&home, name, rest);
        if name == "host" {
            let path = directory.join("task.yaml");
            let text = fs::read_to_string(&path).expect("read").replace("image: base:1\n", "");
            fs::write(path, text).expect("written");
        }
        let ended = home.run(&["task", "render", &directory.display().to_string(), "--to", &home.path("out").display().to_string()]);
        assert!(ended.code == 1 && ended.err.contains(why) && ended.err.lines().count() == 1, "{name}: {ended:?}");
        assert!(!home.path("out").exists(), "{name}");
    };
    let inside = format!("network: limited_web\nallow: ['host.cofferdam.internal:11434']\n{DONE}{CHECK}");
    refused("inside", &inside, "no way to this host's loopback");
    refused("host", &format!("{DONE}{CHECK}"), "not from this host's files");
    refused("nobody", CHECK, "agent.command");
    let directory = task(&home, "taken", &format!("{DONE}{CHECK}"));
    let to = home.path("out");
    fs::create_dir(&to).expect("made");
    fs::write(to.join("compose.yaml"), "services: {}\n").expect("written");
    let words = ["task", "render", &directory.display().to_string(), "--to", &to.display().to_string()];
    let taken = home.run(&words);
    assert!(taken.code == 1 && taken.err.contains("--to"), "{taken:?}");
    assert_eq!(fs::read_to_string(to.join("compose.yaml")).expect("read"), "services: {}\n");
    fs::remove_file(to.join("compose.yaml")).expect("removed");
    home.ok(&words);
    home.ok(&words);
}

fn composes() -> [PathBuf; 2] {
    let second = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/parts/usr/libexec/docker/cli-plugins/docker-compose");
    assert!(second.exists(), "Compose 2 is not here: cargo xtask test fetches it (xtask/parts.sh docker-compose)");
    [PathBuf::from("/usr/bin/docker-compose"), second]
}

/// Brings a rendered task up and takes it down; what the verifier said last, if it came to that.
fn reward(on: &On, compose: &Path, directory: &Path) -> Option<String> {
    let call = |words: &[&str]| -> Ended {
        let mut command = Command::new("timeout");
        command.arg("120").arg(compose).args(["-p", "rendered", "-f", "compose.yaml"]).args(words);
        ended(command.current_dir(directory).env("DOCKER_HOST", on.docker.host()))
    };
    let up = call(&["up", "-d"]);
    let said = if up.code == 0 { Some(call(&["logs", "-f", "--no-color", "verifier"])) } else { None };
    let agent = call(&["logs", "--no-color", "agent"]);
    let down = call(&["down", "-v", "-t", "1"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!((on.containers().as_str(), on.docker.ok("docker volume ls -q").as_str()), ("", ""), "nothing is left");
    let Some(said) = said else {
        assert!(agent.out.contains("reward 0: the time limit"), "{up:?} {agent:?}");
        return None;
    };
    let last = said.out.lines().rev().find_map(|line| line.split_once("reward ")).map(|(_, reward)| reward.trim().to_owned());
    assert!(last.is_some(), "{up:?} {said:?} {agent:?}");
    last
}

/// A task with a network has a gate, which lets out what the task allows and nothing else.
#[test]
fn a_task_with_a_network_has_its_gate() {
    let docker = Docker::start_bridged();
    cofferdam_tests::connect_labs(&docker);
    let on = On::with(docker);
    let lab = Lab::new(&on.home);
    on.ok(&["image", "load", "--engine", "docker", "base:1"]);
    let fetch = |url: &str, to: &str| format!("busybox timeout 5 busybox wget -q -O output/{to} {url}");
    let agent = format!(
        "{}; {}; {}; true",
        fetch("http://site.test/x", "yes"),
        fetch("http://other.test/", "no"),
        fetch("http://93.184.0.2/", "raw")
    );
    let text = format!(
        "network: limited_web\nallow: ['site.test:80']\nagent: {{command: [sh, -c, '{agent}']}}\n\
         verify: {{command: [sh, -c, 'grep -q site.test output/yes && test ! -s output/no && test ! -s output/raw'], network: limited_web, allow: ['other.test:80']}}\n"
    );
    let (directory, to) = (task(&on.home, "networked", &text), on.home.path("rendered-networked"));
    on.ok(&["task", "render", &directory.display().to_string(), "--to", &to.display().to_string()]);
    let head = fs::read_to_string(to.join("compose.yaml")).expect("written");
    let load = head.lines().find(|line| line.contains("cofferdam/gate:")).and_then(|line| line.split_whitespace().nth(6)).expect("said");
    on.ok(&["image", "load", "--engine", "docker", load]);
    let capture = lab.capture();
    for compose in composes() {
        assert_eq!(reward(&on, &compose, &to).as_deref(), Some("1"), "{}", compose.display());
    }
    let went = capture.finish();
    assert!(went.iter().all(|what| crate::gate::leads(what, &[80])), "{went:?}");
}

/// Brought up by hand it ends as `task run` does.
#[test]
fn both_composes_bring_it_up() {
    let on = On::new();
    on.ok(&["image", "load", "--engine", "docker", "base:1"]);
    let listen = "{name: web, command: [busybox, httpd, -f, -p, '127.0.0.1:8080', -h, /services/web], files: files, \
                  ready: {port: 8080}, during: [agent, verify]}";
    let fetch = "busybox wget -q -O - http://127.0.0.1:8080/there";
    let cases: &[(&str, &str, String)] = &[
        ("right", "task", format!("workspace: {{src: src}}\nagent: {{command: [sh, -c, 'cp src/there output/done; id -u; exit 3']}}\n{CHECK}")),
        ("wrong", "nop", CHECK.to_owned()),
        ("kept", "task", "agent: {command: [sh, -c, 'cat kept/file > output/done']}\nverify: {command: [sh, -c, 'cmp kept/file output/done']}\n".to_owned()),
        (
            "solved",
            "oracle",
            "workspace: {tests: tests}\nsolution: {command: [sh, -c, 'cp solution/there src/x; mkdir tests; echo 1 > tests/there']}\n\
             verify: {command: [sh, -c, 'echo PASSED a; grep -q tests tests/there && test -e src/x && echo PASSED b'], pass_to_pass: [a], fail_to_pass: [b]}\n"
                .to_owned(),
        ),
        (
            "failed",
            "task",
            "agent: {command: [sh, -c, 'echo x > output/x']}\n\
             verify: {command: [sh, -c, 'echo PASSED a; test ! -e output/x || echo FAILED a - no; exit 0'], pass_to_pass: [a]}\n"
                .to_owned(),
        ),
        ("slow", "task", format!("limits: {{timeout: 2s}}\nagent: {{command: [sleep, '60']}}\n{CHECK}")),
        (
            "half",
            "nop",
            "verify: {command: [sh, -c, 'echo \"{\\\"tests_2\\\": 3, \\\"reward\\\": 0.5}\" > /logs/verifier/reward.json']}\n".to_owned(),
        ),
        ("served", "task", format!("services: [{listen}]\nagent: {{command: [sh, -c, '{fetch}; true']}}\nverify: {{command: [sh, -c, '{fetch} | grep -q files']}}\n")),
        ("root", "task", "agent: {command: [sh, -c, 'touch /etc/x && chown web src && touch output/done'], user: root}\nverify: {command: [sh, -c, 'test -e output/done && test ! -e /etc/x && test $(stat -c %u src) = 10001']}\n".to_owned()),
    ];
    let place = on.home.path("image");
    fs::create_dir(&place).expect("made");
    fs::write(place.join("Dockerfile"), "FROM base:1\nRUN mkdir -p /workspace/kept && echo kept > /workspace/kept/file\n")
        .expect("written");
    on.ok(&["image", "build", "-q", "-t", "full:1", &place.display().to_string()]);
    on.ok(&["image", "load", "--engine", "docker", "full:1"]);
    let mut different = Vec::new();
    for (name, agent, rest) in cases {
        let (directory, to) = (task(&on.home, name, rest), on.home.path(&format!("rendered-{name}")));
        let place = directory.display().to_string();
        let ran = on.run(&["task", "run", "--engine", "docker", &place, "--agent", agent, "-o", "json"]);
        let record: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{name}: {ran:?}"));
        on.ok(&["task", "render", &place, "--agent", agent, "--to", &to.display().to_string()]);
        for compose in composes() {
            let said = reward(&on, &compose, &to).map_or(0.0, |text| text.parse::<f64>().unwrap_or(-1.0));
            if record["reward"].as_f64() != Some(said) {
                different.push(format!("{name} with {}: {said}, task run says {record}", compose.display()));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
