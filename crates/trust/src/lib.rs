//! Images: from a name to something that an engine may start.
//!
//! Invariant: [`VerifiedImage`] is made here and nowhere else; an engine takes nothing else. Only `registry` opens sockets, and
//! nothing that it brings is believed before its digest was right. Start reading at [`resolve`], then `pull`.

mod accounts;
pub mod attest;
pub mod changes;
pub mod collect;
pub mod content;
mod copy;
pub mod copying;
pub mod debian;
pub mod dockerfile;
mod host;
mod image;
pub mod inventory;
pub mod layout;
pub mod oci;
pub mod pack;
pub mod pattern;
pub mod pull;
pub mod push;
pub mod registry;
pub mod removal;
mod toolchain;
pub mod unpack;
pub mod verify;

pub use accounts::{Accounts, User, UserError};
pub use host::PATH_VALUE;
pub use image::{HostTree, ImageError, Origin, VerifiedImage, resolve, stored_image};
pub use oci::RunConfig;
pub use toolchain::{Toolchain, ToolchainError};
