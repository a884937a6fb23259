//! What a sandbox changed on a Docker daemon: told, kept and judged as on the native engine.

use crate::docker::On;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::eventually;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Each kind of change, at places that everybody writes to and at others; what the image has at some of them.
const CHANGE: &str = "echo a > /workspace/new; rm -f /workspace/gone; mkdir -p /workspace/full; echo b > /workspace/full/b; rm -rf /workspace/old; \
     mkdir /workspace/old; echo c >> /tmp/kept; ln -s /workspace/new /home/agent/link; ln /workspace/new /workspace/same; \
     chmod 600 /workspace/mode; rm -f /etc/there; mkdir -p /opt/made && echo e > /opt/made/e; touch /workspace/mounted/x; \
     mkfifo /workspace/pipe; echo done; sleep 1000";

#[test]
fn what_a_sandbox_changed_is_told_as_on_native() {
    is_told_as_on_native(&On::new());
}

#[test]
fn what_a_sandbox_changed_is_told_where_users_are_remapped() {
    is_told_as_on_native(&On::with(Docker::start_remapped()));
}

fn is_told_as_on_native(on: &On) {
    let place = on.home.path("image");
    fs::create_dir(&place).expect("made");
    let text = "FROM base:1\nRUN mkdir -p /workspace/old /home/agent && touch /workspace/old/x /workspace/gone /workspace/mode /tmp/kept /etc/there \
                && chmod -R 777 /workspace /home/agent /tmp/kept\n";
    fs::write(place.join("Dockerfile"), text).expect("written");
    on.ok(&["image", "build", "-q", "-t", "full:1", &place.display().to_string()]);
    let shared = on.home.path("shared");
    fs::create_dir(&shared).expect("made");
    let mount = format!("{}:/workspace/mounted", shared.display());
    for user in ["agent", "root"] {
        let told = ["native", "docker"].map(|engine| {
            let name = format!("{engine}-{user}");
            let words =
                ["run", "-d", "--engine", engine, "-u", user, "--name", &name, "--image", "full:1", "-v", &mount, "--", "sh", "-c", CHANGE];
            on.ok(&words);
            eventually("it has changed what it changes", || on.ok(&["logs", &name]).contains("done"));
            let told = on.ok(&["diff", &name]);
            on.ok(&["snapshot", &name, &format!("{name}:1")]);
            on.ok(&["rm", "-f", &name]);
            told
        });
        assert_eq!(told[0], told[1], "{user}");
        for line in ["A /workspace/new", "D /workspace/gone", "C /workspace/old", "C /tmp/kept", "A /home/agent/link"] {
            assert!(told[1].lines().any(|said| said == line), "{line}: {}", told[1]);
        }
        assert!(!told[1].contains("mounted") && !told[1].contains("cofferdam"), "{}", told[1]);
        assert_eq!(told[1].contains("D /etc/there"), user == "root", "{}", told[1]);
        // What was kept on one is the same on the other.
        let look =
            "find /workspace /tmp /opt /home -exec stat -c '%n %F %a %U %h' {} + | grep -v ' directory ' | sort; cat /workspace/full/b";
        let seen = ["native", "docker"].map(|engine| {
            let image = format!("{}-{user}:1", if engine == "native" { "docker" } else { "native" });
            on.ok(&["run", "--engine", engine, "-u", "root", "--image", &image, "--", "sh", "-c", look])
        });
        assert_eq!(seen[0], seen[1], "{user}");
        assert!(seen[0].contains("/workspace/same regular file 644") && seen[0].ends_with("b\n"), "{}", seen[0]);
    }
    assert_eq!(on.containers(), "", "nothing is left");
}

/// More than a page of options of a mount names.
#[test]
fn what_was_changed_of_an_image_of_a_hundred_layers_is_told() {
    let on = On::new();
    let place = on.home.path("image");
    fs::create_dir(&place).expect("made");
    fs::write(place.join("there"), "there\n").expect("written");
    let steps: Vec<String> = (0..100).map(|number| format!("COPY there /many/{number}")).collect();
    fs::write(place.join("Dockerfile"), format!("FROM base:1\n{}\n", steps.join("\n"))).expect("written");
    on.ok(&["image", "build", "-q", "-t", "many:1", &place.display().to_string()]);
    let script = "rm /many/7; echo new > /many/100; echo done; sleep 1000";
    on.ok(&["run", "-d", "--engine", "docker", "-u", "root", "--name", "many", "--image", "many:1", "--", "sh", "-c", script]);
    eventually("it has changed what it changes", || on.ok(&["logs", "many"]).contains("done"));
    assert_eq!(on.ok(&["diff", "many"]), "C /many\nA /many/100\nD /many/7\n");
    on.ok(&["rm", "-f", "many"]);
}

/// As on the native engine: what can be written to is above what the image has, not in its place.
#[test]
fn what_an_image_has_where_it_can_be_written_is_there() {
    is_there(&On::new());
}

#[test]
fn what_an_image_has_is_there_where_users_are_remapped() {
    is_there(&On::with(Docker::start_remapped()));
}

fn is_there(on: &On) {
    let place = on.home.path("image");
    fs::create_dir(&place).expect("made");
    let text = "FROM base:1\nRUN mkdir -p /workspace/sub /home/agent/bin /data /empty && echo one > /workspace/file && echo two > /workspace/sub/gone \
                && echo three > /tmp/file && echo four > /home/agent/bin/file && echo five > /data/file && chmod 750 /data && chown web /data/file /empty && chmod 770 /empty \
                && ln -s /workspace/file /workspace/link && chmod 777 /workspace/sub && chmod 666 /workspace/file\nVOLUME /data /empty\n";
    fs::write(place.join("Dockerfile"), text).expect("written");
    on.ok(&["image", "build", "-q", "-t", "full:1", &place.display().to_string()]);
    let shared = on.home.path("shared");
    fs::create_dir(&shared).expect("made");
    fs::write(shared.join("in"), "shared\n").expect("written");
    let (directory, file) = (shared.display().to_string(), shared.join("in").display().to_string());
    let script = "cat /workspace/file /workspace/sub/gone /tmp/file /home/agent/bin/file /workspace/link
                  cat /workspace/mounted/in /workspace/sub/in
                  rm /workspace/sub/gone && echo more >> /workspace/file && touch /tmp/new /home/agent/new && cat /workspace/file
                  ls -A /workspace /workspace/sub /home/agent /tmp | grep -v '^.cache'
                  stat -c '%n %U %a' /workspace /workspace/file /tmp /data /home/agent /empty";
    let mounts = ["-v", &format!("{directory}:/workspace/mounted"), "-v", &format!("{file}:/workspace/sub/in")];
    for user in ["agent", "root"] {
        let words = [&["run", "-u", user, "--image", "full:1"], &mounts[..], &["--", "sh", "-c", script]].concat();
        let native = on.run(&words);
        assert_eq!(native.code, 0, "{native:?}");
        let docker = on.run(&[&words[..1], &["--engine", "docker"], &words[1..]].concat());
        assert_eq!((docker.code, docker.out.as_str()), (0, native.out.as_str()), "{user}: {docker:?}");
        assert!(native.out.contains("one\ntwo\nthree\nfour\none\nshared\nshared\none\nmore\n"), "{native:?}");
    }
    let as_web = on.run(&[
        "run",
        "--engine",
        "docker",
        "-u",
        "root",
        "--image",
        "full:1",
        "--",
        "sh",
        "-c",
        "cat /data/file; stat -c %U /data/file",
    ]);
    assert_eq!(as_web.out, "five\nweb\n", "{as_web:?}");
    // What is written is bounded.
    let full = "dd if=/dev/zero of=/workspace/f bs=1M count=100 2>&1 | grep -o 'No space left'";
    let bounded = on.run(&["run", "--engine", "docker", "--image", "full:1", "--disk", "16MiB", "--", "sh", "-c", full]);
    assert_eq!(bounded.out, "No space left\n", "{bounded:?}");
    assert_eq!(on.containers(), "", "nothing is left");
}

/// Nearly every published directory is verified in mode shared: from all that the agent changed.
#[test]
fn harbors_directories_earn_what_they_earn_on_native() {
    harbors_earn(&On::new());
}

#[test]
fn harbors_directories_earn_it_where_users_are_remapped() {
    harbors_earn(&On::with(Docker::start_remapped()));
}

fn harbors_earn(on: &On) {
    on.ok(&["image", "tag", "base:1", "debian:bookworm-slim"]);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/harbor");
    let mut count = 0;
    for entry in fs::read_dir(examples).expect("there").flatten() {
        let place = entry.path().display().to_string();
        for (agent, reward) in [("oracle", 1.0), ("nop", 0.0)] {
            let ran = on.run(&["task", "run", "-o", "json", "--engine", "docker", &place, "--agent", agent]);
            let record: Value = serde_json::from_str(&ran.out).unwrap_or(Value::Null);
            assert_eq!(record["reward"], reward, "{place} {agent}: {ran:?}");
            count += 1;
        }
    }
    assert!(count >= 10, "{count} attempts");
    on.ok(&["prune"]);
    assert_eq!(on.containers(), "", "nothing is left");
}

/// Links and files where a runtime mounts something, and where the engine puts something.
#[test]
fn odd_images_are_what_they_are_on_native() {
    let on = On::new();
    let script = "stat -c '%n %F' /proc /dev /sys /etc/passwd /workspace /tmp; cat /etc/resolv.conf; id -un; echo x > /workspace/x && cat /workspace/x";
    let odd: [(&str, &[(&str, &str)]); 5] = [
        ("run", &[("run", "/etc")]),
        ("up", &[("run", "../../../../tmp"), ("sys", "proc")]),
        ("kernel", &[("proc", "/etc"), ("dev", "/etc"), ("sys", "/etc")]),
        ("files", &[("etc/resolv.conf", "/proc/self/environ"), ("etc/hosts", "/dev/null"), ("etc/hostname", "nowhere")]),
        ("places", &[("tmp", "/etc"), ("workspace", "/etc"), ("home", "/proc/self/root")]),
    ];
    for (name, links) in odd {
        let root = on.home.path(name);
        fs::create_dir_all(root.join("bin")).expect("made");
        fs::create_dir_all(root.join("etc")).expect("made");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for program in ["sh", "stat", "cat", "id"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(program)).expect("linked");
        }
        for (place, target) in links {
            std::os::unix::fs::symlink(target, root.join(place)).expect("linked");
        }
        on.ok(&["image", "import", &root.display().to_string(), &format!("{name}:1")]);
        let seen = ["native", "docker"]
            .map(|engine| on.ok(&["run", "--engine", engine, "--image", &format!("{name}:1"), "--", "sh", "-c", script]));
        assert_eq!(seen[0], seen[1], "{name}");
        assert!(
            seen[0].contains("/workspace directory\n/tmp directory\nnameserver 198.18.0.1\n") && seen[0].ends_with("agent\nx\n"),
            "{name}: {}",
            seen[0]
        );
    }
    assert_eq!(on.containers(), "");
}

/// Views, volumes and trees below each other, and a disk that is a file of the host's.
#[test]
fn files_of_the_host_are_there() {
    are_there(&On::new());
}

#[test]
fn files_of_the_host_are_there_where_users_are_remapped() {
    are_there(&On::with(Docker::start_remapped()));
}

fn are_there(on: &On) {
    let (repository, shared) = (on.home.path("repository"), on.home.path("shared"));
    for directory in [&repository, &shared] {
        fs::create_dir(directory).expect("made");
        fs::write(directory.join("file"), "of the host\n").expect("written");
    }
    on.home.ok(&["volume", "create", "kept", "--size", "16MiB"]);
    let (repository, tree) = (repository.display().to_string(), format!("{}:/in/deep:ro", shared.display()));
    let below = format!("{}:/workspace/repo/of/another:ro", shared.display());
    let script = "set -e; cd /workspace/repo; stat -c %U file . /in of; cat file of/another/file; echo changed > file; mkdir new; echo x > new/x; \
                  cat /in/deep/file; echo y > /in/y; touch /in/deep/z 2>/dev/null || echo refused; ln /in/y /in/again; \
                  dd if=/dev/zero of=/workspace/big bs=1M count=40 2>&1 | grep -o 'No space left' || echo room";
    for (memory, disk) in [("256MiB", "32MiB"), ("64MiB", "200MiB")] {
        let told = ["native", "docker"].map(|engine| {
            let name = format!("{engine}-{}", disk.to_lowercase());
            let words = [
                "run",
                "--engine",
                engine,
                "--name",
                &name,
                "--image",
                "base:1",
                "--memory",
                memory,
                "--disk",
                disk,
                "--repo",
                &repository,
            ];
            let mounts = ["-v", &tree, "-v", "kept:/in", "-v", &below, "--", "sh", "-c", script];
            let ran = on.run(&[&words[..], &mounts[..]].concat());
            assert_eq!(ran.code, 0, "{engine} {disk}: {ran:?}");
            let diff = on.ok(&["diff", "-o", "json", &name]);
            on.ok(&["run", "--engine", engine, "--image", "base:1", "-v", "kept:/in", "--", "sh", "-c", "rm /in/y /in/again"]);
            on.ok(&["rm", "-f", &name]);
            (ran.out, diff)
        });
        assert_eq!(told[0], told[1], "{disk}");
        let full = if disk == "32MiB" { "No space left" } else { "room" };
        assert_eq!(told[1].0, format!("agent\nagent\nagent\nroot\nof the host\nof the host\nof the host\nrefused\n{full}\n"));
    }
    assert_eq!(fs::read_to_string(on.home.path("repository/file")).expect("read"), "of the host\n");
    on.home.ok(&["volume", "rm", "kept"]);
    assert_eq!(on.containers(), "");
}
