//! `parador run`: opens and makes what needs privileges, starts the process that is the machine, and
//! stands between it and the terminal.

mod backends;
mod child;
mod host;
mod link;
mod network;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use parador_config::Diagnostic;
use parador_engine::{DevicePlan, Openable, Tap};

use crate::args::DryRun;
use crate::handover::{self, Given};
use crate::messages::Messages;
use crate::run::Description;
use crate::status::Status;
use crate::{device, print, terminal};
use backends::{Backends, Folder, Recipe};
use network::Network;
use watch::Watch;

/// What the machine's process is started with: its keys are open at the first descriptor.
fn arguments(messages: Messages) -> &'static [&'static str] {
    match messages {
        Messages::Text => &["vmm", "--config-fd", "3"],
        Messages::Json => &["vmm", "--config-fd", "3", "--message-format", "json"],
    }
}

/// Numbers of the descriptors that the machine's process gets, after that of the keys.
fn given(description: &Description) -> Vec<Given> {
    let mut next = child::FIRST + 1..;
    let openings = description.plan.openings();
    openings
        .iter()
        .filter(|opening| opening.isolated.is_none())
        .map(|opening| (opening.key.clone(), next.by_ref().take(opening.count()).collect()))
        .collect()
}

/// What the process of `device` is started with: its keys, where it listens, and what is open for it.
fn recipe(description: &Description, device: &DevicePlan, machine_id: &[u8]) -> Result<Recipe, Diagnostic> {
    let Description { tree, plan, keys } = description;
    let id = device.id.clone();
    if let Some(folder) = backends::folder(device) {
        let program = backends::program(keys, device, folder)?;
        let arguments = backends::sharing(&program, folder);
        return Ok(Recipe { id, program: Some(program), arguments, keys: None, descriptors: Vec::new() });
    }
    let name = keys.word(&format!("device.{id}.model"));
    let word = device::MODELS.iter().find(|model| Some(model.model) == name).map_or("", |model| model.word);
    let first = child::FIRST + 2;
    let count: usize = plan
        .openings()
        .iter()
        .filter(|opening| opening.isolated == Some(&device.id))
        .map(parador_engine::Opening::count)
        .sum();
    let fds: Vec<i32> = (first..).take(count).collect();
    let keys = handover::text(&handover::device_keys(tree, plan, device, machine_id, &fds));
    let arguments = ["device", word, "--config-fd", "3", "--fd", "4"].map(str::to_owned).to_vec();
    Ok(Recipe { id, program: None, arguments, keys: Some(keys), descriptors: Vec::new() })
}

/// Says what [`run`] would do, and does nothing; and whether this host can do it, if `dry_run` asks.
pub(crate) fn plan(description: &Description, messages: Messages, dry_run: DryRun) -> Status {
    let Description { tree, plan, keys } = description;
    let machine_id = machine_id();
    let sockets = backends::sockets(plan, &Folder::name("PID"));
    let handed = handover::keys(tree, plan, &machine_id, &given(description), &sockets);
    let processes = plan::processes(description, arguments(messages), &sockets, &machine_id);
    let status = print(&plan::text(plan, &handed, &processes, &machine_id));
    let findings = if dry_run == DryRun::Host { host::check(plan, keys) } else { Vec::new() };
    let mut text = plan::Text::default();
    text.section(
        "this host",
        findings.iter().map(|finding| {
            format!("{:<8} {}", if finding.problem.is_some() { "problem" } else { "ok" }, finding.what)
        }),
    );
    let status = if status == Status::PoweredOff { print(&text.0) } else { status };
    let mut problems = findings.into_iter().filter_map(|finding| finding.problem).peekable();
    let failed = problems.peek().is_some();
    problems.for_each(|problem| messages.show_error(problem));
    if failed { Status::Failed } else { status }
}

/// What the host tells itself apart by.
fn machine_id() -> Vec<u8> {
    std::fs::read("/etc/machine-id").unwrap_or_default()
}

/// Runs the machine until it ends, and says how that was.
pub(crate) fn run(description: &Description, messages: Messages) -> Result<Status, Diagnostic> {
    let Description { tree, plan, .. } = description;
    let host = |doing: &str, e| Diagnostic::new(format!("cannot {doing}")).cause(&e);
    let (watch, input) =
        Watch::take(plan.uses_stdio()).map_err(|e| host("take charge of signals and the terminal", e))?;
    let machine_id = machine_id();
    let mut network = Network::default();
    let mut opened = open(description, &machine_id, &mut network)?;
    let folder = match backends::of(plan).next() {
        Some(_) => Some(Folder::make().map_err(|e| host("make a folder for sockets", e))?),
        None => None,
    };
    let sockets = folder.as_ref().map_or(Vec::new(), |folder| backends::sockets(plan, folder.path()));
    let listeners = backends::listen(&sockets).map_err(|e| host("listen for the machine", e))?;
    let mut recipes = Vec::new();
    for (device, listener) in backends::of(plan).zip(listeners) {
        let mut recipe = recipe(description, device, &machine_id)?;
        recipe.descriptors.push(listener);
        recipe.descriptors.extend(opened.remove(&Some(device.id.as_str())).unwrap_or_default());
        recipes.push(recipe);
    }
    let mut backends =
        Backends::start(recipes, folder).map_err(|e| host("start the process of a device", e))?;
    let keys = handover::text(&handover::keys(tree, plan, &machine_id, &given(description), &sockets));
    let keys = child::text_file(&keys).map_err(|e| host("write keys down", e))?;
    let descriptors = std::iter::once(keys).chain(opened.remove(&None).unwrap_or_default()).collect();
    let mut child = child::start(None, arguments(messages), descriptors, input)
        .map_err(|e| host("start the machine's process", e))?;
    let ended = watch.until_the_end(&mut child, &mut backends)?;
    terminal::leave();
    Ok(watch::end(ended))
}

/// What was opened for each device that has a process of its own, and for the machine.
type Opened<'a> = BTreeMap<Option<&'a str>, Vec<OwnedFd>>;

/// Opens what the machine and its devices need of the host, in the order of [`given`].
fn open<'a>(
    description: &'a Description,
    machine_id: &[u8],
    network: &mut Network,
) -> Result<Opened<'a>, Diagnostic> {
    let Description { keys, plan, .. } = description;
    let mut all = Opened::new();
    for opening in plan.openings() {
        let opened = all.entry(opening.isolated).or_default();
        match opening.what {
            Openable::Interface { id, net } => {
                let Tap::Interface(interface) = &net.tap else { continue };
                let mac = parador_engine::mac(plan, id, net, machine_id);
                opened.extend(network.open(keys, id, net, interface, mac)?);
            }
            Openable::Kvm | Openable::Boot(_) | Openable::Image(_) | Openable::Inherited(_) => {
                opened.extend(opening.open(keys)?);
            }
        }
    }
    Ok(all)
}
