//! `cofferdam logs`.

use crate::args::{Form, Global, LogsArgs};
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::log::{Chunk, LogReader, Stream};
use cofferdam_model::{SandboxRecord, Timestamp};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(100);

/// Prints what was written: output to standard output, error output to standard error.
pub fn run(global: Global, arguments: &LogsArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut record = Context::find(&mut store, &arguments.sandbox)?;
    if record.removed_at.is_some() {
        return Err(Failure::new(FAILED, "removed", format!("the logs of sandbox {} were removed with it", record.id.short()))
            .remedy("run it with --name or --keep to keep them"));
    }
    let directory = context.data.sandbox(record.id).join("logs");
    let mut reader = None;
    loop {
        let ended = record.phase.is_final();
        if reader.is_none() {
            reader = LogReader::open(&directory)?;
        }
        while let Some(chunk) = reader.as_mut().map_or(Ok(None), LogReader::next_chunk)? {
            show(&context.global, arguments, &chunk)?;
        }
        if !arguments.follow || ended {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
        record = reload(&mut store, record)?;
    }
}

fn reload(store: &mut cofferdam_store::Store, record: SandboxRecord) -> Result<SandboxRecord, Failure> {
    Ok(store.sandbox_get(record.id)?.unwrap_or(record))
}

fn show(global: &Global, arguments: &LogsArgs, chunk: &Chunk) -> io::Result<()> {
    let time = Timestamp::from_millisecond(chunk.time_ms).unwrap_or_default();
    if global.output == Form::Json {
        let stream = if chunk.stream == Stream::Err { "stderr" } else { "stdout" };
        println!("{}", serde_json::json!({ "time": time, "stream": stream, "text": String::from_utf8_lossy(&chunk.bytes) }));
        return Ok(());
    }
    let mut sink: Box<dyn Write> = if chunk.stream == Stream::Out { Box::new(io::stdout().lock()) } else { Box::new(io::stderr().lock()) };
    if arguments.timestamps {
        for line in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            write!(sink, "{time} ")?;
            sink.write_all(line)?;
        }
    } else {
        sink.write_all(&chunk.bytes)?;
    }
    sink.flush()
}
