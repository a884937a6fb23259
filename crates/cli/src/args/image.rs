//! Arguments of `image`.

use crate::engines::EngineName;
use clap::{Args, Subcommand};
use cofferdam_model::Span;
use cofferdam_model::image::Reference;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Fetch an image: resolve, verify, unpack.
    Pull(PullArgs),
    /// List images.
    Ls,
    /// Show everything recorded of an image.
    Inspect {
        /// Image.
        image: Reference,
    },
    /// Print the bill of materials of an image: its packages, as dpkg and apk recorded them.
    Sbom {
        /// Image.
        image: Reference,
        /// cyclonedx (1.6) or spdx (2.3), both JSON.
        #[arg(long, value_enum, default_value_t)]
        format: SbomFormat,
    },
    /// Verify an image once more by the rules of now; say what was checked, by which rule, with which identity.
    Verify(VerifyArgs),
    /// Build an image: from a Dockerfile, or from a definition (base.yaml with its lock file).
    Build(BuildArgs),
    /// Compare the lock files of definitions with what Debian has today; take it with --update.
    Lock(LockArgs),
    /// Take images from an archive of `docker save` or `image save`, or from an OCI image layout.
    Load(LoadArgs),
    /// Make an image of a root file system: a directory or a tar archive.
    Import(ImportArgs),
    /// Write an image to an archive that Docker, podman and `image load` read.
    Save {
        /// Image.
        image: Reference,
        /// File; - is standard output.
        file: PathBuf,
    },
    /// Give an image to its registry.
    Push {
        /// Image.
        image: Reference,
        /// Another name to give it under.
        target: Option<Reference>,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Give an image one more name.
    Tag {
        /// Image.
        image: Reference,
        /// The name.
        name: Reference,
    },
    /// Forget images; their bytes go with `image gc`.
    Rm {
        /// Images.
        #[arg(required = true)]
        images: Vec<Reference>,
    },
    /// Remove what no image uses any more.
    Gc {
        /// Also images that were not used for so long, such as 30d.
        #[arg(long, value_name = "TIME")]
        unused_for: Option<Span>,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
}

/// A form of bills of materials.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum SbomFormat {
    /// CycloneDX 1.6.
    #[default]
    Cyclonedx,
    /// SPDX 2.3.
    Spdx,
}

/// Whom to trust.
#[derive(Clone, Debug, Default, Args)]
pub struct TrustArgs {
    /// Trust policy [default: trust.yaml in /etc/cofferdam for root, else in ~/.config/cofferdam].
    #[arg(long, value_name = "FILE", env = "COFFERDAM_TRUST", hide_env = true)]
    pub trust: Option<PathBuf>,
    /// Trust root of sigstore (JSON) instead of the public one.
    #[arg(long, value_name = "FILE")]
    pub trust_root: Option<PathBuf>,
    /// A pinned digest is not enough.
    #[arg(long)]
    pub require_signature: bool,
    /// Look at no signature and no pin; said loudly, and recorded.
    #[arg(long)]
    pub skip_verify: bool,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Image, such as python:3.12 or registry.example/team/app@sha256:…
    #[arg(required = true)]
    pub images: Vec<Reference>,
    /// Take the tag's new digest as its pin.
    #[arg(long)]
    pub accept: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Image.
    pub image: Reference,
    #[command(flatten)]
    pub trust: TrustArgs,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Archive or layout; - is standard input. With --engine, an image of the store.
    #[arg(value_name = "FILE|IMAGE")]
    pub file: PathBuf,
    /// Give an image of the store to an engine that keeps its own: docker.
    #[arg(long, value_name = "ENGINE", conflicts_with = "name")]
    pub engine: Option<EngineName>,
    /// What the only image in it is to be called.
    #[arg(long)]
    pub name: Option<Reference>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Directory or tar archive.
    pub source: PathBuf,
    /// What the image is to be called.
    pub name: Reference,
}

#[derive(Debug, Args)]
pub struct LockArgs {
    /// Directories with a base.yaml, or names of definitions below images/.
    #[arg(required = true, value_name = "DIR|NAME")]
    pub definitions: Vec<PathBuf>,
    /// Write what changed.
    #[arg(long)]
    pub update: bool,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Dockerfile [default: DIR/Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What the image is to be called; may be given more than once.
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<Reference>,
    /// Value of an ARG.
    #[arg(long = "build-arg", value_name = "K[=V]")]
    pub build_args: Vec<String>,
    /// Stage to stop at.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE.
    #[arg(long = "secret", value_name = "id=NAME,src=FILE")]
    pub secrets: Vec<String>,
    /// What RUN may reach: isolated, `package_only`, `limited_web`, `full_web` [default: `package_only`].
    #[arg(long, value_name = "LEVEL")]
    pub network: Option<cofferdam_model::NetworkLevel>,
    /// Let RUN reach this too: HOST[:PORT].
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Use no layer of an earlier build.
    #[arg(long)]
    pub no_cache: bool,
    /// Label of the image.
    #[arg(long = "label", value_name = "K=V", value_parser = super::key_value)]
    pub labels: Vec<(String, String)>,
    /// Attach bills of materials (CycloneDX, SPDX) and provenance (SLSA), as OCI referrers.
    #[arg(long)]
    pub attest: bool,
    /// Sign them, and the image, with this key: P-256, PEM, no passphrase; implies --attest.
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Who the provenance says did it: a URI.
    #[arg(long, value_name = "URI", default_value = "urn:cofferdam:local")]
    pub builder_id: String,
    /// Memory of each RUN, such as 4GiB [default: 80 % of the machine's].
    #[arg(short, long)]
    pub memory: Option<cofferdam_model::Bytes>,
    /// The build context, or a definition: a directory with a base.yaml, or its name.
    #[arg(value_name = "DIR|NAME")]
    pub directory: PathBuf,
    #[command(flatten)]
    pub trust: TrustArgs,
}
