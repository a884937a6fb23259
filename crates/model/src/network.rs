//! Network levels.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkLevel {
    /// Nothing.
    #[default]
    Isolated,
    /// The package registries that this host is configured for.
    PackageOnly,
    /// What the policy lists.
    LimitedWeb,
    /// Any public destination, gated and recorded.
    FullWeb,
}

impl NetworkLevel {
    /// Every level, from least to most.
    pub const ALL: [Self; 4] = [Self::Isolated, Self::PackageOnly, Self::LimitedWeb, Self::FullWeb];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::PackageOnly => "package_only",
            Self::LimitedWeb => "limited_web",
            Self::FullWeb => "full_web",
        }
    }
}

impl fmt::Display for NetworkLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is no network level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network level: isolated, package_only, limited_web or full_web")]
pub struct NetworkLevelError(String);

impl FromStr for NetworkLevel {
    type Err = NetworkLevelError;

    fn from_str(text: &str) -> Result<Self, NetworkLevelError> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| NetworkLevelError(text.to_owned()))
    }
}
