//! Images from Debian packages, without apt: a release is checked, packages are chosen and pinned, fetched by digest and put together.
//!
//! ```text
//! base.yaml ─▶ archive: release (signature) ─▶ index (digest) ─▶ resolve ─▶ lock.json
//! lock.json ─▶ archive: packages (digest) ─▶ layer: one archive ─▶ (scripts run in a sandbox ─▶ flat) ─▶ image
//! ```

mod archive;
mod flat;
mod layer;
mod lock;
mod package;
mod resolve;
mod version;

pub use archive::{ARCHITECTURES, Archive, ArchiveError, Mirrors};
pub use flat::flatten;
pub use layer::{Extras, LayerError, accounts, packages_layer};
pub use lock::{Change, Lock, LockError, LockedPackage, LockedSuite, definition};
pub use package::DebFile;
