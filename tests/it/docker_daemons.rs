//! Which daemons the engine docker takes, and how it finds them.

use crate::docker::On;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::registry::{busybox_root, free_port};
use cofferdam_tests::{Home, ended};
use std::path::Path;

#[test]
fn what_a_daemon_cannot_do_is_refused_with_its_remedy() {
    let home = Home::new();
    busybox_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    let on = |host: &str, words: &[&str]| ended(home.command(&[&["run", "--engine", "docker"], words].concat()).env("DOCKER_HOST", host));
    let words: &[&str] = &["--image", "base:1", "--", "true"];
    for (host, message) in [
        ("unix:///nonexistent/docker.sock", "there is no such socket"),
        ("tcp://192.0.2.1:2375", "only a daemon on this host"),
        (&format!("tcp://127.0.0.1:{}", free_port()), "nobody listens there"),
        ("ssh://host", "only a daemon on this host"),
    ] {
        let refused = on(host, words);
        assert!(refused.code == 125 && refused.err.contains(message), "{host}: {refused:?}");
        assert_eq!(refused.err.trim().lines().count(), 1, "{refused:?}");
    }
    let docker = Docker::start();
    let host = docker.host();
    let refused = on(&host, &["--", "true"]);
    assert!(refused.code != 0 && refused.err.contains("image host on the engine docker"), "{refused:?}");
    let required = on(&host, &["--require", "id range", "--image", "base:1", "--", "true"]);
    assert!(required.code != 0 && required.err.contains("control id range is required"), "{required:?}");
    let doctor = ended(home.command(&["doctor"]).env("DOCKER_HOST", &host));
    assert!(doctor.out.contains("engine docker") && doctor.out.contains("id range: this daemon"), "{doctor:?}");
    assert!(doctor.out.contains("attempts to get out of a container fail"), "{doctor:?}");
    let list = ended(home.command(&["engine", "ls"]).env("DOCKER_HOST", &host));
    assert!(list.out.contains("docker  yes") && list.out.contains("id range"), "{list:?}");
    for said in ["(given)", "(there already)"] {
        let given = ended(home.command(&["image", "load", "--engine", "docker", "base:1"]).env("DOCKER_HOST", &host));
        assert!(given.out.contains(said), "{given:?}");
    }
    assert_eq!(docker.ok("docker ps -aq"), "");
}

/// The environment is that of the command `docker`; what was used once is found again by who sweeps, whatever the environment is then.
#[test]
fn a_daemon_at_a_port_is_verified_and_shown_who_asks() {
    let port = free_port();
    let on = On::with(Docker::start_with_tls(port));
    let certificates = on.docker.certificates();
    let at_port = |words: &[&str], directory: Option<&Path>| {
        let mut command = on.home.command(words);
        command.env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"));
        if let Some(directory) = directory {
            command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", directory);
        }
        ended(&mut command)
    };
    let words = ["run", "--engine", "docker", "--image", "base:1", "--", "cat", "/app/file"];
    let ran = at_port(&words, Some(&certificates));
    assert_eq!((ran.code, ran.out.as_str()), (0, "from the base\n"), "{ran:?}");
    let plain = at_port(&words, None);
    assert!(plain.code == 125 && plain.err.contains("DOCKER_TLS_VERIFY") && plain.err.trim().lines().count() == 1, "{plain:?}");
    let other = Docker::start_with_tls(free_port());
    let stranger = at_port(&words, Some(&other.certificates()));
    assert!(stranger.code == 125 && stranger.err.contains("invalid peer certificate"), "{stranger:?}");
    let nobody = at_port(&words, Some(&on.home.path("none")));
    assert!(nobody.code == 125 && nobody.err.contains("none/ca.pem"), "{nobody:?}");
    let detached = at_port(&["run", "--engine", "docker", "--image", "base:1", "-d", "--", "sleep", "1000"], Some(&certificates));
    assert_eq!(detached.code, 0, "{detached:?}");
    on.home.ok(&["rm", "-f", detached.out.trim()]);
    assert_eq!(on.containers(), "", "nothing is left");
}

/// Who has said `docker context use` means that daemon, here too.
#[test]
fn the_context_in_use_is_that_of_the_command_docker() {
    let on = On::new();
    let files = on.home.path("docker");
    let config = format!("--config {}", files.display());
    on.docker.ok(&format!("docker {config} context create there --docker host={}", on.docker.host()));
    on.docker.ok(&format!("env -u DOCKER_HOST docker {config} context use there"));
    let run = |context: Option<&str>| {
        let mut command = on.home.command(&["run", "--engine", "docker", "--image", "base:1", "--", "cat", "/app/file"]);
        command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &files);
        if let Some(name) = context {
            command.env("DOCKER_CONTEXT", name);
        }
        ended(&mut command)
    };
    for context in [None, Some("there")] {
        let ran = run(context);
        assert_eq!((ran.code, ran.out.as_str()), (0, "from the base\n"), "{context:?}: {ran:?}");
    }
    let unknown = run(Some("elsewhere"));
    assert!(unknown.code == 125 && unknown.err.contains("elsewhere") && unknown.err.trim().lines().count() == 1, "{unknown:?}");
    assert_eq!(on.containers(), "");
}
