use super::*;

const SMALLEST: &str = "version: 1\nid: a\ninstruction: do it\nverify: {command: [sh, tests/test.sh]}\n";

#[test]
fn defaults() {
    let task = Task::parse("task.yaml", SMALLEST).expect("parses");
    assert_eq!(task.limits(), Difficulty::Medium.limits());
    assert_eq!(task.image, ImageRef::Host);
    assert_eq!(task.cleanup.delay, Span::seconds(60));
}

#[test]
fn own_limits_win() {
    let text = format!("{SMALLEST}limits: {{memory: 256MiB, cpus: 0.25, timeout: 10m}}\n");
    let limits = Task::parse("task.yaml", &text).expect("parses").limits();
    assert_eq!((limits.memory, limits.cpus.millis(), limits.pids), (Bytes::mebibytes(256), 250, 100));
}

#[test]
fn refusals_name_the_place() {
    let cases = [
        (format!("{SMALLEST}dificulty: easy\n"), "task.yaml:5:1"),
        (SMALLEST.replace("version: 1", "version: 2"), "version 2 is not known"),
        (SMALLEST.replace("[sh, tests/test.sh]", "[]"), "verify.command is empty"),
        (format!("{SMALLEST}network: limited_web\n"), "at least one entry"),
        (format!("{SMALLEST}allow: [a.example]\n"), "no effect"),
        (format!("{SMALLEST}limits: {{memory: lots}}\n"), "\"lots\" is not a size"),
    ];
    for (text, expected) in cases {
        let message = Task::parse("task.yaml", &text).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let message = Task::parse("task.yaml", &format!("{SMALLEST}dificulty: easy\n")).expect_err("unknown").to_string();
    assert!(message.contains("did you mean \"difficulty\"?"), "{message}");
    assert!(message.contains("dificulty: easy"), "{message}");
}

#[test]
fn services_and_the_verifiers_own_part() {
    let text = format!(
        "{}\nservices: [{{name: db, command: [db], ready: {{port: 5432}}, during: [agent, verify]}}]\n",
        SMALLEST.replace("[sh, tests/test.sh]}", "[sh, tests/test.sh], limits: {timeout: 1m}, user: agent}")
    );
    let task = Task::parse("task.yaml", &text).expect("parses");
    assert_eq!(task.services[0].ready.as_ref().and_then(|ready| ready.port), Some(5432));
    assert_eq!(task.verify.limits.over(task.limits()).timeout, Some(Span::seconds(60)));
    let twice = text.replace("{name: db, command: [db],", "{name: db, command: [x]}, {name: db, command: [db],");
    let cases = [
        (twice, "service db is named twice"),
        (text.replace("command: [db]", "command: []"), "services.command is empty"),
        (SMALLEST.replace("[sh, tests/test.sh]}", "[a], fail_to_pass: [x], pass_to_pass: [x]}"), "\"x\" is listed twice"),
        (format!("{SMALLEST}workspace: {{tests: ../tests}}\n"), "workspace.tests \"../tests\" is refused"),
        (format!("{SMALLEST}workspace: {{src: /etc}}\n"), "workspace.src \"/etc\" is refused"),
        (format!("{SMALLEST}artifacts: ['../../etc/**']\n"), "artifacts \"../../etc/**\" is refused"),
        (format!("{SMALLEST}network: limited_web\nallow: [a.example]\npolicy: p.yaml\n"), "exclude each other"),
    ];
    for (text, expected) in cases {
        let message = Task::parse("task.yaml", &text).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
    }
}
