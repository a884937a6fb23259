//! Policies: checked and explained, replaced and followed while a sandbox runs, learned from one, and those of tasks.

use crate::gate::Place;
use cofferdam_tests::{Home, ended, eventually};

/// Tightening closes what is no longer allowed, and nothing else; widening needs no restart.
#[test]
pub fn a_policy_is_replaced_while_connections_stand() {
    let place = Place::new();
    let script = "import socket,time,os\n\
        a=socket.create_connection(('site.test',7)); b=socket.create_connection(('other.test',80))\n\
        def ask(): a.sendall(b'x'); return a.recv(10)\n\
        print('first', ask(), flush=True)\n\
        while not os.path.exists('/tmp/go'): time.sleep(0.05)\n\
        try: r=ask(); print('a', r or b'end', flush=True)\n\
        except OSError as e: print('a', type(e).__name__, flush=True)\n\
        b.sendall(b'GET /b HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n'); print('b', len(b.recv(1000))>10, flush=True)\n\
        try: socket.create_connection(('site.test',25),3).recv(10); print('c reached', flush=True)\n\
        except OSError as e: print('c', type(e).__name__, flush=True)\n\
        while not os.path.exists('/tmp/again'): time.sleep(0.05)\n\
        print('d', socket.create_connection(('site.test',25),3).recv(10), flush=True)\n";
    let words = ["run", "-d", "--name", "long", "--allow", "site.test:7", "--allow", "other.test:80", "--", "python3", "-c", script];
    let ran = place.lab.run(&place.home, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let log = || place.home.run(&["logs", "long"]).out;
    eventually("it is connected", || log().contains("first"));
    let policy = place.home.path("tighter.yaml");
    std::fs::write(&policy, "version: 1\nnetwork: limited_web\nallow: [\"*\"]\n").expect("written");
    let path = policy.display().to_string();
    let broken = place.home.run(&["policy", "replace", "long", &path]);
    assert!(broken.code == 1 && broken.err.contains("tighter.yaml:3:"), "{broken:?}");
    std::fs::write(&policy, "version: 1\nnetwork: limited_web\nallow: [\"other.test:80\"]\n").expect("written");
    assert_eq!(place.home.ok(&["policy", "replace", "long", &path]), "long: generation 2 is in force, 1 connection closed\n");
    place.home.ok(&["exec", "long", "touch", "/tmp/go"]);
    eventually("it noticed", || log().contains("c "));
    assert!(log().contains("a ConnectionResetError") && log().contains("b True") && !log().contains("c reached"), "{}", log());
    assert_eq!(place.home.ok(&["policy", "allow", "long", "site.test:25"]), "long: generation 3 is in force, 0 connections closed\n");
    let explained = place.home.ok(&["policy", "explain", "long", "site.test:25"]);
    assert!(explained.contains("allowed by site.test:25"), "{explained}");
    place.home.run(&["exec", "long", "touch", "/tmp/again"]);
    eventually("it is let through", || log().contains("d b'220 ready"));
    place.home.ok(&["rm", "-f", "long"]);
}

/// What is changed in the file that a sandbox was given holds at once; a broken file changes nothing; `--always` writes there and nowhere else.
#[test]
pub fn a_policy_file_is_followed_and_edited() {
    let place = Place::new();
    let (policy, home) = (place.home.path("policy.yaml"), &place.home);
    let write = |text: &str| std::fs::write(&policy, text).expect("written");
    let begin = "# Mine.\nversion: 1\nnetwork: limited_web\nallow:\n  - site.test:7 # echo\n";
    write(begin);
    let words = ["run", "-d", "--name", "long", "--policy", &policy.display().to_string(), "--allow", "flag.test:1", "--", "sleep", "100"];
    let ran = place.lab.run(home, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let reach = |port: u16| {
        let look = format!(
            "import socket; socket.create_connection(('site.test', {port}), 3).recv(10) if {port} == 25 else socket.create_connection(('site.test', {port}), 3)"
        );
        home.run(&["exec", "long", "python3", "-c", &look]).code == 0
    };
    assert!(reach(7) && !reach(25));
    write(&begin.replace("site.test:7", "site.test:25"));
    eventually("the change is in force", || !reach(7));
    assert!(reach(25));
    let allowed = |what: &str| home.run(&["policy", "explain", "long", what]).code == 0;
    assert!(allowed("flag.test:1"), "what was said by a flag still holds");
    write("version: 1\nnetwork: limited_web\nallow: [\"*\"]\n");
    eventually("the broken file is on record", || home.ok(&["policy", "log", "long"]).contains("policy.refused"));
    assert!(reach(25) && home.ok(&["policy", "log", "long"]).contains("the old policy stays in force"));
    write(begin);
    eventually("it is mended", || !reach(25));
    // Into the file, whose words stay.
    let added = home.ok(&["policy", "allow", "--always", "long", "site.test:25"]);
    assert!(added.contains("is in force") && reach(25), "{added}");
    assert_eq!(std::fs::read_to_string(&policy).expect("there"), format!("{begin}  - \"site.test:25\"\n"));
    // In an editor: of this sandbox, and of the file.
    let edit = |editor: &str, words: &[&str]| ended(home.command(&[&["policy", "edit", "long"], words].concat()).env("VISUAL", editor));
    let once = edit("sed -i /25/d", &[]);
    // Its ports are those that a rule without any has.
    assert!(once.code == 0 && !reach(25) && allowed("site.test:443"), "{once:?}");
    let file = edit("sed -i s/site.test:7/site.test:80/", &["--always"]);
    assert!(file.code == 0 && std::fs::read_to_string(&policy).expect("there").contains("  - site.test:80 # echo\n"), "{file:?}");
    eventually("that is in force", || allowed("site.test:80") && !allowed("site.test:7"));
    let broken = edit("sed -i s/limited_web/everything/", &["--always"]);
    assert!(
        broken.code == 1 && broken.err.contains("the old policy stays in force") && broken.err.contains("what you wrote is in"),
        "{broken:?}"
    );
    assert!(std::fs::read_to_string(&policy).expect("there").contains("limited_web"));
    let kept = broken.err.split("what you wrote is in ").nth(1).and_then(|rest| rest.split(':').next()).expect("a path");
    std::fs::remove_file(kept).expect("it is there");
    assert!(edit("true", &[]).err.contains("nothing was changed"));
    assert_eq!(edit("false", &[]).code, 1);
    home.ok(&["rm", "-f", "long"]);
    // Without a file there is nothing to write to.
    let ran = place.lab.run(home, &["run", "-d", "--name", "none", "--allow", "site.test:7", "--", "sleep", "100"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let refused = home.run(&["policy", "allow", "--always", "none", "x.test"]);
    assert!(refused.code == 1 && refused.err.contains("was given no policy file"), "{refused:?}");
    assert_eq!(home.run(&["policy", "explain", "none", "x.test"]).code, 1, "and nothing changed");
    home.ok(&["rm", "-f", "none"]);
}

#[test]
pub fn a_policy_is_learned() {
    let place = Place::new();
    let ran = place.shell(
        &["--learn"],
        "curl -sS -m 9 http://site.test/; curl -sS -m 9 -k https://other.test/ >/dev/null; getent hosts never-dialled.test; true",
    );
    let policy = ran.err.split("would have been enough:\n").nth(1).expect("a policy");
    assert_eq!(policy.trim_end(), "version: 1\nnetwork: limited_web\nallow:\n  - \"other.test:443\"\n  - \"site.test:80\"", "{ran:?}");
    let file = place.home.path("learned.yaml");
    std::fs::write(&file, policy).expect("written");
    let ran = place
        .shell(&["--policy", &file.display().to_string()], "curl -sS -m 9 http://site.test/ && ! curl -sS -m 5 http://site.test:8080/");
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// The agent has its network, the verifier its own.
#[test]
pub fn a_task_has_a_network_for_each_phase() {
    let place = Place::new();
    let task = place.home.path("task");
    std::fs::create_dir_all(&task).expect("made");
    let text = "version: 1\nid: fetch\ninstruction: fetch it\nnetwork: limited_web\nallow: [\"site.test:80\"]\n\
                agent: {command: [sh, -c, 'mkdir -p output && curl -sS -m 9 http://site.test/x > output/page']}\n\
                verify: {command: [sh, -c, 'grep -q site.test output/page && ! curl -sS -m 5 http://site.test/']}\n\
                limits: {memory: 256MiB, disk: 64MiB}\n";
    std::fs::write(task.join("task.yaml"), text).expect("written");
    let ran = place.lab.run(&place.home, &["task", "run", &task.display().to_string(), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
    assert_eq!(shown["reward"], 1.0, "{ran:?}");
}

/// Into the file of the task that is being attempted: the agent goes on with it, and so does the next.
#[test]
pub fn a_tasks_own_list_is_added_to() {
    let place = Place::new();
    let task = place.home.path("task");
    std::fs::create_dir_all(&task).expect("made");
    let text = "version: 1\nid: fetch\ninstruction: fetch it\nnetwork: limited_web\nallow: [\"other.test:80\"] # more on demand\n\
                agent: {command: [sh, -c, 'mkdir -p output; until curl -sS -m 3 http://site.test/x > output/page; do sleep 0.1; done']}\n\
                verify: {command: [grep, -q, site.test, output/page]}\nlimits: {memory: 256MiB, disk: 64MiB, timeout: 60s}\n";
    let file = task.join("task.yaml");
    std::fs::write(&file, text).expect("written");
    let mut command = place.lab.command(&place.home, &["task", "run", &task.display().to_string(), "-o", "json"]);
    let attempt = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("starts");
    let running = || place.home.run(&["ps", "-q"]).out.trim().to_owned();
    eventually("its sandbox runs", || !running().is_empty());
    let id = running();
    eventually("it has asked", || place.home.run(&["policy", "log", &id]).out.contains("site.test"));
    let broken = ended(place.home.command(&["policy", "edit", "--always", &id]).env("VISUAL", "sed -i s/other.test/*/"));
    assert!(broken.code == 1 && broken.err.contains("the old policy stays in force"), "{broken:?}");
    place.home.ok(&["policy", "allow", "--always", &id, "site.test:80"]);
    let ended = attempt.wait_with_output().expect("ends");
    let shown: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    assert_eq!(shown["reward"], 1.0, "{shown}");
    assert_eq!(
        std::fs::read_to_string(&file).expect("there"),
        text.replace("[\"other.test:80\"]", "[\"other.test:80\", \"site.test:80\"]")
    );
}

#[test]
pub fn policies_are_checked_and_explained() {
    let home = Home::new();
    let file = home.path("policy.yaml");
    std::fs::write(&file, "version: 1\nnetwork: limited_web\nallow: [site.test, \"*.example.com:8443\"]\ndeny: [bad.example.com]\n")
        .expect("written");
    let path = file.display().to_string();
    let shown = home.ok(&["policy", "check", &path]);
    assert!(shown.contains("site.test:443") && shown.contains("opaque") && shown.contains("deny bad.example.com"), "{shown}");
    for (destination, code, part) in [
        ("site.test", 0, "allowed by site.test:443"),
        ("site.test:80", 1, "this name is allowed at port 443 only"),
        ("a.example.com:8443", 0, "allowed by *.example.com:8443"),
        ("bad.example.com:8443", 1, "denied by deny bad.example.com"),
        ("10.0.0.1", 1, "no rule allows this address"),
    ] {
        let ran = home.run(&["policy", "explain", &path, destination]);
        assert!(ran.code == code && ran.out.contains(part), "{destination}: {ran:?}");
    }
    for (text, part) in [
        ("version: 1\nnetwork: limited_web\nallow: [\"*\"]\n", "policy.yaml:3:9"),
        ("version: 1\nnetwork: limited_web\n", "nothing is"),
        ("version: 1\nnetwork: isolated\nallow: [a.test]\n", "policy.yaml:2:1"),
    ] {
        std::fs::write(&file, text).expect("written");
        let ran = home.run(&["policy", "check", &path]);
        assert!(ran.code == 1 && ran.err.contains(part), "{text}: {ran:?}");
        let ran = home.run(&["run", "--policy", &path, "--", "true"]);
        assert!(ran.code == 125 && ran.err.contains(part), "{text}: {ran:?}");
    }
    for words in [&["run", "--allow", "*", "--", "true"][..], &["run", "--allow", "https://a.test/x", "--", "true"]] {
        let ran = home.run(words);
        assert!(ran.code == 125 && ran.err.contains("--allow"), "{ran:?}");
    }
    let ran = home.run(&["run", "--network", "limited_web", "--", "true"]);
    assert!(ran.code == 125 && ran.err.contains("nothing is"), "{ran:?}");
    eventually("no gate was started for any of these", || !home.data().join("gate").exists());
}
