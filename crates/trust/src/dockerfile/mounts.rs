//! `RUN --mount`.

/// A mount of a RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Its kind.
    pub kind: MountKind,
    /// Where.
    pub target: String,
}

/// Kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A secret, as a file.
    Secret {
        /// Its name.
        id: String,
        /// Whether it must be given.
        required: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name.
        id: String,
    },
    /// The context, or a part of it, read-only.
    Context {
        /// The part.
        source: String,
    },
    /// An empty directory that is thrown away.
    Temporary,
}

/// Reads one: `type=…,target=…`.
pub fn parse(text: &str) -> Result<RunMount, String> {
    let fields: Vec<(&str, &str)> = text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
    let get = |names: &[&str]| fields.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| *value);
    let has = |name: &str| fields.iter().any(|(key, value)| *key == name && *value != "false");
    let target = get(&["target", "dst", "destination"]).map(str::to_owned);
    let refuse = |what: &str| Err(format!("RUN --mount: {what} is not supported"));
    let known = [
        "type",
        "target",
        "dst",
        "destination",
        "id",
        "source",
        "src",
        "required",
        "readonly",
        "ro",
        "rw",
        "sharing",
        "mode",
        "uid",
        "gid",
        "from",
        "size",
    ];
    if let Some((name, _)) = fields.iter().find(|(name, _)| !known.contains(name)) {
        return refuse(name);
    }
    match get(&["type"]).unwrap_or("bind") {
        "secret" => {
            let id = get(&["id"]).or_else(|| target.as_deref().and_then(|target| target.rsplit('/').next()));
            let id = id.ok_or("RUN --mount=type=secret needs an id")?.to_owned();
            let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
            Ok(RunMount { kind: MountKind::Secret { id, required: has("required") }, target })
        }
        "cache" => {
            if get(&["from", "source", "src"]).is_some() {
                return refuse("a cache from somewhere");
            }
            let target = target.ok_or("RUN --mount=type=cache needs a target")?;
            let id = get(&["id"]).unwrap_or(&target).to_owned();
            Ok(RunMount { kind: MountKind::Cache { id }, target })
        }
        "bind" => {
            if get(&["from"]).is_some() {
                return refuse("type=bind with from (COPY --from instead)");
            }
            if has("rw") {
                return refuse("type=bind with rw");
            }
            let source = get(&["source", "src"]).unwrap_or(".").to_owned();
            Ok(RunMount { kind: MountKind::Context { source }, target: target.ok_or("RUN --mount=type=bind needs a target")? })
        }
        "tmpfs" => Ok(RunMount { kind: MountKind::Temporary, target: target.ok_or("RUN --mount=type=tmpfs needs a target")? }),
        other => refuse(&format!("type={other}")),
    }
}
