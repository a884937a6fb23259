//! Bad input: a one-line error that names the thing and the remedy, the documented exit status, nothing left.

use cofferdam_tests::Home;
use std::os::unix::fs::chown;

#[test]
pub fn each_is_one_line_with_a_remedy() {
    let home = Home::new();
    home.ok(&["run", "--", "true"]);
    let data = home.data().display().to_string();
    let into_data = format!("{data}:/x");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "--image", "/no/such", "true"], 125, "/no/such"),
        (&["run", "--image", "/var/empty-of-programs", "true"], 125, "image directory"),
        (&["run", "--image", "registry.example/x:1", "true"], 125, "registry.example/x:1"),
        (&["run", "-v", "/:/x", "true"], 125, "the whole host"),
        (&["run", "-v", "/proc:/x", "true"], 125, "/proc"),
        (&["run", "-v", "/sys:/x", "true"], 125, "/sys"),
        (&["run", "-v", "/dev:/x", "true"], 125, "/dev"),
        (&["run", "-v", "/root:/x", "true"], 125, "home directory"),
        (&["run", "-v", &into_data, "true"], 125, "data directory"),
        (&["run", "-v", "/no/such:/x", "true"], 125, "/no/such"),
        (&["run", "-v", "/srv:/usr/no/such/place", "true"], 125, "/usr/no/such/place"),
        (&["run", "--pids", "1", "true"], 125, "create a process"),
        (&["run", "-v", "nonsense", "true"], 125, "PATH:DST or NAME:DST"),
        (&["run", "-v", "/srv:relative", "true"], 125, "PATH:DST or NAME:DST"),
        (&["run", "-m", "900TiB", "true"], 125, "above this machine's"),
        (&["run", "--cpus", "4000", "true"], 125, "above this machine's"),
        (&["run", "-m", "1KiB", "true"], 125, "too small"),
        (&["run", "--network", "limited_web", "true"], 125, "nothing is"),
        (&["run", "--network", "isolated", "--allow", "a.test", "true"], 125, "nothing can be allowed"),
        (&["run", "--network", "full_web", "--allow", "a.test", "true"], 125, "leave allow out"),
        (&["run", "--allow", "preset:nothing", "true"], 125, "preset:packages"),
        (&["run", "--policy", "/no/such/policy.yaml", "true"], 125, "/no/such/policy.yaml"),
        (&["run", "--engine", "docker", "true"], 125, "docker"),
        (&["run", "-u", "nosuchuser", "true"], 125, "nosuchuser"),
        (&["run", "-u", "-1", "true"], 2, ""),
        (&["run", "-u", "4294967296", "true"], 125, "4294967296"),
        (&["run", "-w", "relative", "true"], 125, "absolute path"),
        (&["run", "-w", "/a/../../b", "true"], 126, "/a/../../b"),
        (&["run", "--toolchain", "cobol", "true"], 125, "cobol"),
        (&["run", "--toolchain", "/root", "true"], 125, "/root"),
        (&["run", "-e", "=x", "true"], 125, "KEY=VALUE"),
        (&["run", "--env-file", "/no/such", "true"], 125, "/no/such"),
        (&["task", "run", "/no/such"], 125, "/no/such"),
        (&["run", "--require", "seccomp,good luck", "true"], 125, "good luck"),
        (&["stop", "nosuch"], 1, "nosuch"),
        (&["exec", "nosuch", "true"], 125, "nosuch"),
        (&["kill", "-s", "NOSUCH", "x"], 2, "NOSUCH"),
    ];
    for (words, code, named) in cases {
        let ended = home.run(words);
        assert_eq!(ended.code, *code, "{words:?}: {ended:?}");
        assert!(ended.err.contains(named), "{words:?}: {ended:?}");
        if *code != 2 {
            assert_eq!(ended.err.lines().count(), 1, "{words:?}: {ended:?}");
        }
    }
}

#[test]
pub fn errors_are_structured_on_request() {
    let home = Home::new();
    let ended = home.run(&["inspect", "nothing", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&ended.err).expect("JSON");
    assert_eq!(error["error"]["code"], "not_found");
    assert!(error["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("ps -a")));
}

#[test]
pub fn another_users_data_directory() {
    let home = Home::new();
    std::fs::create_dir(home.data()).expect("made");
    chown(home.data(), Some(65534), None).expect("owned");
    let ended = home.run(&["run", "--", "true"]);
    assert!(ended.code == 125 && ended.err.contains("belongs to user nobody") && ended.err.lines().count() == 1, "{ended:?}");
    chown(home.data(), Some(0), None).expect("owned");
}

#[test]
pub fn a_corrupt_database_is_not_replaced() {
    let home = Home::new();
    home.ok(&["run", "--rm", "--name", "first", "--", "true"]);
    let database = home.data().join("cofferdam.db");
    for name in ["cofferdam.db-wal", "cofferdam.db-shm"] {
        let _ = std::fs::remove_file(home.data().join(name));
    }
    std::fs::write(&database, vec![0x55; 8192]).expect("written");
    for words in [&["run", "--name", "named", "--", "true"][..], &["run", "--", "sleep", "60"], &["run", "-d", "--", "sleep", "60"]] {
        let ended = home.run(words);
        assert!(ended.code == 125 && ended.err.contains("database"), "{words:?}: {ended:?}");
        let left = std::fs::read_dir(home.data().join("sandboxes")).expect("there").count();
        assert_eq!(left, 0, "{words:?} leaves nothing");
    }
    assert_eq!(std::fs::read(&database).expect("there"), vec![0x55; 8192]);
}

/// Directories in each other by the thousand: whoever reads or removes them says so or does it, and the sandbox lives.
#[test]
pub fn a_tree_that_is_too_deep_harms_nobody() {
    let home = Home::new();
    let dig = |place: &str, levels: u32, then: &str| {
        format!(
            "import os, time\nos.chdir('{place}')\nfor _ in range({levels}):\n  os.mkdir('d'); os.chdir('d')\nprint('done', flush=True)\n{then}"
        )
    };
    home.ok(&["run", "-d", "--name", "deep", "--", "python3", "-c", &dig("/workspace", 15_000, "time.sleep(1000)")]);
    cofferdam_tests::eventually("it is deep", || home.run(&["logs", "deep"]).out.contains("done"));
    let refused = home.run(&["diff", "deep"]);
    assert!(refused.code == 125 && refused.err.contains("more than 256 directories are in each other"), "{refused:?}");
    let out = home.path("out").display().to_string();
    let copied = home.run(&["cp", "deep:/workspace", &out]);
    assert!(copied.err.contains("nested too deep"), "{copied:?}");
    assert_eq!(home.ok(&["exec", "deep", "echo", "alive"]), "alive\n");
    home.ok(&["rm", "-f", "deep"]);
    home.ok(&["run", "-v", "dug:/data", "--", "python3", "-c", &dig("/data", 25_000, "")]);
    let exported = home.run(&["volume", "export", "dug"]);
    assert!(exported.code == 1 && exported.err.contains("more than 256 directories"), "{}", exported.err);
    home.ok(&["volume", "rm", "dug"]);
    assert!(!home.data().join("volumes/dug").exists());
}
