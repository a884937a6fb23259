//! `cofferdam policy`: check a file, say what would happen, show what did.

mod edit;

use crate::args::{Global, PolicyVerb};
use crate::commands::egress;
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::output::{line, one, printable, table};
use cofferdam_lifecycle::control::{Reply, Request};
use cofferdam_model::{Event, NetworkLevel};
use cofferdam_policy::egress::{HostName, Policy, Target};
use cofferdam_store::EventFilter;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(200);
const DEFAULT_PORT: u16 = 443;

/// Does what was asked.
pub fn run(global: Global, verb: &PolicyVerb) -> Result<ExitCode, Failure> {
    match verb {
        PolicyVerb::Check { file } => check(&global, file),
        PolicyVerb::Explain { policy, destination } => explain(global, policy, destination),
        PolicyVerb::Allow { sandbox, entries, always } => allow(global, sandbox, entries, *always),
        PolicyVerb::Edit { sandbox, always } => edit::run(&Context::open(global)?, sandbox, *always),
        PolicyVerb::Replace { sandbox, file } => {
            let (policy, warnings) = egress::compile_file(file)?;
            for warning in warnings {
                crate::output::note!("cofferdam: warning: {warning}");
            }
            put(&Context::open(global)?, sandbox, policy)
        }
        PolicyVerb::Log { sandbox, follow } => log(global, sandbox.as_deref(), *follow),
    }
}

fn check(global: &Global, file: &Path) -> Result<ExitCode, Failure> {
    let (policy, warnings) = egress::compile_file(file)?;
    let rules: Vec<Vec<String>> = policy.rules().iter().map(row).collect();
    let shown =
        serde_json::json!({ "file": file, "rules": policy.rules(), "deny": policy.deny(), "open": policy.is_open(), "warnings": warnings });
    one(global.output, &shown, |out| {
        table(out, &["RULE", "PORTS", "PROTOCOL", "SEEN"], &rules)?;
        policy.deny().iter().try_for_each(|deny| writeln!(out, "deny {deny}"))?;
        if policy.is_open() {
            writeln!(out, "every other public destination is allowed, and recorded")?;
        }
        Ok(())
    })?;
    for warning in &warnings {
        crate::output::note!("cofferdam: warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(rule: &cofferdam_policy::egress::Rule) -> Vec<String> {
    let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
    let port = rule.ports.first().copied().unwrap_or(DEFAULT_PORT);
    let protocol = rule.protocol.unwrap_or_else(|| cofferdam_policy::egress::Protocol::usual_at(port));
    // Nothing is decrypted in this release: what is sent there cannot be looked into.
    let seen = match (&rule.target, protocol.name()) {
        (Target::Host(_), "http") => "names and text",
        (Target::Host(_), "https" | "tls") => "the name; opaque",
        _ => "opaque",
    };
    vec![rule.name.clone(), ports.join(","), protocol.name().to_owned(), seen.to_owned()]
}

/// What would happen to a connection, under a file or the policy of a sandbox.
fn explain(global: Global, policy: &str, destination: &str) -> Result<ExitCode, Failure> {
    let compiled = if Path::new(policy).is_file() {
        egress::compile_file(Path::new(policy))?.0
    } else {
        of_sandbox(&Context::open(global.clone())?, policy)?
    };
    let (host, port) = split(destination)?;
    let decided = if let Ok(address) = host.parse::<IpAddr>() {
        compiled.decide_address(address, port)
    } else {
        let name = HostName::from_wire(&host).map_err(|error| Failure::usage(error.to_string()))?;
        compiled.decide_name(&name, port)
    };
    let (allowed, rule, reason) = match &decided {
        Ok(permit) => (true, Some(permit.rule.clone()), format!("the first bytes have to be {}", permit.protocol.name())),
        Err(denial) => (false, denial.rule.clone(), denial.reason.clone()),
    };
    let shown = serde_json::json!({ "host": host, "port": port, "allowed": allowed, "rule": rule, "reason": reason });
    one(global.output, &shown, |out| {
        let word = if allowed { "allowed" } else { "denied" };
        let by = rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
        writeln!(out, "{host}:{port}: {word}{by}: {reason}")
    })?;
    Ok(ExitCode::from(if allowed { 0 } else { FAILED }))
}

/// More rules for a running sandbox.
fn allow(global: Global, reference: &str, entries: &[String], always: bool) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let kept = if always { edit::with_more(&context, reference, entries)? } else { None };
    let current = of_sandbox(&context, reference)?;
    let wanted = egress::Wanted { network: Some(NetworkLevel::LimitedWeb), allow: entries, ..egress::Wanted::default() };
    let more = wanted.compile()?.1.map(|gate| gate.policy.rules().to_vec()).unwrap_or_default();
    let done = put(&context, reference, current.with(more))?;
    if let Some((path, text)) = kept {
        edit::write(&path, &text)?;
    }
    Ok(done)
}

fn put(context: &Context, reference: &str, policy: Policy) -> Result<ExitCode, Failure> {
    let record = Context::find(&mut context.store()?, reference)?;
    let reply = context.connect(&record)?.ask(&Request::Replace { policy })?;
    if let Reply::Replaced { generation, closed } = reply {
        let shown = serde_json::json!({ "sandbox": record.id, "generation": generation, "closed": closed });
        one(context.global.output, &shown, |out| {
            let connections = if closed == 1 { "connection" } else { "connections" };
            writeln!(out, "{reference}: generation {generation} is in force, {closed} {connections} closed")
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_sandbox(context: &Context, reference: &str) -> Result<Policy, Failure> {
    let record = Context::find(&mut context.store()?, reference)?;
    let path = context.data.sandbox(record.id).join("policy.json");
    let Ok(text) = std::fs::read(&path) else {
        let message = format!("sandbox {} has no policy: its network is {}", record.id.short(), record.network);
        return Err(Failure::new(FAILED, "not_found", message));
    };
    serde_json::from_slice(&text).map_err(|error| Failure::new(FAILED, "policy", format!("{}: {error}", path.display())))
}

fn split(text: &str) -> Result<(String, u16), Failure> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), DEFAULT_PORT));
    }
    match text.rsplit_once(':') {
        None => Ok((text.to_owned(), DEFAULT_PORT)),
        Some((host, port)) => {
            let port = port.parse().map_err(|_| Failure::usage(format!("{text:?}: HOST or HOST:PORT is wanted")))?;
            Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
        }
    }
}

/// Decisions about the network, oldest first.
fn log(global: Global, sandbox: Option<&str>, follow: bool) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let subject = match sandbox {
        Some(reference) => Some(format!("sandbox:{}", Context::find(&mut store, reference)?.id)),
        None => None,
    };
    let mut filter = EventFilter { after: 0, subject, limit: 0 };
    loop {
        let mut events = store.event_list(&filter)?;
        filter.after = events.last().map_or(filter.after, |event| event.sequence);
        events.retain(|event| event.event.kind.starts_with("network.") || event.event.kind.starts_with("policy."));
        if !follow {
            one(context.global.output, &events, |out| events.iter().try_for_each(|event| writeln!(out, "{}", text(event))))?;
            return Ok(ExitCode::SUCCESS);
        }
        for event in &events {
            line(context.global.output, event, |out| writeln!(out, "{}", text(event)))?;
        }
        std::thread::sleep(PAUSE);
    }
}

fn text(event: &Event) -> String {
    let inner = &event.event;
    let word = |key: &str| inner.data[key].as_str().map(printable).unwrap_or_default();
    let port = inner.data["port"].as_u64().filter(|port| *port != 0).map(|port| format!(":{port}")).unwrap_or_default();
    let count = inner.data["count"].as_u64().filter(|count| *count > 1).map(|count| format!(" {count} times")).unwrap_or_default();
    let rule = inner.rule.as_deref().map(|rule| format!("  by {}", printable(rule))).unwrap_or_default();
    let reason = inner.reason.as_deref().map(|reason| format!("  {}", printable(reason))).unwrap_or_default();
    let kind = inner.kind.trim_start_matches("network.");
    format!("{}  {kind:7}  {}{port}  {}{count}{rule}{reason}", inner.time, word("host"), word("protocol"))
}
