//! `cofferdam ssh-config`, and what ssh runs by it: SSH to sandboxes without a port.

use crate::args::Global;
use crate::context::{Context, seed};
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::control::{ClientError, Reply, Request};
use cofferdam_model::SandboxRecord;
use cofferdam_ssh::{HOSTS, HostKeyFiles};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// What a host's name ends with.
const SUFFIX: &str = ".cofferdam";

/// Prints it.
pub fn config(global: Global, sandboxes: &[String]) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let records = if sandboxes.is_empty() {
        store.sandbox_list_live()?
    } else {
        sandboxes.iter().map(|reference| Context::find(&mut store, reference)).collect::<Result<_, _>>()?
    };
    let keys = HostKeyFiles::open(&context.data.path().join("ssh"), seed)?;
    let program = std::env::current_exe()?;
    let data = context.data.path();
    let mut out = io::stdout().lock();
    // Editors offer hosts that are named, and no patterns.
    let named = records.iter().map(host).collect::<Vec<_>>();
    if !named.is_empty() {
        writeln!(out, "Host {}\n    User sandbox\n", named.join(" "))?;
    }
    writeln!(out, "Host {HOSTS}")?;
    writeln!(out, "    ProxyCommand {} --data-dir {} ssh-proxy -- '%n'", word(&program)?, word(data)?)?;
    writeln!(out, "    User sandbox")?;
    writeln!(out, "    UserKnownHostsFile {}", quoted(&keys.known_hosts)?)?;
    for line in ["StrictHostKeyChecking yes", "PreferredAuthentications none", "ForwardAgent no", "ForwardX11 no"] {
        writeln!(out, "    {line}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn host(record: &SandboxRecord) -> String {
    let name = record.name.as_ref().map_or_else(|| record.id.short(), ToString::to_string);
    format!("{name}{SUFFIX}")
}

fn text(path: &Path) -> Result<&str, Failure> {
    let plain = path.to_str().filter(|text| !text.contains(['"', '\n', '\r', '\0']));
    plain.ok_or_else(|| Failure::new(FAILED, "path", format!("{} cannot stand in a configuration of ssh", path.display())))
}

/// For ssh, which reads `%` itself.
fn quoted(path: &Path) -> Result<String, Failure> {
    Ok(format!("\"{}\"", text(path)?.replace('%', "%%")))
}

/// For the shell that ssh runs the command with.
fn word(path: &Path) -> Result<String, Failure> {
    Ok(format!("'{}'", text(path)?.replace('\'', r"'\''").replace('%', "%%")))
}

/// Hands standard input and output to the sandbox's supervisor, which speaks SSH over them.
pub fn proxy(global: Global, host: &str) -> Result<ExitCode, Failure> {
    if rustix::termios::isatty(io::stdin()) {
        return Err(Failure::usage("ssh runs this, nobody else").remedy("see cofferdam ssh-config"));
    }
    let context = Context::open(global)?;
    let reference = host.strip_suffix(SUFFIX).unwrap_or(host);
    let record = Context::find(&mut context.store()?, reference)?;
    let client = context.connect(&record)?;
    let HostKeyFiles { text: host_key, .. } = HostKeyFiles::open(&context.data.path().join("ssh"), seed)?;
    client.send(&Request::Ssh { host_key }, &[io::stdin().as_fd(), io::stdout().as_fd()])?;
    match client.answer() {
        Ok(Reply::Done) | Err(ClientError::Ended) => Ok(ExitCode::SUCCESS),
        Ok(other) => Err(Failure::new(FAILED, "protocol", format!("unexpected answer {other:?}"))),
        Err(error) => Err(error.into()),
    }
}
