//! One verb, one file.

mod apply;
mod attach;
mod bench;
mod build;
mod completion;
mod cp;
mod diff;
mod doctor;
mod egress;
mod engine;
mod escape_test;
mod events;
mod exec;
mod gate;
mod image;
mod inspect;
mod lock;
mod logs;
mod monitor;
mod mounts;
mod owner;
mod policy;
mod ports;
pub mod probe;
mod prune;
mod ps;
mod request;
mod rm;
pub mod run;
mod ssh;
mod stats;
mod stop;
mod suite;
mod task;
mod top;
mod version;
mod volume;
mod wait;

use crate::args::{Cli, EngineVerb, TaskVerb, Verb};
use crate::exit::Failure;
use cofferdam_engine_native::Ahead;
use std::process::ExitCode;

/// Does what was asked. `ahead` was begun for a sandbox.
pub fn dispatch(cli: Cli, ahead: Option<Ahead>) -> Result<ExitCode, Failure> {
    if cli.verb.only_prints() {
        // As command line tools do. What supervises or relays must outlive its reader instead.
        cofferdam_sys::process::default_sigpipe();
    }
    let mut global = cli.global;
    global.verbose += cli.more;
    match cli.verb {
        Verb::Run(arguments) => run::run(global, *arguments, ahead).map_err(Failure::while_running),
        Verb::Exec(arguments) => exec::run(global, arguments).map_err(Failure::while_running),
        Verb::Release(arguments) => owner::release(global, &arguments),
        Verb::Attach(arguments) => attach::run(global, &arguments.sandbox).map_err(Failure::while_running),
        Verb::Ps(arguments) => ps::run(global, &arguments),
        Verb::Inspect(arguments) => inspect::run(global, &arguments),
        Verb::Stats(arguments) => stats::run(global, &arguments),
        Verb::Top => top::run(global),
        Verb::Ports(arguments) => ports::run(global, &arguments.sandbox),
        Verb::Wait(arguments) => wait::run(global, &arguments),
        Verb::Logs(arguments) => logs::run(global, &arguments),
        Verb::Cp(arguments) => cp::run(global, &arguments),
        Verb::Diff(arguments) => diff::run(global, &arguments.sandbox),
        Verb::Apply(arguments) => apply::run(global, &arguments),
        Verb::Snapshot { sandbox, name } => diff::snapshot(global, &sandbox, &name),
        Verb::Events(arguments) => events::run(global, &arguments),
        Verb::Stop(arguments) => stop::stop(global, &arguments),
        Verb::Kill(arguments) => stop::kill(global, &arguments),
        Verb::Pause(arguments) => stop::pause(global, &arguments),
        Verb::Resume(arguments) => stop::resume(global, &arguments),
        Verb::Rm(arguments) => rm::run(global, &arguments),
        Verb::Prune => prune::run(global),
        Verb::Task(TaskVerb::Run(arguments)) => task::run(global, &arguments).map_err(Failure::while_running),
        Verb::Task(TaskVerb::Validate { task }) => task::validate(global, &task),
        Verb::Task(TaskVerb::Init { directory }) => task::init(&global, &directory),
        Verb::Task(TaskVerb::Render(arguments)) => task::render(global, &arguments),
        Verb::Task(TaskVerb::Show { attempt }) => task::show(global, &attempt),
        Verb::Task(TaskVerb::Schema { name }) => task::schema(&name),
        Verb::Task(TaskVerb::List { task }) => task::list(global, task.as_ref()),
        Verb::Image(verb) => image::run(global, verb),
        Verb::Volume(verb) => volume::run(global, verb),
        Verb::Suite(verb) => suite::run(global, &verb),
        Verb::Engine(EngineVerb::Ls) => engine::ls(global),
        Verb::Engine(EngineVerb::Info) => engine::info(global),
        Verb::Doctor(arguments) => doctor::run(global, &arguments),
        Verb::EscapeTest(arguments) => escape_test::run(global, &arguments),
        Verb::Bench(arguments) => bench::run(global, &arguments),
        Verb::Completion { shell } => completion::run(shell),
        Verb::Version => version::run(&global),
        Verb::Policy(verb) => policy::run(global, &verb),
        Verb::SshConfig { sandboxes } => ssh::config(global, &sandboxes),
        Verb::SshProxy(arguments) => ssh::proxy(global, &arguments.sandbox).map_err(Failure::while_running),
        Verb::Gate(arguments) => gate::run(&global, &arguments),
        Verb::Monitor(arguments) => monitor::run(global, *arguments, ahead),
    }
}
