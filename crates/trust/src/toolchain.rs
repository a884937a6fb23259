//! Toolchains of the host that do not live under `/usr`: shown read-only, at their own paths, when asked for.

use std::path::{Path, PathBuf};

/// A toolchain: trees to show and directories for PATH. Found by the caller (the command line asks the tools
/// themselves); checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Trees to show read-only.
    pub trees: Vec<PathBuf>,
    /// Directories that hold its programs.
    pub programs: Vec<PathBuf>,
}

/// A toolchain that may not be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolchainError {
    /// No absolute path to an existing directory.
    #[error("toolchain {path} is no directory", path = .0.display())]
    NoDirectory(PathBuf),
    /// A place that holds more than a toolchain.
    #[error("toolchain {path} would show more than a toolchain: name the directory of the tool itself, such as {path}/.rustup/toolchains/NAME", path = .0.display())]
    TooWide(PathBuf),
}

/// Never shown, whatever asks: system directories, homes, and what holds credentials.
const NEVER: &[&str] = &[
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/usr",
    "/var",
];
const CREDENTIALS: &[&str] = &[".ssh", ".gnupg", ".aws", ".config", ".docker", ".kube", ".netrc"];

impl Toolchain {
    /// Checks the trees: absolute, existing, and nothing but a toolchain. `home` is the user's home directory.
    pub fn new(trees: Vec<PathBuf>, programs: Vec<PathBuf>, home: Option<&Path>) -> Result<Self, ToolchainError> {
        let mut checked = Vec::new();
        for tree in trees {
            let real = tree.canonicalize().ok().filter(|path| path.is_dir()).ok_or_else(|| ToolchainError::NoDirectory(tree.clone()))?;
            let home_or_above = home.and_then(|home| home.canonicalize().ok()).is_some_and(|home| home.starts_with(&real));
            let secret = real.components().any(|part| CREDENTIALS.iter().any(|name| part.as_os_str() == *name));
            if NEVER.iter().any(|path| real == Path::new(path)) || home_or_above || secret {
                return Err(ToolchainError::TooWide(real));
            }
            if !real.starts_with("/usr") {
                checked.push(real.clone());
            }
        }
        Ok(Self { trees: checked, programs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_and_system_directories_are_refused() {
        for path in ["/", "/root", "/etc", "/home"] {
            if Path::new(path).is_dir() {
                let result = Toolchain::new(vec![path.into()], vec![], None);
                assert_eq!(result, Err(ToolchainError::TooWide(path.into())));
            }
        }
        assert!(Toolchain::new(vec!["/nonexistent".into()], vec![], None).is_err());
        let home = std::env::temp_dir();
        assert!(Toolchain::new(vec![home.clone()], vec![], Some(&home)).is_err());
    }
}
