//! Of the hidden `gate`.

use clap::Args;
use std::path::PathBuf;

/// The gate's process, in each of its forms.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct GateArgs {
    /// Only try what it must not be able to do.
    #[arg(long, conflicts_with_all = ["sidecar", "healthy"])]
    pub attempts: bool,
    /// Serve the workload that shares this container's network, and split that network in two before.
    #[arg(long)]
    pub sidecar: bool,
    /// What the sidecar permits: this file, as it changes. Its record goes to standard output. Without it, a supervisor comes to the socket.
    #[arg(long, value_name = "FILE", requires = "sidecar")]
    pub policy: Option<PathBuf>,
    /// TCP to every address comes to the sidecar (the policy has `network: full_web`).
    #[arg(long, requires = "sidecar", conflicts_with = "policy")]
    pub open: bool,
    /// Capabilities of the workload, with commas between, or `none`: what could undo the sidecar is refused.
    #[arg(long, value_name = "NAMES", requires = "sidecar")]
    pub workload_capabilities: Option<String>,
    /// Name servers that the sidecar asks, with commas between [default: those of its container].
    #[arg(long, value_name = "ADDRESSES", requires = "policy", value_delimiter = ',')]
    pub resolver: Vec<String>,
    /// Where the sidecar is asked whether it is there.
    #[arg(long, value_name = "PATH", requires = "sidecar", default_value = "/run/cofferdam/gate.sock")]
    pub socket: PathBuf,
    /// Only ask the sidecar at this socket whether it is there.
    #[arg(long, value_name = "SOCKET", conflicts_with = "sidecar")]
    pub healthy: Option<PathBuf>,
}
