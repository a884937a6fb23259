//! Images: from a name to something that an engine may start.
//!
//! Invariant: [`VerifiedImage`] is made here and nowhere else; an engine takes nothing else. This first part knows two
//! origins, the host itself and a directory; nothing here opens a socket. Start reading at [`resolve`].

mod accounts;
mod copy;
mod host;
mod image;
mod toolchain;

pub use accounts::{Accounts, User, UserError};
pub use host::PATH_VALUE;
pub use image::{HostTree, ImageError, Origin, VerifiedImage, resolve};
pub use toolchain::{Toolchain, ToolchainError};
