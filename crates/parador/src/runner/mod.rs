//! `parador run`: opens and makes what needs privileges, starts the process that is the machine, and
//! stands between it and the terminal.

mod child;
mod host;
mod link;
mod network;
mod plan;
mod watch;

use std::os::fd::OwnedFd;

use parador_config::Diagnostic;
use parador_engine::{Openable, Tap};

use crate::args::DryRun;
use crate::handover::{self, Given};
use crate::messages::Messages;
use crate::run::Description;
use crate::status::Status;
use crate::{print, terminal};
use network::Network;
use watch::Watch;

/// What the machine's process is started with: its keys are open at the first descriptor.
fn arguments(messages: Messages) -> &'static [&'static str] {
    match messages {
        Messages::Text => &["vmm", "--config-fd", "3"],
        Messages::Json => &["vmm", "--config-fd", "3", "--message-format", "json"],
    }
}

/// Numbers of the descriptors that `description` asks for, after that of the keys.
fn given(description: &Description) -> Vec<Given> {
    let mut next = child::FIRST + 1..;
    let openings = description.plan.openings();
    openings
        .iter()
        .map(|opening| (opening.key.clone(), next.by_ref().take(opening.count()).collect()))
        .collect()
}

/// Says what [`run`] would do, and does nothing; and whether this host can do it, if `dry_run` asks.
pub(crate) fn plan(description: &Description, messages: Messages, dry_run: DryRun) -> Status {
    let Description { tree, plan, keys } = description;
    let machine_id = machine_id();
    let handed = handover::keys(tree, plan, &machine_id, &given(description));
    let status = print(&plan::text(plan, &handed, arguments(messages), &machine_id));
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
    let opened = open(description, &machine_id, &mut network)?;
    let keys = handover::text(&handover::keys(tree, plan, &machine_id, &given(description)));
    let keys = child::text_file(&keys).map_err(|e| host("write keys down", e))?;
    let descriptors = std::iter::once(keys).chain(opened).collect();
    let mut child = child::start(arguments(messages), descriptors, input)
        .map_err(|e| host("start the machine's process", e))?;
    let ended = watch.until_the_end(&mut child).map_err(|e| host("wait for the machine's process", e))?;
    terminal::leave();
    Ok(watch::end(ended))
}

/// Opens what the machine needs of the host, in the order of [`given`].
fn open(
    description: &Description,
    machine_id: &[u8],
    network: &mut Network,
) -> Result<Vec<OwnedFd>, Diagnostic> {
    let Description { keys, plan, .. } = description;
    let mut opened = Vec::new();
    for opening in plan.openings() {
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
    Ok(opened)
}
