//! The columns of an export: the sixteen of the SWE-bench family, then ours. Lists are arrays in JSON, and JSON in a column of text in
//! Parquet, as the datasets of that family have them.

use super::{Row, agent};
use crate::exit::{FAILED, Failure};
use cofferdam_store::SuiteRecord;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Real,
    Whole,
}

const COLUMNS: &[(&str, Kind)] = &[
    ("instance_id", Kind::Text),
    ("repo", Kind::Text),
    ("base_commit", Kind::Text),
    ("patch", Kind::Text),
    ("test_patch", Kind::Text),
    ("problem_statement", Kind::Text),
    ("hints_text", Kind::Text),
    ("created_at", Kind::Text),
    ("version", Kind::Text),
    ("FAIL_TO_PASS", Kind::Text),
    ("PASS_TO_PASS", Kind::Text),
    ("environment_setup_commit", Kind::Text),
    ("language", Kind::Text),
    ("difficulty", Kind::Text),
    ("difficulty_score", Kind::Real),
    ("quality_score", Kind::Real),
    ("suite", Kind::Text),
    ("attempt", Kind::Text),
    ("repetition", Kind::Whole),
    ("split", Kind::Text),
    ("agent", Kind::Text),
    ("agent_command", Kind::Text),
    ("phase", Kind::Text),
    ("reason", Kind::Text),
    ("detail", Kind::Text),
    ("reward", Kind::Real),
    ("tests", Kind::Text),
    ("agent_exit_code", Kind::Whole),
    ("verify_exit_code", Kind::Whole),
    ("started_at", Kind::Text),
    ("ended_at", Kind::Text),
    ("agent_seconds", Kind::Real),
    ("verify_seconds", Kind::Real),
    ("memory_peak_bytes", Kind::Whole),
    ("cpu_seconds", Kind::Real),
    ("egress_bytes", Kind::Whole),
    ("cost", Kind::Real),
    ("image", Kind::Text),
    ("artifacts", Kind::Text),
    ("trajectory", Kind::Text),
];

/// One attempt.
pub fn json(suite: &SuiteRecord, row: &Row) -> Value {
    let (task, attempt) = (row.task.as_ref(), &row.attempt);
    let metadata = task.map(|task| &task.metadata);
    let value = json!({
        "instance_id": row.item.item.task,
        "repo": metadata.and_then(|m| m.repo.clone()),
        "base_commit": metadata.and_then(|m| m.base_commit.clone()),
        "patch": metadata.and_then(|m| m.patch.clone()),
        "test_patch": metadata.and_then(|m| m.test_patch.clone()),
        "problem_statement": task.map(|task| &task.instruction),
        "hints_text": metadata.and_then(|m| m.hints_text.clone()),
        "created_at": metadata.and_then(|m| m.created_at.clone()),
        "version": metadata.and_then(|m| m.version.clone()),
        "FAIL_TO_PASS": task.map(|task| &task.verify.fail_to_pass),
        "PASS_TO_PASS": task.map(|task| &task.verify.pass_to_pass),
        "environment_setup_commit": metadata.and_then(|m| m.environment_setup_commit.clone()),
        "language": metadata.and_then(|m| m.language.clone()),
        "difficulty": task.map(|task| task.difficulty),
        "difficulty_score": metadata.and_then(|m| m.difficulty_score),
        "quality_score": metadata.and_then(|m| m.quality_score),
    });
    let ours = json!({
        "suite": suite.id, "attempt": attempt.id, "repetition": row.item.item.repetition, "split": row.split,
        "agent": agent(suite), "agent_command": suite.agent_command,
        "phase": attempt.phase, "reason": attempt.reason, "detail": attempt.detail, "reward": attempt.reward, "tests": attempt.tests,
        "agent_exit_code": attempt.agent_exit_code, "verify_exit_code": attempt.verify_exit_code,
        "started_at": attempt.created_at, "ended_at": attempt.ended_at,
        "agent_seconds": attempt.figures.agent_seconds, "verify_seconds": attempt.figures.verify_seconds,
        "memory_peak_bytes": attempt.figures.memory_peak_bytes, "cpu_seconds": attempt.figures.cpu_seconds,
        "egress_bytes": attempt.figures.egress_bytes, "cost": row.cost, "image": attempt.image,
        "artifacts": row.artifacts, "trajectory": row.trajectory,
    });
    let (mut whole, Value::Object(ours)) = (object(value), ours) else { return Value::Null };
    whole.extend(ours);
    Value::Object(whole)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A Parquet file (<https://parquet.apache.org/docs/file-format/>), one row group, zstd.
pub fn parquet(suite: &SuiteRecord, rows: &[&Row]) -> Result<Vec<u8>, Failure> {
    let rows: Vec<Value> = rows.iter().map(|row| json(suite, row)).collect();
    file(&rows).map_err(|error| Failure::new(FAILED, "export", format!("Parquet: {error}")))
}

fn file(rows: &[Value]) -> Result<Vec<u8>, ParquetError> {
    let column = |(name, kind): &(&str, Kind)| match kind {
        Kind::Text => format!("optional binary {name} (STRING);"),
        Kind::Real => format!("optional double {name};"),
        Kind::Whole => format!("optional int64 {name};"),
    };
    let text = format!("message attempt {{ {} }}", COLUMNS.iter().map(column).collect::<String>());
    let schema = Arc::new(parse_message_type(&text)?);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (name, _) in COLUMNS {
        let values: Vec<&Value> = rows.iter().map(|row| &row[*name]).collect();
        let levels: Vec<i16> = values.iter().map(|value| i16::from(!value.is_null())).collect();
        let present = values.into_iter().filter(|value| !value.is_null());
        let Some(mut column) = group.next_column()? else { break };
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(out) => {
                let texts: Vec<ByteArray> = present.map(|value| ByteArray::from(text_of(value).into_bytes())).collect();
                out.write_batch(&texts, Some(&levels), None)?;
            }
            ColumnWriter::DoubleColumnWriter(out) => {
                let numbers: Vec<f64> = present.map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
                out.write_batch(&numbers, Some(&levels), None)?;
            }
            ColumnWriter::Int64ColumnWriter(out) => {
                let numbers: Vec<i64> = present.map(|value| value.as_i64().unwrap_or(0)).collect();
                out.write_batch(&numbers, Some(&levels), None)?;
            }
            _ => return Err(ParquetError::General(format!("column {name} has another type"))),
        }
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    fn on_disk(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().expect("a file");
        std::io::Write::write_all(&mut file, bytes).expect("written");
        file
    }

    #[test]
    fn what_is_written_is_read_again() {
        let row =
            |name: &str, reward: Value, tests: Value| json!({ "instance_id": name, "reward": reward, "repetition": 3, "tests": tests });
        let rows = [row("a\u{e4}", json!(0.5), json!({ "x": "passed" })), row("b", Value::Null, Value::Null)];
        let bytes = file(&rows).expect("writes");
        let reader = SerializedFileReader::new(on_disk(&bytes)).expect("reads");
        let columns = reader.metadata().file_metadata().schema_descr().num_columns();
        assert_eq!((columns, COLUMNS[15].0), (COLUMNS.len(), "quality_score"), "sixteen come first");
        let at = |name: &str| COLUMNS.iter().position(|(column, _)| *column == name).expect(name);
        let read: Vec<_> = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].get_string(at("instance_id")).expect("text"), "a\u{e4}");
        assert_eq!(read[0].get_double(at("reward")).expect("a number").to_string(), "0.5");
        assert_eq!(read[0].get_long(at("repetition")).expect("a number"), 3);
        assert_eq!(read[0].get_string(at("tests")).expect("text"), "{\"x\":\"passed\"}");
        assert!(read[1].get_double(at("reward")).is_err(), "nothing is not zero");
    }

    #[test]
    fn no_rows_are_a_file_too() {
        let reader = SerializedFileReader::new(on_disk(&file(&[]).expect("writes"))).expect("reads");
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
