//! Tests of the parser.

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text).expect("parses")
}

#[track_caller]
fn refused(text: &str, line: usize, part: &str) {
    let error = Dockerfile::parse("Dockerfile", text).expect_err(text);
    assert_eq!(error.line, line, "{error}");
    assert!(error.why.contains(part), "{error}");
}

#[test]
fn stages_have_names_and_numbers() {
    let file =
        parse("# syntax=docker/dockerfile:1\nARG V=3.12\nFROM python:$V AS Base\nFROM base\nFROM --platform=linux/amd64 scratch as x\n");
    assert_eq!(file.arguments, [("V".into(), Some("3.12".into()))]);
    assert_eq!(file.stages[0].name.as_deref(), Some("base"));
    assert_eq!((file.stage("BASE", 3), file.stage("1", 3), file.stage("x", 2), file.stage("9", 3)), (Some(0), Some(1), None, None));
}

#[test]
fn lines_are_continued_through_comments() {
    let file = parse("FROM a\nRUN one \\\n# a comment\n\n  && two \\  \n  && three\nRUN x\n");
    let Instruction::Run(run) = &file.stages[0].steps[0].instruction else { panic!("no run") };
    assert_eq!(run.form, Form::Shell("one   && two   && three".into()));
    assert_eq!(file.stages[0].steps[1].line, 7);
}

#[test]
fn the_escape_character_can_be_another() {
    let file = parse("# escape=`\nFROM a\nRUN one `\n two\\\n");
    let Instruction::Run(run) = &file.stages[0].steps[0].instruction else { panic!("no run") };
    assert_eq!(run.form, Form::Shell("one  two\\".into()));
}

#[test]
fn here_documents_are_read_to_their_end() {
    let file = parse("FROM a\nRUN <<EOF\n#!/bin/sh\necho $HOME\nEOF\nCOPY <<-\"A\" <<B /x/\n\tone $v\nA\ntwo\nB\nRUN cat <<< word\n");
    let Instruction::Run(run) = &file.stages[0].steps[0].instruction else { panic!("no run") };
    assert_eq!(run.heredocs[0].body, "#!/bin/sh\necho $HOME\n");
    let Instruction::Copy(copy) = &file.stages[0].steps[1].instruction else { panic!("no copy") };
    let texts: Vec<(&str, bool)> = copy
        .sources
        .iter()
        .map(|source| match source {
            Source::Text(text) => (text.body.as_str(), text.expand),
            Source::Path(path) => panic!("{path}"),
        })
        .collect();
    assert_eq!(texts, [("one $v\n", false), ("two\n", true)]);
    refused("FROM a\nRUN <<EOF\nx\n", 2, "does not end");
}

#[test]
fn both_forms_of_env_are_read() {
    let file = parse("FROM a\nENV A=1 B=\"two words\" C=a\\ b\nENV OLD a  b\nLABEL x=y \"k k\"=v\n");
    let Instruction::Env(env) = &file.stages[0].steps[0].instruction else { panic!("no env") };
    assert_eq!(env[1], ("B".into(), "\"two words\"".into()));
    assert_eq!(env[2], ("C".into(), "a\\ b".into()));
    let Instruction::Env(env) = &file.stages[0].steps[1].instruction else { panic!("no env") };
    assert_eq!(env[0], ("OLD".into(), "a  b".into()));
}

#[test]
fn what_is_not_built_is_refused_by_name_and_line() {
    refused("FROM a\nRUN --mount=type=ssh x\n", 2, "type=ssh");
    refused("FROM a\n\nRUN --security=insecure x\n", 3, "--security");
    refused("FROM a\nRUN --network=host x\n", 2, "--network=host");
    refused("FROM a\nADD https://a.example/x /x\n", 2, "fetching");
    refused("FROM a\nCOPIE a b\n", 2, "did you mean COPY");
    refused("RUN x\n", 1, "FROM comes first");
    refused("\n", 1, "no FROM");
    refused("FROM a AS x\nFROM b AS X\n", 2, "two stages");
    refused("FROM a\nCOPY x\n", 2, "needs something to copy");
    refused("FROM a\nSHELL sh -c\n", 2, "SHELL takes words");
    refused("FROM a\nONBUILD FROM b\n", 2, "not allowed");
    refused("FROM a b\n", 1, "FROM IMAGE");
    refused("FROM a\nCOPY --parents a b\n", 2, "--parents");
}

#[test]
fn health_checks_are_dockers_structure() {
    let file = parse("FROM a\nHEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost\nHEALTHCHECK NONE\n");
    let Instruction::Healthcheck(Some(check)) = &file.stages[0].steps[0].instruction else { panic!("no check") };
    assert_eq!(check["Interval"], 90_000_000_000u64);
    assert_eq!(check["Test"], serde_json::json!(["CMD-SHELL", "curl -f localhost"]));
    assert_eq!(file.stages[0].steps[1].instruction, Instruction::Healthcheck(None));
}

#[test]
fn variables_are_replaced_as_the_reference_says() {
    let variables: Variables = [("A", "1"), ("E", ""), ("P", "/x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let check = |text: &str, expected: &str| assert_eq!(expand(text, &variables, '\\').as_deref(), Ok(expected), "{text}");
    check("$A-${A}b", "1-1b");
    check("${E:-d}${E-d}${N:-${A}x}${N-}", "d1x");
    check("${A:+y}${E:+y}${E+z}", "yz");
    check("\\$A '$A' \"$A\"", "$A $A 1");
    check("$P/$N/end$", "/x//end$");
    for odd in ["${A", "${", "'x", "${N:?gone}", "${A#1}"] {
        assert!(expand(odd, &variables, '\\').is_err(), "{odd}");
    }
    assert_eq!(words("a \"b c\" d\\ e '' f$A", &variables, '\\').expect("words"), ["a", "b c", "d e", "", "f1"]);
}
