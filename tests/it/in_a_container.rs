//! Cofferdam in a container of the daemon that it starts sandboxes on: its paths are not the daemon's.

use crate::docker::On;
use cofferdam_tests::Ended;
use std::fs;

/// What `--privileged` gives as far as it is needed; some hosts have not all of it to give.
const CAPABLE: &str =
    "--cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --security-opt seccomp=unconfined --security-opt apparmor=unconfined";
const MAY: &str = "--pid host --cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup";

/// The program as an image of one file, called `gate`, in the daemon.
fn with_program() -> On {
    let on = On::new();
    let name = format!("localhost/cofferdam/gate:{}", env!("CARGO_PKG_VERSION"));
    on.ok(&["image", "load", "--engine", "docker", &name]);
    let id = on.docker.ok("docker images -q");
    on.docker.ok(&format!("docker tag {} program", id.trim()));
    on
}

/// A container of it, with the daemon's socket.
fn contained(on: &On, options: &str, words: &str) -> Ended {
    let socket = on.docker.host().replace("unix://", "");
    on.docker
        .run(&format!("docker run --rm {options} -v {socket}:/var/run/docker.sock --network none --entrypoint /cofferdam program {words}"))
}

#[test]
fn paths_are_those_of_the_daemon() {
    let on = with_program();
    let (data, shown) = (on.home.data().display().to_string(), on.home.path("shown"));
    fs::create_dir(&shown).expect("made");
    fs::write(shown.join("file"), "of the host\n").expect("written");
    let mounts = format!("{CAPABLE} {MAY} -v {data}:/elsewhere -v {}:/shown", shown.display());
    let run = "--data-dir /elsewhere run --engine docker --image base:1";
    let ran = contained(&on, &mounts, &format!("{run} -v /shown:/in -- sh -c 'cat /in/file; hostname; cat /etc/resolv.conf; exit 4'"));
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.out.starts_with("of the host\n") && ran.out.contains("nameserver 198.18.0.1"), "{ran:?}");
    // Below a mount, and written to.
    fs::create_dir(shown.join("below")).expect("made");
    let ran = contained(&on, &mounts, &format!("{run} -v /shown/below:/out:rw -u root -- sh -c 'echo back > /out/file'"));
    assert_eq!((ran.code, fs::read_to_string(shown.join("below/file")).expect("written").as_str()), (0, "back\n"), "{ran:?}");
    // What a sandbox wrote is where the daemon has it.
    on.ok(&["image", "tag", "base:1", "debian:bookworm-slim"]);
    let example = format!("{}/../examples/harbor/log-summary", env!("CARGO_MANIFEST_DIR"));
    assert!(std::process::Command::new("cp").arg("-r").arg(example).arg(&shown).status().expect("cp").success());
    let ran = contained(&on, &mounts, "--data-dir /elsewhere task run --engine docker --agent oracle -o json /shown/log-summary");
    assert!(ran.out.contains("\"reward\": 1.0"), "{ran:?}");
    // What the daemon does not see is no empty directory there.
    let refused = contained(&on, &format!("{mounts} --tmpfs /own"), &format!("{run} -v /own:/in -- true"));
    assert!(refused.code == 125 && refused.err.contains("where the daemon does not see it"), "{refused:?}");
    let refused = contained(&on, &format!("{CAPABLE} {MAY}"), "--data-dir /var/lib/cofferdam run --engine docker --image base:1 -- true");
    assert!(refused.code == 125 && !refused.err.is_empty(), "{refused:?}");
    assert_eq!(on.containers(), "");
}

#[test]
fn its_data_may_be_in_a_volume() {
    let on = with_program();
    on.docker.ok("docker volume create kept");
    let mounts = format!("{CAPABLE} {MAY} -v kept:/var/lib/cofferdam -v {}:/root-of-base:ro", on.home.path("root").display());
    let imported = contained(&on, &mounts, "image import /root-of-base base:1");
    assert_eq!(imported.code, 0, "{imported:?}");
    let ran = contained(&on, &mounts, "run --engine docker --image base:1 -- cat /app/file");
    assert_eq!(ran.out, "from the base\n", "{ran:?}");
    assert_eq!(on.containers(), "");
    on.docker.ok("docker volume rm kept");
}

/// As the guide has it for users who may talk to the daemon and are not root: commands are executed in a container that is kept.
#[test]
fn one_that_is_kept_serves_who_is_not_root() {
    let on = with_program();
    let (socket, shown) = (on.docker.host().replace("unix://", ""), on.home.path("shown"));
    fs::create_dir(&shown).expect("made");
    fs::write(shown.join("file"), "of the host\n").expect("written");
    let mounts = format!(
        "{CAPABLE} {MAY} -v {}:/var/lib/cofferdam -v {socket}:/var/run/docker.sock -v {shown}:{shown}",
        on.home.data().display(),
        shown = shown.display()
    );
    on.docker.ok(&format!("docker run -d --name kept --network none --entrypoint /cofferdam {mounts} program events -f"));
    let command = |words: &str| on.docker.run(&format!("docker exec -i -w {} kept /cofferdam {words}", shown.display()));
    let run = "run --engine docker --image base:1";
    let ran = command(&format!("{run} -v ./file:/in:ro -- sh -c 'cat /in; exit 3'"));
    assert_eq!((ran.code, ran.out.as_str()), (3, "of the host\n"), "{ran:?}");
    assert_eq!(command(&format!("{run} -d --name bg -- sleep 1000")).code, 0);
    assert_eq!(command("exec bg id -u").out, "10001\n");
    assert_eq!(command(&format!("{run} --name work --repo . -- sh -c 'echo new > made'")).code, 0);
    assert!(command("diff work -o json").out.contains("\"made\""));
    assert!(!shown.join("made").exists());
    for name in ["bg", "work"] {
        assert_eq!(command(&format!("rm -f {name}")).code, 0);
    }
    assert_eq!(on.docker.ok("docker ps -aq").lines().count(), 1, "its own is left");
    on.docker.ok("docker rm -f kept");
}

/// A container that could not enter others is told what it lacks.
#[test]
fn what_its_container_has_to_be_is_said() {
    let on = with_program();
    let mounts = format!("-v {}:/var/lib/cofferdam", on.home.data().display());
    for options in ["", CAPABLE, "--pid host"] {
        let refused = contained(&on, &format!("{options} {mounts}"), "run --engine docker --image base:1 -- true");
        assert!(refused.code == 125 && refused.err.contains("--pid host") && refused.err.lines().count() == 1, "{options}: {refused:?}");
    }
}
