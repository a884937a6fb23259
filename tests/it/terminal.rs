//! Terminals, through tmux.

use cofferdam_tests::{Home, eventually};
use std::process::Command;

struct Tmux {
    socket: String,
}

impl Tmux {
    fn start(home: &Home, rows: u32, columns: u32) -> Self {
        let tmux = Self { socket: home.path("tmux").display().to_string() };
        let size = [rows.to_string(), columns.to_string()];
        let data = format!("COFFERDAM_DATA_DIR={}", home.data().display());
        tmux.call(&["-f", "/dev/null", "new-session", "-d", "-y", &size[0], "-x", &size[1], "env", &data, "PS1=host$ ", "sh"]);
        tmux
    }

    fn call(&self, words: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(words).output().expect("tmux is installed");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, words: &[&str]) {
        let mut all = vec!["send-keys"];
        all.extend(words);
        self.call(&all);
    }

    fn shows(&self, text: &str) {
        eventually(&format!("the screen shows {text}"), || self.call(&["capture-pane", "-p"]).contains(text));
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

/// A shell in a terminal of 30 rows and 100 columns: its size, an interrupt, a new size.
fn behaves(tmux: &Tmux) {
    tmux.keys(&["tty; stty size; echo in''side", "Enter"]);
    tmux.shows("inside");
    tmux.shows("30 100");
    tmux.shows("/dev/pts/0");
    tmux.keys(&["sh -c 'echo sleep''ing; exec sleep 600'", "Enter"]);
    tmux.shows("sleeping");
    // The shell hands the terminal over before it starts the program; a moment later the program has it.
    std::thread::sleep(std::time::Duration::from_millis(200));
    tmux.keys(&["C-c"]);
    tmux.keys(&["echo after''interrupt", "Enter"]);
    tmux.shows("afterinterrupt");
    tmux.call(&["resize-window", "-x", "90", "-y", "25"]);
    eventually("the new size arrives", || {
        tmux.keys(&["stty size", "Enter"]);
        std::thread::sleep(std::time::Duration::from_millis(100));
        tmux.call(&["capture-pane", "-p"]).contains("25 90")
    });
}

#[test]
pub fn a_shell_with_the_right_size_and_sane_modes_afterwards() {
    let home = Home::new();
    let tmux = Tmux::start(&home, 30, 100);
    tmux.keys(&[&format!("{} run -- sh", home.line()), "Enter"]);
    behaves(&tmux);
    tmux.keys(&["exit", "Enter"]);
    eventually("the host's shell is back", || tmux.call(&["display-message", "-p", "#{pane_current_command}"]).trim() == "sh");
    tmux.keys(&["clear; stty -a | grep -o ' echo ' ; echo ba''ck", "Enter"]);
    tmux.shows("back");
    tmux.shows(" echo");
}

#[test]
fn a_shell_by_ssh() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "shell", "--", "sleep", "1000"]);
    let config = home.path("ssh_config").display().to_string();
    std::fs::write(&config, home.ok(&["ssh-config"])).expect("written");
    let tmux = Tmux::start(&home, 30, 100);
    tmux.keys(&[&format!("ssh -F {config} shell.cofferdam"), "Enter"]);
    behaves(&tmux);
    tmux.keys(&["exit 3", "Enter"]);
    tmux.shows("closed");
    tmux.keys(&["echo status''=$?", "Enter"]);
    tmux.shows("status=3");
    home.ok(&["rm", "-f", "shell"]);
}

#[test]
pub fn attach_and_detach() {
    let home = Home::new();
    home.ok(&["run", "-d", "-t", "--name", "shell", "--", "sh"]);
    let tmux = Tmux::start(&home, 30, 100);
    tmux.keys(&[&format!("{} attach shell", home.line()), "Enter"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux.keys(&["echo in''side", "Enter"]);
    tmux.shows("inside");
    tmux.keys(&["C-p", "C-q"]);
    // What is typed before it has let go of the terminal is typed to it.
    std::thread::sleep(std::time::Duration::from_secs(1));
    tmux.keys(&["echo out''side", "Enter"]);
    tmux.shows("outside");
    assert!(home.ok(&["ps"]).contains("running"));
    home.ok(&["rm", "-f", "shell"]);
}

#[test]
pub fn top_shows_attaches_and_stops() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "busy", "--", "sh", "-c", "while :; do :; done"]);
    home.ok(&["run", "-d", "--name", "talker", "-t", "--", "sh", "-c", "read x; echo heard $x; sleep 600"]);
    let tmux = Tmux::start(&home, 30, 120);
    tmux.keys(&[&format!("{} top", home.line()), "Enter"]);
    tmux.shows("2 sandboxes");
    tmux.shows("while :; do");
    tmux.shows("sandbox.started");
    // By name, the second one: attach, speak, come back.
    tmux.keys(&["n"]);
    tmux.keys(&["Down"]);
    tmux.keys(&["a"]);
    tmux.shows("attached to");
    tmux.keys(&["hello", "Enter"]);
    tmux.shows("heard hello");
    tmux.keys(&["C-p"]);
    tmux.keys(&["C-q"]);
    tmux.shows("2 sandboxes");
    // Stop asks first.
    tmux.keys(&["Up"]);
    tmux.keys(&["K"]);
    tmux.shows("y, or any other key");
    tmux.keys(&["x"]);
    tmux.shows("not done");
    tmux.keys(&["K"]);
    tmux.shows("y, or any other key");
    tmux.keys(&["y"]);
    tmux.shows("1 sandboxes");
    tmux.keys(&["q"]);
    eventually("the host's shell is back", || tmux.call(&["display-message", "-p", "#{pane_current_command}"]).trim() == "sh");
    home.ok(&["rm", "-f", "talker", "busy"]);
    let none = home.run(&["top"]);
    assert!(none.code == 2 && none.err.contains("cofferdam stats"), "{none:?}");
}
