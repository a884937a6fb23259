//! `cofferdam events`.

use crate::args::{EventsArgs, Global};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{line, one, printable};
use cofferdam_model::Event;
use cofferdam_store::EventFilter;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(200);

/// Prints the record.
pub fn run(global: Global, arguments: &EventsArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let subject = match &arguments.sandbox {
        Some(reference) => Some(format!("sandbox:{}", Context::find(&mut store, reference)?.id)),
        None => None,
    };
    let mut filter = EventFilter { after: 0, subject, limit: 0 };
    if !arguments.follow {
        let events = store.event_list(&filter)?;
        one(context.global.output, &events, |out| events.iter().try_for_each(|event| show(out, event)))?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        for event in store.event_list(&filter)? {
            filter.after = event.sequence;
            line(context.global.output, &event, |out| show(out, &event))?;
        }
        std::thread::sleep(PAUSE);
    }
}

fn show(out: &mut dyn Write, event: &Event) -> io::Result<()> {
    let inner = &event.event;
    let reason = inner.reason.as_deref().map(|reason| format!("  {}", printable(reason))).unwrap_or_default();
    let data = if inner.data.is_null() { String::new() } else { format!("  {}", inner.data) };
    let subject = inner.subject.split_once(':').map_or(inner.subject.as_str(), |(_, id)| id.get(..12).unwrap_or(id));
    writeln!(out, "{}  {subject}  {}  {}{reason}{data}", inner.time, inner.kind, printable(&inner.actor))
}
