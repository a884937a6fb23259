//! What the containers of a rendered task execute: plain `sh`, with `cp`, `chown`, `timeout`, `date`, `cat`, `head` and `grep`.

use super::super::step::Mode;
use super::file::escape;
use crate::task::workspace::WORKSPACE;
use cofferdam_model::task::{Ready, Verify};
use std::fmt::Write;

/// Above the file: for whom it is and how it is used.
pub const HEAD: &str = "\
# Task TASK, rendered by `cofferdam task render`.
#   cofferdam image load --engine docker IMAGE    gives the daemon the image, which stands below by its digest
GATE
#   docker compose up -d                          in this file's directory; returns when the agent has ended
#   docker compose logs -f verifier               the last line is the reward; the exit status is 0 for reward 1
#   docker compose cp result:/held/output .       what the agent left
#   docker compose down -v                        takes everything away
# The image needs sh, cp, chown, timeout, date, cat, head and grep. Other than `cofferdam task run`: each container has the task's limits for itself, the
# base is not judged first, users that the image does not know have no name, nothing is recorded, and what the image has in /tmp, /var/tmp, /run or the
# user's home directory is not seen.";

/// Further down, for a task with a network.
pub const HEAD_OF_GATE: &str = "\
#   cofferdam image load --engine docker GATE    and the gate
#   docker compose logs gate                      what was allowed and refused
";

/// A shell that executes a script; `$0` and arguments may follow.
pub fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), escape(script)]
}

/// Where a holder has the workspace: at its own place there is what the image has.
pub const HELD: &str = "/held";

/// The script of a holder.
pub struct Holder {
    text: String,
    mode: Mode,
    owner: (u32, u32),
}

impl Holder {
    /// For a workspace of this owner, which begins as the image has it.
    pub fn new(mode: Mode, owner: (u32, u32)) -> Self {
        Self { text: format!("set -eu\numask 022\n[ ! -d {WORKSPACE} ] || cp -a {WORKSPACE}/. {HELD}/\n"), mode, owner }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// What a directory holds, for an owner.
    pub fn copy(&mut self, from: &str, to: &str, (uid, gid): (u32, u32)) {
        self.line(&format!("mkdir -p {to}\ncp -a {from}/. {to}/\nchown -hR {uid}:{gid} {to}"));
    }

    /// The value of a variable, as a file.
    pub fn write(&mut self, variable: &str, path: &str) {
        self.line(&format!("printf %s \"${variable}\" > {path}"));
    }

    /// What the agent left, without what it had no business to leave.
    pub fn take_over(&mut self) {
        let (uid, gid) = self.owner;
        self.line("for name in /agent/* /agent/.[!.]* /agent/..?*; do");
        self.line("  case ${name#/agent/} in .synth|solution|tests) continue ;; esac");
        self.line("  [ -e \"$name\" ] || [ -L \"$name\" ] || continue");
        self.line("  cp -a \"$name\" /held/ || { echo 'reward 0: what the agent left does not fit'; exit 1; }");
        self.line(&format!("  chown -hR {uid}:{gid} \"/held/${{name#/agent/}}\"\ndone"));
    }

    /// The whole script: at its end it says that all is there, and waits.
    pub fn finish(mut self) -> String {
        let (uid, gid) = self.owner;
        if self.mode == Mode::Execution {
            self.line("mkdir -p /held/src /held/output");
            self.line(&format!("chown {uid}:{gid} /held /held/src /held/output /logs/agent"));
        } else {
            self.line(&format!("chown {uid}:{gid} /held"));
        }
        self.line("touch /run/ready\nexec sleep 2147483647");
        self.text
    }
}

/// Ends with 0 once a service is ready.
pub fn ready(ready: &Ready) -> String {
    let port = ready.port.map(|port| format!("grep -q ':{port:04X} [0-9A-F]*:0000 0A' /proc/net/tcp /proc/net/tcp6"));
    let command = (!ready.command.is_empty()).then(|| ready.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "));
    let both: Vec<String> = port.into_iter().chain(command).collect();
    if both.is_empty() { "true".into() } else { both.join(" && ") }
}

fn limited(timeout: Option<u64>) -> String {
    timeout.map_or_else(|| "\"$@\"".into(), |seconds| format!("timeout -s KILL {seconds} \"$@\""))
}

/// Fails only where the time is up: the verifier judges whatever else the agent did.
pub fn agent(timeout: Option<u64>) -> String {
    let run = limited(timeout);
    let up = timeout.map_or_else(String::new, |seconds| {
        format!(
            "\n[ $(($(date +%s) - start)) -lt {seconds} ] || {{ echo 'reward 0: the time limit of {seconds} s is reached'; exit 124; }}"
        )
    });
    format!("start=$(date +%s)\n{run}\necho \"exit status $?\"{up}\nexit 0")
}

/// Listed tests count first; else the reward file, else the exit status.
pub fn verifier(timeout: Option<u64>, verify: &Verify) -> String {
    let tests: Vec<&str> = verify.listed().collect();
    let run = limited(timeout);
    let give = "echo \"reward $reward\"\ncase $reward in 1|1.0) exit 0 ;; *) exit 1 ;; esac";
    if tests.is_empty() {
        return format!(
            "{run}\nstatus=$?\nreward=0\nfile=/logs/verifier/reward\nif [ -f $file.txt ]; then reward=$(cat $file.txt)\n\
             elif [ -f $file.json ]; then reward=$(grep -o '\"reward\"[^,}}]*' $file.json | grep -o '[0-9][0-9.]*' | head -n 1)\n  \
             [ -n \"$reward\" ] || reward=$(grep -o '[0-9][0-9.]*' $file.json | head -n 1)\n\
             elif [ $status = 0 ]; then reward=1; fi\n{give}"
        );
    }
    // A test passes if a line says so and no line says otherwise.
    let mut script = format!("{run} | {{\nwhile IFS= read -r line; do\n  printf '%s\\n' \"$line\"\n  case $line in\n");
    for (number, test) in tests.iter().enumerate() {
        let _ = writeln!(script, "    {}) : \"${{t{number}:=passed}}\" ;;", quote(&format!("PASSED {test}")));
        let not = ["FAILED", "ERROR", "SKIPPED", "XFAIL"].map(|word| {
            let line = quote(&format!("{word} {test}"));
            format!("{line}|{}*", quote(&format!("{word} {test} - ")))
        });
        let _ = writeln!(script, "    {}) t{number}=failed ;;", not.join("|"));
    }
    script.push_str("  esac\ndone\nreward=1\n");
    for (number, test) in tests.iter().enumerate() {
        let said = quote(&format!("not passed: {test}"));
        let _ = writeln!(script, "[ \"${{t{number}-}}\" = passed ] || {{ reward=0; printf '%s\\n' {said}; }}");
    }
    format!("{script}{give}\n}}")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
