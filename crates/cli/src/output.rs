//! Everything that is printed as data: one array for lists, one object for single things, one object a line for streams.

use crate::args::Form;
use serde::Serialize;
use std::io::{self, Write};

/// A line on standard error. Nobody may be reading it: that is no reason to fail.
macro_rules! note {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}
pub(crate) use note;

/// Prints one thing: `table` says how for people.
pub fn one<T: Serialize>(form: Form, value: &T, table: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match form {
        Form::Table => table(&mut out)?,
        Form::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
        Form::Yaml => write!(out, "{}", cofferdam_model::yaml::write(value).map_err(io::Error::other)?)?,
    }
    out.flush()
}

/// Prints one object of a stream.
pub fn line<T: Serialize>(form: Form, value: &T, table: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match form {
        Form::Table => table(&mut out)?,
        Form::Json => writeln!(out, "{}", serde_json::to_string(value)?)?,
        Form::Yaml => write!(out, "---\n{}", cofferdam_model::yaml::write(value).map_err(io::Error::other)?)?,
    }
    out.flush()
}

/// A table with aligned columns; control characters in cells are escaped, so that a workload cannot write to the
/// terminal through its name or command.
pub fn table(out: &mut dyn Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Text with control characters escaped.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    const MEBIBYTE: f64 = 1_048_576.0;
    let mebibytes = bytes as f64 / MEBIBYTE;
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

/// How long ago, as people say it.
pub fn age(then: cofferdam_model::Timestamp, now: cofferdam_model::Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_move_the_cursor() {
        let mut out = Vec::new();
        table(&mut out, &["A", "B"], &[vec!["x\u{1b}[2J".into(), "y\r\n".into()]]).expect("printed");
        assert_eq!(String::from_utf8_lossy(&out), "A           B\nx\\u{1b}[2J  y\\r\\n\n");
    }
}
