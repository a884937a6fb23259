//! `cofferdam attach`: the streams of a running sandbox's main process, from now on.

use crate::args::Global;
use crate::commands::wait::until_final;
use crate::context::Context;
use crate::exit::{FAILED_TO_RUN, Failure};
use crate::terminal::{self, Raw};
use cofferdam_lifecycle::control::{Client, ClientError, Incoming, PIECE_ERROR, Reply, Request};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

/// Runs it.
pub fn run(global: Global, reference: &str) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = Context::find(&mut store, reference)?;
    let client = context.connect(&record)?;
    client.send(&Request::Attach, &[])?;
    let left = Arc::new(AtomicBool::new(false));
    let raw = if terminal::is_interactive() { Some(Raw::enter()?) } else { None };
    if raw.is_some() {
        let (rows, columns) = terminal::size();
        client.send(&Request::Resize { rows, columns }, &[])?;
        let input = client.try_clone()?;
        let left = Arc::clone(&left);
        std::thread::Builder::new().name("input".into()).spawn(move || send_keys(&input, &left))?;
    }
    let code = show(&client);
    drop(raw);
    let code = match code? {
        Some(code) => code,
        None if left.load(Ordering::Relaxed) => 0,
        // The supervisor ended before it could say so here: the record does.
        None => until_final(&context, &mut store, record)?.exit_code.unwrap_or(i32::from(FAILED_TO_RUN)),
    };
    std::mem::forget(store);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(FAILED_TO_RUN)))
}

/// Until Ctrl-P Ctrl-Q, which leaves the sandbox running.
fn send_keys(client: &Client, left: &AtomicBool) {
    let mut keys = io::stdin().lock();
    let mut buffer = [0u8; 1024];
    let mut held = false;
    while let Ok(length @ 1..) = keys.read(&mut buffer) {
        let mut typed = Vec::with_capacity(length + 1);
        for key in &buffer[..length] {
            match (held, *key) {
                (true, CTRL_Q) => {
                    left.store(true, Ordering::Relaxed);
                    let _ = rustix::net::shutdown(client, rustix::net::Shutdown::Both);
                    return;
                }
                (false, CTRL_P) => held = true,
                (was_held, key) => {
                    if was_held {
                        typed.push(CTRL_P);
                    }
                    held = false;
                    typed.push(key);
                }
            }
        }
        if !typed.is_empty() && client.send_input(&typed).is_err() {
            return;
        }
    }
}

/// Until the end: the exit status, if it was told.
fn show(client: &Client) -> Result<Option<i32>, Failure> {
    loop {
        match client.receive() {
            Ok(Incoming::Piece(PIECE_ERROR, bytes)) => io::stderr().write_all(&bytes)?,
            Ok(Incoming::Piece(_, bytes)) => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Ok(Incoming::Reply(Reply::Exited { code, .. }, _)) => return Ok(Some(code)),
            Ok(Incoming::Reply(..)) => {}
            Err(ClientError::Ended) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
