//! From a task on this host to what its attempts start from: images found or built, policies compiled, limits held against the machine.

use super::read::{file_of, read};
use crate::args::TrustArgs;
use crate::commands::build;
use crate::commands::egress::{Wanted, follow_task};
use crate::commands::request::{base_environment, check_against_machine, image_environment};
use crate::config;
use crate::context::{Context, actor, random};
use crate::exit::Failure;
use crate::host::Machine;
use crate::images::start_from;
use crate::toolchain;
use cofferdam_lifecycle::gating::GateRequest;
use cofferdam_lifecycle::task::{Agent, Plan, Start};
use cofferdam_model::task::{Environment, Form};
use cofferdam_model::{AttemptId, ImageRef, Limits, NetworkLevel, Task};
use cofferdam_trust::VerifiedImage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A task with everything that its attempts start from. Made once for many attempts: all of them have the same image.
pub struct Prepared {
    /// The task.
    pub task: Task,
    base: PathBuf,
    image_name: ImageRef,
    execution: Start,
    verification: Start,
}

impl Prepared {
    /// Of a task's file or directory.
    pub fn of(context: &Context, path: &Path, trust: &TrustArgs) -> Result<Self, Failure> {
        let (task, base) = read(path)?;
        let policy = task.policy.as_ref().map(|path| base.join(path));
        let (_, mut gate) =
            Wanted { network: Some(task.network), allow: &task.allow, policy: policy.as_deref(), ..Wanted::default() }.compile()?;
        // Destinations that a task's own file lists can be changed there, as those of a policy file can.
        if let Some(gate) = gate.as_mut().filter(|gate| gate.file.is_none() && task.form == Form::Workspace) {
            gate.file = Some(follow_task(&file_of(path))?);
        }
        let verify_gate = verifier_gate(&task, policy.as_deref())?;
        let own = limits(&task)?;
        let verify_limits = within_machine(&task, task.verify.limits.over(own))?;
        let environments = match &task.form {
            Form::Workspace => [Environment::Image(task.image.clone()), Environment::Image(task.image.clone())],
            Form::Harbor(form) => [form.environment.clone(), form.verifier.clone().unwrap_or_else(|| form.environment.clone())],
        };
        let [first, second] = &environments;
        let (image_name, image) = start(context, &task, &base, first, trust)?;
        let verify_image = if second == first { image.clone() } else { start(context, &task, &base, second, trust)?.1 };
        let execution = begin(&task, image, own, gate)?;
        let verification = begin(&task, verify_image, verify_limits, verify_gate)?;
        Ok(Self { task, base, image_name, execution, verification })
    }

    /// An attempt at it.
    pub fn plan(&self, agent: Agent, id: AttemptId) -> Plan {
        Plan {
            id,
            task: self.task.clone(),
            base: self.base.clone(),
            agent,
            image_name: self.image_name.clone(),
            execution: self.execution.clone(),
            verification: self.verification.clone(),
            actor: actor(),
            random,
        }
    }
}

/// The verifier's network is its own; where it names no destinations, the task's list says to what.
fn verifier_gate(task: &Task, policy: Option<&Path>) -> Result<Option<GateRequest>, Failure> {
    let limited = matches!(task.verify.network, NetworkLevel::LimitedWeb | NetworkLevel::PackageOnly);
    let own = !task.verify.allow.is_empty();
    let allow: &[String] = if own { &task.verify.allow } else { &task.allow };
    let wanted = Wanted {
        network: Some(task.verify.network),
        allow: if limited { allow } else { &[] },
        policy: policy.filter(|_| limited && !own),
        ..Wanted::default()
    };
    Ok(wanted.compile()?.1)
}

fn start(
    context: &Context,
    task: &Task,
    base: &Path,
    environment: &Environment,
    trust: &TrustArgs,
) -> Result<(ImageRef, VerifiedImage), Failure> {
    match environment {
        Environment::Image(image) => Ok((image.clone(), start_from(context, image, trust)?)),
        Environment::Dockerfile { directory, timeout } => {
            let name = format!("localhost/task/{}:{}", task.id, directory.display());
            let reference = build::of_task(context, &base.join(directory), &name, *timeout, trust)?;
            let image = ImageRef::Registry(reference);
            let started = start_from(context, &image, trust)?;
            Ok((image, started))
        }
    }
}

fn begin(task: &Task, mut image: VerifiedImage, limits: Limits, gate: Option<GateRequest>) -> Result<Start, Failure> {
    let mut environment = BTreeMap::new();
    for name in &task.toolchains {
        let (toolchain, variables) = toolchain::find(name)?;
        image.add_toolchain(&toolchain);
        environment.extend(variables);
    }
    image_environment(&image, &mut environment);
    base_environment(&image, &image.user(None)?, &mut environment);
    Ok(Start { image, environment, limits, gate })
}

/// What a task may use: its own limits, no more CPUs than the machine has.
pub fn limits(task: &Task) -> Result<Limits, Failure> {
    within_machine(task, task.limits())
}

fn within_machine(task: &Task, mut limits: Limits) -> Result<Limits, Failure> {
    let machine = Machine::read();
    // A Harbor directory asks for a share of a machine that it does not know.
    let asked = task.limits.cpus.is_some() && task.form == Form::Workspace;
    if !asked && limits.cpus > machine.cpus {
        limits.cpus = machine.cpus;
    }
    config::check(&config::load()?, &limits)?;
    check_against_machine(&limits, machine)?;
    Ok(limits)
}
