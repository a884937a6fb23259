use super::*;
use cofferdam_sys::plan_wire::SETUP_LANDLOCK;

/// The new process failed and was gone before anything was asked of it: its last words are the error.
#[tokio::test]
async fn what_a_dead_sandbox_said_last_is_told() {
    let (ours, theirs) = channel::pair().expect("a pair");
    channel::send_words(&theirs, [REPLY_SETUP_FAILED, 0, SETUP_LANDLOCK, 22], &[]).expect("sends");
    drop(theirs);
    let pid_one = PidOne::connect(ours, Vec::new()).expect("connects");
    let process = spec::ProcessSpec { arguments: vec![b"true".to_vec()], ..spec::ProcessSpec::default() };
    let error = pid_one.spawn(&process, &[]).await.expect_err("it is gone").to_string();
    assert!(error.contains("Landlock: Invalid argument"), "{error}");
}
