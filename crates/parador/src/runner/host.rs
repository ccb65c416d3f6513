//! Whether this host can do what a plan says. Files are opened and closed again, and nothing is made.

use parador_config::{Checked, Diagnostic};
use parador_engine::{Backing, Openable, Plan, Tap, hardware_virtualization};

use super::{backends, network};

/// What was looked at, and what is wrong with it.
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) problem: Option<Diagnostic>,
}

/// Looks at all that the machine of `plan` needs of this host.
pub(super) fn check(plan: &Plan, keys: &Checked) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: String, result: Result<(), Diagnostic>| {
        findings.push(Finding { what, problem: result.err() });
    };
    for opening in plan.openings() {
        let opens = || opening.open(keys).map(drop);
        match &opening.what {
            Openable::Kvm => add("/dev/kvm opens".to_owned(), opens()),
            Openable::Boot(file) => add(format!("{} can be read", file.path.display()), opens()),
            Openable::Image(block) => {
                let what = format!("{} opens and is nobody else's", block.image.path.display());
                let taken =
                    || Diagnostic::new("somebody else has it").hint("is the machine running already?");
                add(what, opening.is_taken(keys).and_then(|is| if is { Err(taken()) } else { Ok(()) }));
            }
            Openable::Interface { id, net } => {
                let Tap::Interface(interface) = &net.tap else { continue };
                let what = format!("interface {} can be had", interface.name);
                add(what, network::check(keys, id, net, interface));
            }
            Openable::Inherited(_) => add(format!("{} is open", opening.key), opens()),
        }
    }
    for device in backends::of(plan) {
        let Some(folder) = backends::folder(device) else { continue };
        let what = format!("virtiofsd is there to share {}", folder.display());
        add(what, backends::program(keys, device, folder).map(drop));
    }
    add("KVM runs ordinary kernels".to_owned(), virtualization());
    if let Some((size, name)) = match plan.memory.backing {
        Backing::Huge2M => Some((2 << 20, "hugepages-2048kB")),
        Backing::Huge1G => Some((1 << 30, "hugepages-1048576kB")),
        Backing::Anonymous | Backing::Memfd => None,
    } {
        let wanted = plan.memory.size.div_ceil(size);
        add(format!("{wanted} huge pages are free"), huge_pages(keys, wanted, name));
    }
    findings
}

fn virtualization() -> Result<(), Diagnostic> {
    if hardware_virtualization() {
        return Ok(());
    }
    Err(Diagnostic::new("the processor shows no virtualization extensions (vmx, svm)")
        .hint("run it on hardware, or ask whoever runs this machine for nested virtualization"))
}

fn huge_pages(keys: &Checked, wanted: u64, name: &str) -> Result<(), Diagnostic> {
    let pool = format!("/sys/kernel/mm/hugepages/{name}");
    let free = std::fs::read_to_string(format!("{pool}/free_hugepages"));
    let free: u64 = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if free >= wanted {
        return Ok(());
    }
    Err(keys
        .about("memory.backing", format!("{free} huge pages are free"))
        .hint(format!("write a number to {pool}/nr_hugepages")))
}
