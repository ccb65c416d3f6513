//! `parador run` and `parador vmm`: a machine, from the command line to its end.

use parador_config::{Checked, Diagnostics, Dump, Tree};
use parador_engine::Plan;
use tracing::level_filters::LevelFilter;

use crate::args::{Given, Request};
use crate::print;
use crate::sources;
use crate::status::Status;
use crate::{log, runner, terminal, vmm};

/// A machine that was described, and may be.
pub(crate) struct Description {
    /// What was written.
    pub(crate) tree: Tree,
    /// What it means.
    pub(crate) keys: Checked,
    /// What the machine will be.
    pub(crate) plan: Plan,
}

/// Runs the machine that `request` describes, and says how it ended.
pub(crate) fn run(request: &Request) -> Status {
    let mut diagnostics = Diagnostics::default();
    let Some(tree) = sources::read(request, &mut diagnostics) else {
        request.messages.show(&diagnostics);
        return Status::Usage;
    };
    if let Some(form) = request.dump.or_else(|| asks_for_dump(&tree)) {
        return dump(&tree, form, request, diagnostics);
    }
    machine(tree, request, diagnostics)
}

/// Runs the machine that `tree` describes, and says how it ended.
pub(crate) fn machine(tree: Tree, request: &Request, mut diagnostics: Diagnostics) -> Status {
    let keys = tree.check(&mut diagnostics);
    let plan = Plan::new(&keys, &mut diagnostics);
    // What a program wrote it has judged: `parador run` has given its warnings already.
    let by_program = request.given.iter().any(|given| matches!(given, Given::Descriptor(..)));
    if !by_program || diagnostics.errors() > 0 {
        request.messages.show(&diagnostics);
    }
    let Some(plan) = plan else { return Status::Usage };
    log::start(log::level(&keys, LevelFilter::WARN));
    let description = Description { tree, keys, plan };
    if let Some(dry_run) = request.dry_run {
        return runner::plan(&description, request.messages, dry_run);
    }
    let status =
        if request.interactive { runner::run(&description, request.messages) } else { vmm::run(description) };
    status.unwrap_or_else(|diagnostic| {
        terminal::leave();
        request.messages.show_error(diagnostic);
        Status::Failed
    })
}

/// What the key `config.dump` asks for.
fn asks_for_dump(tree: &Tree) -> Option<Dump> {
    tree.setting("config.dump")?;
    tree.check(&mut Diagnostics::default()).bool("config.dump").then_some(Dump::Raw)
}

/// Prints `tree` as it is: nothing has been held against the table of keys.
pub(crate) fn dump(tree: &Tree, form: Dump, request: &Request, mut diagnostics: Diagnostics) -> Status {
    if form == Dump::Expanded {
        let _ = tree.expand(&mut diagnostics);
    }
    request.messages.show(&diagnostics);
    if diagnostics.errors() > 0 { Status::Usage } else { print(&tree.dump(form, request.dump_secrets)) }
}
