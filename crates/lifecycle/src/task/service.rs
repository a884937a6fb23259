//! Services: processes that run in a sandbox before its main one, each ready before the next begins.

use super::step::SERVICES;
use crate::log::{LogWriter, Stream};
use crate::pump::{Output, Source, from_sandbox};
use crate::supervisor::SupervisorError;
use cofferdam_engine::{Control, ExitStatus, ProcessSpec, Sandbox, Stdio, Transfer};
use cofferdam_model::task::{Ready, Service};
use cofferdam_trust::VerifiedImage;
use rustix::pipe::{PipeFlags, pipe_with};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const LOG_BYTES: u64 = 4 << 20;
const INTERVAL: Duration = Duration::from_millis(200);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// One look at whether a service is ready may take so long.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Where each service's output is written, and the thread that does it.
pub(super) type Logs = Rc<RefCell<Vec<(String, PathBuf, JoinHandle<()>)>>>;

/// What services have in common.
pub(super) struct Context {
    /// The directory of the task file.
    pub base: PathBuf,
    /// The sandbox's image.
    pub image: VerifiedImage,
    /// Where processes start.
    pub directory: String,
    /// Environment of the sandbox.
    pub environment: BTreeMap<String, String>,
    /// Below this, each has a log.
    pub logs: PathBuf,
    /// Those that have been started.
    pub started: Logs,
}

/// Starts them one after the other. An error names the service.
pub(super) async fn start_all(sandbox: &Arc<dyn Sandbox>, services: &[Service], context: &Context) -> Result<(), SupervisorError> {
    for service in services {
        let named = |why: String| SupervisorError::NotReady(format!("service {}: {why}", service.name));
        start(sandbox, service, context).await.map_err(named)?;
    }
    Ok(())
}

async fn start(sandbox: &Arc<dyn Sandbox>, service: &Service, context: &Context) -> Result<(), String> {
    let user = context.image.user(service.user.as_deref()).map_err(|error| error.to_string())?;
    if let Some(files) = &service.files {
        let target = format!("{SERVICES}/{}", service.name).into();
        let copy = Transfer::In { source: context.base.join(files), target, owner: (user.uid, user.gid) };
        sandbox.transfer(copy).await.map_err(|error| error.to_string())?;
    }
    let mut environment = context.environment.clone();
    environment.extend(service.env.clone());
    environment.extend([("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name)].map(|(k, v)| (k.to_owned(), v.clone())));
    let spec = |command: &[String]| ProcessSpec {
        command: command.iter().map(|word| word.clone().into_bytes()).collect(),
        environment: environment.iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
        directory: context.directory.clone(),
        user: user.clone(),
        terminal: None,
    };
    let stdio = logged(service, context).map_err(|error| error.to_string())?;
    let mut process = sandbox.exec(spec(&service.command), stdio).await.map_err(|error| error.to_string())?;
    let Some(ready) = &service.ready else { return Ok(()) };
    let within = ready.timeout.map_or(READY_WITHIN, cofferdam_model::Span::duration);
    tokio::select! {
        biased;
        is_ready = until_ready(sandbox, ready, &spec, within) => is_ready,
        // A service that puts itself into the background ends with 0 and may yet get ready.
        status = failed(&mut process) => Err(format!("it ended with {status:?} before it was ready")),
    }
}

async fn failed(process: &mut cofferdam_engine::Process) -> ExitStatus {
    match process.wait().await {
        ExitStatus::Code(0) => std::future::pending().await,
        status => status,
    }
}

/// A step that must succeed before the main process starts, without a service of its own.
pub(super) async fn until_ready(
    sandbox: &Arc<dyn Sandbox>,
    ready: &Ready,
    spec: &impl Fn(&[String]) -> ProcessSpec,
    within: Duration,
) -> Result<(), String> {
    let interval = ready.interval.map_or(INTERVAL, cofferdam_model::Span::duration);
    let deadline = Instant::now() + within;
    loop {
        let port = match ready.port {
            Some(port) => sandbox.connect(port).await.is_ok(),
            None => true,
        };
        if port && (ready.command.is_empty() || succeeds(sandbox, spec(&ready.command)).await) {
            return Ok(());
        }
        if Instant::now() + interval >= deadline {
            return Err(format!("it was not ready within {} s", within.as_secs_f64()));
        }
        sleep(interval).await;
    }
}

async fn succeeds(sandbox: &Arc<dyn Sandbox>, spec: ProcessSpec) -> bool {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let (Ok(a), Ok(b), Ok(c)) = (null(), null(), null()) else { return false };
    let Ok(mut process) = sandbox.exec(spec, Stdio::Fds([a, b, c])).await else { return false };
    let status = timeout(LOOK_WITHIN, process.wait()).await;
    // What it left running ends too; a sandbox that has ended has nothing running.
    let _ = sandbox.control(Control::End { process: process.id }).await;
    status == Ok(ExitStatus::Code(0))
}

/// Its output goes to a log of its own, bounded.
fn logged(service: &Service, context: &Context) -> std::io::Result<Stdio> {
    let directory = context.logs.join(service.name.as_str());
    std::fs::create_dir_all(&directory)?;
    let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
    let output = Arc::new(Output::new(LogWriter::new(&directory, LOG_BYTES)));
    let pump = from_sandbox(vec![Source { from, stream: Stream::Out, foreground: None }], output)?;
    context.started.borrow_mut().push((service.name.to_string(), directory, pump));
    let null = File::open("/dev/null")?.into();
    Ok(Stdio::Fds([null, to.try_clone()?, to]))
}
