//! Exit statuses: the one place where errors become numbers.

use crate::args::Form;
use cofferdam_engine::{EngineError, ErrorKind, MountError};
use cofferdam_lifecycle::control::ClientError;
use cofferdam_lifecycle::{DataError, SupervisorError};
use cofferdam_store::StoreError;
use cofferdam_trust::content::ContentError;
use cofferdam_trust::layout::LayoutError;
use cofferdam_trust::pull::PullError;
use cofferdam_trust::push::PushError;
use cofferdam_trust::verify::{TrustFileError, VerifyError};
use cofferdam_trust::{ImageError, ToolchainError, UserError};
use std::process::ExitCode;

/// The command's own time limit ended it.
pub const TIME_LIMIT: u8 = 124;
/// Cofferdam itself failed to run something.
pub const FAILED_TO_RUN: u8 = 125;
/// The program cannot be invoked.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;
/// A management command failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Something checked is not well.
pub const UNHEALTHY: u8 = 3;

/// A failure to be reported: message, exit status, stable code.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    code: &'static str,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// With a status of its own.
    pub fn new(status: u8, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), remedy: None }
    }

    /// A wrong argument.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, "usage", message)
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// For commands that run something: what would be 1 is 125.
    #[must_use]
    pub const fn while_running(mut self) -> Self {
        if self.status == FAILED || self.status == USAGE {
            self.status = FAILED_TO_RUN;
        }
        self
    }

    /// The message, for another process to report.
    pub fn message(&self) -> String {
        self.remedy.as_ref().map_or_else(|| self.message.clone(), |remedy| format!("{}; {remedy}", self.message))
    }

    /// The status.
    pub const fn status(&self) -> u8 {
        self.status
    }

    /// Prints it and gives its status.
    pub fn report(self, form: Form) -> ExitCode {
        if form == Form::Json {
            let error = serde_json::json!({ "error": { "code": self.code, "message": self.message, "remedy": self.remedy } });
            crate::output::note!("{error}");
        } else {
            crate::output::note!("cofferdam: {}", self.message());
        }
        ExitCode::from(self.status)
    }
}

/// Prints what clap has to say.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard output cannot be told about itself.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let (status, code) = match (&error, error.kind()) {
            (EngineError::NotFound { .. }, _) => (NOT_FOUND, "not_found"),
            (_, ErrorKind::Program) => (NOT_EXECUTABLE, "not_executable"),
            (_, ErrorKind::Unsupported) => (FAILED, "unsupported"),
            (_, ErrorKind::Invalid) => (FAILED, "invalid"),
            (_, ErrorKind::Exhausted) => (FAILED, "exhausted"),
            (_, ErrorKind::Gone) => (FAILED, "gone"),
            (_, ErrorKind::Host) => (FAILED, "host"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<SupervisorError> for Failure {
    fn from(error: SupervisorError) -> Self {
        match error {
            SupervisorError::Engine(error) => error.into(),
            SupervisorError::Store(error) => error.into(),
            SupervisorError::Data(error) => error.into(),
            SupervisorError::NotReady(why) => Self::new(FAILED, "not_ready", why),
            SupervisorError::Io { .. } => Self::new(FAILED, "host", error.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { message, code } => Self::new(u8::try_from(code).unwrap_or(FAILED_TO_RUN), "refused", message),
            ClientError::NotRunning | ClientError::Ended => Self::new(FAILED, "gone", error.to_string()),
            ClientError::Io(_) => Self::new(FAILED, "host", error.to_string()),
        }
    }
}

macro_rules! failed {
    ($($error:ty => $code:literal),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(FAILED, $code, error.to_string())
            }
        })*
    };
}

failed! {
    DataError => "data_directory",
    StoreError => "database",
    ImageError => "image",
    UserError => "user",
    PullError => "image",
    LayoutError => "image",
    PushError => "image",
    VerifyError => "verification",
    TrustFileError => "trust_policy",
    ContentError => "image_store",
    cofferdam_lifecycle::suite::SuiteError => "suite",
    cofferdam_lifecycle::build::BuildError => "build",
    cofferdam_trust::debian::ArchiveError => "debian",
    cofferdam_trust::inventory::InventoryError => "image",
    cofferdam_trust::attest::AttestError => "attest",
    ToolchainError => "toolchain",
    MountError => "mount",
    cofferdam_lifecycle::volume::VolumeError => "volume",
    std::io::Error => "io",
    cofferdam_lifecycle::task::TaskRunError => "task",
}
