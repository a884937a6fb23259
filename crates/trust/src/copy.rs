//! Copies of trusted trees of the host: regular files, directories and links; world-readable files only.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const OTHERS_READ: u32 = 0o004;

/// Copies a tree. What does not exist, what is no file, directory or link, and what others may not read is left out.
pub fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(source) else {
        return Ok(());
    };
    let readable = metadata.permissions().mode() & OTHERS_READ != 0;
    if metadata.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    if metadata.is_dir() && readable {
        fs::create_dir_all(target)?;
        fs::set_permissions(target, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_tree(&entry.path(), &target.join(entry.file_name()))?;
        }
    } else if metadata.is_file() && readable {
        fs::copy(source, target)?;
    }
    Ok(())
}
