//! Arguments of `volume`.

use clap::Subcommand;
use cofferdam_model::{Bytes, Name};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Make an empty volume.
    Create {
        /// Name: [a-z0-9-], 63 characters at most.
        name: Name,
        /// Most bytes that it can hold, set aside at once [default: 1GiB; without root there is no quota].
        #[arg(long)]
        size: Option<Bytes>,
    },
    /// List volumes.
    Ls,
    /// Show volumes and who uses them.
    Inspect {
        /// Volumes.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Remove volumes with everything in them; one that a sandbox uses stays.
    Rm {
        /// Volumes.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<Name>,
    },
    /// Write everything in a volume to a tar archive.
    Export {
        /// Volume.
        name: Name,
        /// Archive; - for standard output.
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Make a volume of a tar archive.
    Import {
        /// Name of the new volume.
        name: Name,
        /// Archive; - for standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Most bytes that it can hold [default: 1GiB; without root there is no quota].
        #[arg(long)]
        size: Option<Bytes>,
    },
}
