use super::*;

const WHOLE: &str = r#"
schema_version = "1.4"
artifacts = ["/app/out.txt"]

[task]
name = "acme/Fix_The.Page"
keywords = ["paging"]

[metadata]
difficulty = "hard"
language = "python"
anything = { goes = true }

[agent]
timeout_sec = 120.5
user = "dev"
network_mode = "no-network"

[verifier]
timeout_sec = 60.0
user = 0
env = { MODE = "strict", KEY = "${HOST_KEY:-none}" }

[environment]
build_timeout_sec = 300.0
cpus = 2
memory_mb = 512
storage = "1G"
network_mode = "allowlist"
allowed_hosts = ["API.example.com.", "*.example.org"]
workdir = "/app"

[environment.healthcheck]
command = "test -e /ready"
interval_sec = 1
"#;

fn files() -> HarborFiles {
    HarborFiles {
        directory: "Some Task".into(),
        instruction: "do it".into(),
        dockerfile: true,
        test_script: Some("#!/usr/bin/env bash".into()),
        solve_script: Some("set -e".into()),
        ..HarborFiles::default()
    }
}

fn form(task: &Task) -> &Harbor {
    match &task.form {
        Form::Harbor(form) => form,
        Form::Workspace => panic!("another form"),
    }
}

#[test]
fn everything_that_is_honoured() {
    let task = Task::from_harbor("task.toml", WHOLE, &files()).expect("reads");
    assert_eq!((task.id.as_str(), task.difficulty), ("fix-the-page", Difficulty::Hard));
    let limits = task.limits();
    assert_eq!((limits.memory, limits.cpus.millis(), limits.disk), (Bytes::mebibytes(512), 2000, Some(Bytes::mebibytes(1024))));
    assert_eq!(limits.timeout.map(Span::millis), Some(120_500));
    assert_eq!(task.verify.limits.over(limits).timeout, Some(Span::seconds(60)));
    assert_eq!((task.network, task.verify.network), (NetworkLevel::Isolated, NetworkLevel::LimitedWeb));
    assert_eq!(task.verify.allow, ["api.example.com:443", "api.example.com:80", "*.example.org:443", "*.example.org:80"]);
    assert_eq!(task.verify.command, ["/usr/bin/env", "bash", "/tests/test.sh"]);
    assert_eq!(task.solution.as_ref().map(|s| s.command.join(" ")).as_deref(), Some("/bin/sh /solution/solve.sh"));
    assert_eq!(task.verify.env["KEY"], "none");
    assert_eq!((task.verify.user.as_deref(), task.agent.as_ref().and_then(|a| a.user.as_deref())), (Some("0"), Some("dev")));
    let form = form(&task);
    assert_eq!((form.carried.clone(), form.workdir.as_deref()), (Carried::Everything, Some("/app")));
    assert!(matches!(&form.environment, Environment::Dockerfile { timeout, .. } if *timeout == Span::seconds(300)));
    assert_eq!(form.ready.as_ref().and_then(|ready| ready.timeout), Some(Span::seconds(93)));
}

#[test]
fn defaults_are_harbors() {
    let task = Task::from_harbor("task.toml", "", &files()).expect("reads");
    assert_eq!((task.id.as_str(), task.network, task.verify.network), ("some-task", NetworkLevel::FullWeb, NetworkLevel::FullWeb));
    assert_eq!(task.verify.limits.timeout, Some(Span::seconds(600)));
    let legacy = Task::from_harbor("task.toml", "version = \"1.0\"\n[environment]\nallow_internet = false\n", &files()).expect("reads");
    assert_eq!((legacy.network, legacy.verify.network), (NetworkLevel::Isolated, NetworkLevel::Isolated));
}

#[test]
fn a_separate_verifier_gets_the_artifacts() {
    let text = "artifacts = [\"/app/out\"]\n[verifier]\nenvironment_mode = \"separate\"\n";
    let task = Task::from_harbor("task.toml", text, &files()).expect("reads");
    assert_eq!(form(&task).carried, Carried::Paths(vec!["/app/out".into(), "/logs/artifacts".into()]));
    assert_eq!(form(&task).verifier, None);
    let own = HarborFiles { tests_dockerfile: true, test_script: None, ..files() };
    let task = Task::from_harbor("task.toml", text, &own).expect("reads");
    assert!(matches!(&form(&task).verifier, Some(Environment::Dockerfile { directory, .. }) if directory.ends_with("tests")));
    let image = "[verifier.environment]\ndocker_image = \"grader:1\"\nnetwork_mode = \"no-network\"\n";
    let task = Task::from_harbor("task.toml", image, &files()).expect("reads");
    assert!(matches!(form(&task).verifier, Some(Environment::Image(_))));
    assert_eq!(task.verify.network, NetworkLevel::Isolated);
}

#[test]
fn what_is_not_honoured_is_named() {
    let cases: &[(&str, &str)] = &[
        ("[environment]\nos = \"windows\"", "environment.os"),
        ("[environment]\ngpus = 1", "environment.gpus"),
        ("[environment.tpu]\ntype = \"v6e\"\ntopology = \"2x2\"", "environment.tpu"),
        ("[[environment.mcp_servers]]\nname = \"x\"", "environment.mcp_servers"),
        ("[environment]\nskills_dir = \"/skills\"", "environment.skills_dir"),
        ("[[steps]]\nname = \"one\"", "steps"),
        ("[[verifier.collect]]\ncommand = \"x\"", "verifier.collect"),
        ("[environment.env]\nKEY = \"${HOST_KEY}\"", "environment.env"),
        ("[verifier.env]\nKEY = \"${HOST_KEY}\"", "HOST_KEY"),
        ("[environment]\nnetwork_mode = \"allowlist\"\nallowed_hosts = [\"10.0.0.0/8\"]", "environment.allowed_hosts"),
        ("[[artifacts]]\nsource = \"/x\"\nservice = \"db\"", "artifacts.service"),
        ("artifacts = [\"../x\"]", "artifacts"),
        ("artifacts = [\"/\"]", "artifacts"),
        ("artifacts = [\"/a/../../x\"]", "artifacts"),
        ("schema_version = \"2.0\"", "2.0 is not known"),
        ("[environment]\nmemory_mb = 0", "environment.memory_mb"),
        ("[environment]\ncpus = -1", "environment.cpus"),
        ("[agent]\ntimeout_sec = 0", "agent.timeout_sec"),
        ("[agent]\ntimeout_sec = nan", "agent.timeout_sec"),
        ("[agent]\nallowed_hosts = [\"a.example\"]", "agent.allowed_hosts"),
        ("[verifier]\nenvironment_mode = \"shared\"\n[verifier.environment]\n", "verifier.environment"),
        ("[environment]\nmemory = \"512M\"\nmemory_mb = 1", "given twice"),
        ("[agent]\n\n  timeout = 3", "task.toml:3:3: unknown field `timeout`"),
        ("[agent", "task.toml:1:"),
        ("[task]\nname = \"org/---\"", "task.name"),
    ];
    for (text, part) in cases {
        let message = Task::from_harbor("task.toml", text, &files()).expect_err(text).to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    for (files, part) in [
        (HarborFiles { compose: true, ..files() }, "docker-compose.yaml"),
        (HarborFiles { trajectory: true, ..files() }, "trajectory.json"),
        (HarborFiles { dockerfile: false, ..files() }, "neither a Dockerfile nor docker_image"),
        (HarborFiles { test_script: None, ..files() }, "tests/test.sh"),
    ] {
        let message = Task::from_harbor("task.toml", "", &files).expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
    }
}
