//! JSON Schemas (2020-12) of what users write, so that editors complete it. Types that are text in a file say so here.

use crate::synth::{SynthConfig, SynthTask, SynthTools};
use crate::{Bytes, Cpus, ImageRef, Name, Span, Task};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

macro_rules! text_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_schema!(Bytes, "Bytes", { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|t|g|m|k|B|b)?$", "examples": ["512MiB"] });
text_schema!(Span, "Span", { "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(d|h|ms|m|s))+$", "examples": ["5m", "1h30m"] });
text_schema!(Cpus, "Cpus", { "type": ["number", "string"], "examples": [1.5] });
text_schema!(Name, "Name", { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" });
text_schema!(ImageRef, "ImageRef", { "type": "string", "examples": ["host", "./rootfs", "python:3.12"] });

/// The schema of what users write or agents find, by name.
pub fn named(name: &str) -> Option<Schema> {
    Some(match name {
        "base" => schemars::schema_for!(crate::image::Base),
        "config" => schemars::schema_for!(crate::config::Config),
        "suite" => schemars::schema_for!(crate::config::SuiteFile),
        "task" => schemars::schema_for!(Task),
        "synth-task" => schemars::schema_for!(SynthTask),
        "synth-tools" => schemars::schema_for!(SynthTools),
        "synth-config" => schemars::schema_for!(SynthConfig),
        _ => return None,
    })
}
