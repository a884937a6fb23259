//! Named volumes: they outlive their sandboxes, hold what they may and no more, and mean the same to whoever uses them.

use cofferdam_tests::{Home, ended, eventually};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::thread;

fn root(home: &Home) -> bool {
    home.data().join("volumes").read_dir().expect("volumes").flatten().all(|entry| entry.path().join("image").exists())
}

/// What the kernel's own checker says of a volume that nobody uses.
fn check(home: &Home, name: &str) {
    let image = home.data().join("volumes").join(name).join("image");
    let checked = ended(Command::new("e2fsck").args(["-fn"]).arg(&image).env("PATH", "/usr/sbin:/sbin"));
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
pub fn a_volume_outlives_its_sandboxes() {
    let home = Home::new();
    let script = "echo kept > /data/x; mkdir /data/d; ls -A /data; stat -c %U /data";
    assert_eq!(home.ok(&["run", "-v", "work:/data", "--", "sh", "-c", script]), "d\nx\nagent\n", "it begins empty, and is its user's");
    let again = home.run(&["run", "-v", "work:/elsewhere:ro", "--", "sh", "-c", "cat /elsewhere/x; touch /elsewhere/y; exit 3"]);
    assert!(again.code == 3 && again.out == "kept\n" && again.err.contains("Read-only file system"), "{again:?}");
    home.ok(&["run", "-d", "--name", "long", "-v", "work:/data", "--", "sleep", "100"]);
    let shown: Value = serde_json::from_str(&home.ok(&["volume", "inspect", "work"])).expect("JSON");
    assert_eq!((&shown["used_by"][0]["name"], &shown["used_by"][0]["target"]), (&"long".into(), &"/data".into()), "{shown}");
    let record: Value = serde_json::from_str(&home.ok(&["inspect", "long"])).expect("JSON");
    assert_eq!(record["volumes"], serde_json::json!([{"name": "work", "target": "/data", "writable": true}]));
    let listed = home.ok(&["volume", "ls"]);
    assert!(listed.lines().nth(1).is_some_and(|line| line.starts_with("work ") && line.ends_with("long")), "{listed}");
    let refused = home.run(&["volume", "rm", "work"]);
    assert!(refused.code == 1 && refused.err.contains("volume work is in use"), "{refused:?}");
    home.ok(&["rm", "-f", "long"]);
    home.ok(&["prune"]);
    assert_eq!(home.ok(&["run", "-v", "work:/data", "--", "cat", "/data/x"]), "kept\n", "no prune takes it");
    assert_eq!(home.ok(&["volume", "rm", "work"]), "work\n");
    assert_eq!(home.run(&["volume", "rm", "work"]).code, 1);
    assert_eq!(fs::read_dir(home.data().join("volumes")).expect("listed").count(), 0);
    let events = home.ok(&["events", "-o", "json"]);
    assert!(events.contains("volume.created") && events.contains("volume.removed") && events.contains("volume:work"), "{events}");
    assert_eq!(home.ok(&["run", "-v", "work:/data", "--", "ls", "-A", "/data"]), "", "another of that name is empty");
}

#[test]
pub fn an_agents_memory_is_a_volume() {
    let home = Home::new();
    home.ok(&["run", "--memory-volume", "mind", "--", "sh", "-c", "echo 1 > $MEMORY_DIR/notes"]);
    assert_eq!(home.ok(&["run", "--memory-volume", "mind", "--", "sh", "-c", "cat /memory/notes"]), "1\n");
    assert_eq!(home.ok(&["run", "-v", "mind:/memory", "--", "sh", "-c", "cat /memory/notes; echo ${MEMORY_DIR-unset}"]), "1\nunset\n");
}

#[test]
pub fn many_sandboxes_share_a_volume() {
    let home = Home::new();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|number| {
                let home = &home;
                let script = format!("for i in 1 2 3; do echo {number} > /data/{number}-$i; done; sync /data/{number}-3");
                scope.spawn(move || home.run(&["run", "-v", "shared:/data", "--", "sh", "-c", &script]))
            })
            .collect();
        for start in starts {
            let ran = start.join().expect("no panic");
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    });
    assert_eq!(home.ok(&["run", "-v", "shared:/data", "--", "sh", "-c", "ls /data | wc -l"]), "24\n");
    // What one writes another sees at once.
    home.ok(&["run", "-d", "--name", "reader", "-v", "shared:/data:ro", "--", "sleep", "100"]);
    home.ok(&["run", "-v", "shared:/data", "--", "sh", "-c", "echo now > /data/now"]);
    assert_eq!(home.ok(&["exec", "reader", "cat", "/data/now"]), "now\n");
    home.ok(&["rm", "-f", "reader"]);
    if root(&home) {
        eventually("the loop device is free", || home.residue().is_empty());
        check(&home, "shared");
    }
}

#[test]
fn a_volume_holds_its_size_and_no_more() {
    let home = Home::new();
    home.ok(&["volume", "create", "small", "--size", "16MiB"]);
    let ran = home.run(&[
        "run",
        "-v",
        "small:/data",
        "--",
        "sh",
        "-c",
        "head -c 64M /dev/zero > /data/big; stat -c %s /data/big; rm /data/big; echo more > /data/x && cat /data/x",
    ]);
    let written: u64 = ran.out.lines().next().and_then(|line| line.parse().ok()).expect("a size");
    assert!(ran.err.contains("No space left") && written < 16 << 20 && written > 8 << 20 && ran.out.ends_with("more\n"), "{ran:?}");
    let files =
        home.run(&["run", "-v", "small:/data", "--", "sh", "-c", "cd /data; seq 1 9999 | xargs touch 2>&1; rm -f /data/*; echo ok"]);
    assert!(files.out.contains("No space left") && files.out.ends_with("ok\n"), "nor files without end: {files:?}");
    for (words, message) in [
        (&["volume", "create", "huge", "--size", "900TiB"][..], "MiB are kept for the host"),
        (&["volume", "create", "tiny", "--size", "1MiB"], "8MiB at least"),
        (&["volume", "create", "small"], "volume small exists"),
        (&["volume", "inspect", "nobody"], "no volume is called nobody"),
        (&["volume", "export", "nobody"], "no volume is called nobody"),
    ] {
        let refused = home.run(words);
        assert!(refused.code == 1 && refused.err.contains(message), "{words:?}: {refused:?}");
    }
    // Its bytes are set aside: no file of the host's can take them.
    let image = home.data().join("volumes/small/image");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(image).expect("there"));
    assert!(blocks * 512 >= 16 << 20, "{blocks} blocks");
    assert_eq!(fs::read_dir(home.data().join("volumes")).expect("listed").count(), 1, "what failed left nothing");
}

#[test]
pub fn an_archive_brings_everything_back() {
    let home = Home::new();
    let make = "cd /data; echo x > a; ln a hard; ln -s /etc/passwd link; mkfifo pipe; chmod 4751 a; mkdir -m 700 d; echo y > d/$(printf '%0120d' 1); \
                touch -d @1000000000 a; chmod 1770 .";
    let look = "cd /data; find . -printf '%p %y %m %U %G %l %n\\n' | sort; stat -c %Y a; cat a d/*";
    home.ok(&["run", "-v", "one:/data", "--", "sh", "-c", make]);
    let before = home.ok(&["run", "-v", "one:/data", "--", "sh", "-c", look]);
    let archive = home.path("archive.tar").display().to_string();
    home.ok(&["volume", "export", "one", &archive]);
    home.ok(&["volume", "import", "two", &archive]);
    assert_eq!(home.ok(&["run", "-v", "two:/data", "--", "sh", "-c", look]), before);
    assert_eq!(home.run(&["volume", "import", "two", &archive]).code, 1, "never over another");
    home.ok(&["run", "-v", "one:/data", "--", "touch", "/data/.wh.x"]);
    let refused = home.run(&["volume", "export", "one", &archive]);
    assert!(refused.code == 1 && refused.err.contains(".wh."), "{refused:?}");
    home.ok(&["volume", "import", "three", &archive]);
    // An archive that leads out, and one that is none.
    let bad = home.path("bad.tar");
    for prepare in [
        "tar -cf bad.tar --transform 's,^,../,' -P file",
        "ln -sf / out && tar -cf bad.tar out && tar -rf bad.tar --transform 's,^,out/tmp/,' file",
        "echo nothing > bad.tar",
    ] {
        let made = ended(Command::new("sh").args(["-c", &format!("echo evil > file; {prepare}")]).current_dir(home.path("")));
        assert_eq!(made.code, 0, "{made:?}");
        let refused = home.run(&["volume", "import", "bad", &bad.display().to_string()]);
        assert!(!home.path("../file").exists() && !std::path::Path::new("/tmp/file").exists(), "{prepare}");
        if refused.code == 0 {
            home.ok(&["volume", "rm", "bad"]);
        } else {
            assert!(refused.code == 1 && !home.data().join("volumes/bad").exists(), "{refused:?}");
        }
    }
}

#[test]
pub fn a_killed_supervisor_lets_go_of_its_volume() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "victim", "-v", "work:/data", "--", "sh", "-c", "echo kept > /data/x; sync; sleep 100"]);
    eventually("it has written", || home.run(&["exec", "victim", "cat", "/data/x"]).out == "kept\n");
    let record: Value = serde_json::from_str(&home.ok(&["inspect", "victim"])).expect("JSON");
    let id = record["id"].as_str().expect("an id");
    assert_eq!(ended(Command::new("pkill").args(["-9", "-f", &format!("monitor --id {id}")])).code, 0);
    eventually("the lock is free", || home.run(&["run", "-v", "work:/data", "--", "cat", "/data/x"]).out == "kept\n");
    home.ok(&["prune"]);
    home.ok(&["volume", "rm", "work"]);
}

#[test]
fn a_maker_that_was_killed_leaves_nothing_that_counts() {
    let home = Home::new();
    home.ok(&["volume", "create", "there", "--size", "8MiB"]);
    let dead = home.data().join("volumes/.making-999999999-half");
    fs::create_dir(&dead).expect("made");
    fs::write(dead.join("image"), "half").expect("written");
    assert_eq!(home.ok(&["volume", "ls"]).lines().count(), 2);
    home.ok(&["prune"]);
    assert!(!dead.exists(), "swept");
}

#[test]
pub fn mistakes_are_told() {
    let home = Home::new();
    for (volume, message) in [
        ("Data:/x", "for a file or directory say ./Data"),
        ("data", "PATH:DST or NAME:DST is wanted"),
        ("data:x", "PATH:DST or NAME:DST is wanted"),
        ("data:/x/../../etc", "without '..'"),
        ("~/data:/x", "No such file"),
    ] {
        let refused = home.run(&["run", "-v", volume, "--", "true"]);
        assert!(refused.code != 0 && refused.err.contains(message), "{volume}: {refused:?}");
    }
    fs::create_dir_all(home.path("cwd/src")).expect("made");
    let noted = ended(home.command(&["run", "-v", "src:/x", "--", "ls", "-d", "/x"]).current_dir(home.path("cwd")));
    assert!(noted.code == 0 && noted.err.contains("for what is called so here say ./src"), "{noted:?}");
    let quiet = ended(home.command(&["run", "-v", "src:/x", "--", "ls", "-d", "/x"]).current_dir(home.path("cwd")));
    assert_eq!(quiet.err, "", "said once");
}
