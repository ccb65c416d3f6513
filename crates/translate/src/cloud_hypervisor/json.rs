//! Cloud Hypervisor's VmConfig: the groups of its command line, in JSON.

use parador_config::{Diagnostics, Tree};
use serde_json::Value as Json;

use super::export::machine;
use super::import::tree;
use super::{ENGINE, FATES, ROWS};
use crate::format::{Exported, Imported, Input, Output};
use crate::json::{Object, compact, group, json, read};
use crate::parts::{Group, Part, Value, elements};
use crate::reading::Reading;
use crate::structured::node::{Node, Value as Read};
use crate::writing::Writing;

/// Members of a VmConfig that are objects, or arrays of them, with the option that says the same.
static SECTIONS: &[(&str, &str)] = &[
    ("cpus", "cpus"),
    ("memory", "memory"),
    ("disks", "disk"),
    ("net", "net"),
    ("rng", "rng"),
    ("balloon", "balloon"),
    ("fs", "fs"),
    ("vsock", "vsock"),
    ("serial", "serial"),
    ("console", "console"),
    ("devices", "device"),
    ("numa", "numa"),
    ("platform", "platform"),
    ("tpm", "tpm"),
    ("generic_vhost_user", "generic-vhost-user"),
];

/// Sections that are arrays.
static ARRAYS: &[&str] = &["disks", "net", "fs", "devices", "numa", "generic_vhost_user"];

/// Members that the command line calls otherwise: section, member, part.
static RENAMED: &[(&str, &str, &str)] = &[
    ("cpus", "boot_vcpus", "boot"),
    ("cpus", "max_vcpus", "max"),
    ("disks", "vhost_socket", "socket"),
    ("net", "vhost_socket", "socket"),
    ("net", "fds", "fd"),
    ("disks", "rate_limiter_config.bandwidth.size", "bw_size"),
    ("disks", "rate_limiter_config.bandwidth.one_time_burst", "bw_one_time_burst"),
    ("disks", "rate_limiter_config.bandwidth.refill_time", "bw_refill_time"),
    ("disks", "rate_limiter_config.ops.size", "ops_size"),
    ("disks", "rate_limiter_config.ops.one_time_burst", "ops_one_time_burst"),
    ("disks", "rate_limiter_config.ops.refill_time", "ops_refill_time"),
    ("net", "rate_limiter_config.bandwidth.size", "bw_size"),
    ("net", "rate_limiter_config.bandwidth.one_time_burst", "bw_one_time_burst"),
    ("net", "rate_limiter_config.bandwidth.refill_time", "bw_refill_time"),
    ("net", "rate_limiter_config.ops.size", "ops_size"),
    ("net", "rate_limiter_config.ops.one_time_burst", "ops_one_time_burst"),
    ("net", "rate_limiter_config.ops.refill_time", "ops_refill_time"),
];

/// What starts: `payload` has these, and older versions had an object for each.
static PAYLOAD: &[(&str, &str)] =
    &[("kernel", "path"), ("initramfs", "path"), ("cmdline", "args"), ("firmware", "path")];

pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let table = read(input, "give the file with the VmConfig")?;
    let mut reading = Reading::new(ENGINE, ROWS);
    let mut groups = Vec::new();
    for (key, node) in &table {
        let name = key.name.as_str();
        if let Some((_, member)) = PAYLOAD.iter().find(|(payload, _)| *payload == name) {
            groups.extend(group("payload", node).map(|mut old| {
                for part in &mut old.parts {
                    if part.name == *member {
                        name.clone_into(&mut part.name);
                    }
                }
                old
            }));
        } else if name == "payload" {
            groups.extend(group("payload", node));
        } else if let Some((_, option)) = SECTIONS.iter().find(|(section, _)| *section == name) {
            for element in node.elements() {
                match group(option, element) {
                    Some(element) => groups.extend(section(name, element, node)),
                    None if matches!(element.value, Read::Odd(_)) => {}
                    None => reading.wrong(element.place.finding(format!("`{name}` is made of objects"))),
                }
            }
        } else if !matches!(node.value, Read::Odd(_)) {
            reading.keep(format!("/{name}"), &key.place.origin());
            reading.keep(compact(node), &key.place.origin());
        }
    }
    let mut flat = Vec::new();
    for group in groups {
        if group.option == "payload" { flat.extend(payload(group)) } else { flat.push(group) }
    }
    tree(reading, "/", flat)
}

/// What starts, as the options it is on the command line.
fn payload(group: Group) -> Vec<Group> {
    let mut groups = Vec::new();
    for part in group.parts {
        if PAYLOAD.iter().any(|(name, _)| *name == part.name) {
            let mut option = Group { origin: part.origin.clone(), ..Group::new(&part.name, "") };
            option.parts.push(Part { name: String::new(), ..part });
            groups.push(option);
        } else {
            let mut rest = Group { origin: part.origin.clone(), ..Group::new("payload", "") };
            rest.parts.push(part);
            groups.push(rest);
        }
    }
    groups
}

/// One element of a section, with the names and forms of the command line; zones of memory are
/// groups of their own.
fn section(name: &str, mut group: Group, node: &Node) -> Vec<Group> {
    let mut groups = Vec::new();
    for part in &mut group.parts {
        if let Some((_, _, new)) =
            RENAMED.iter().find(|(section, old, _)| *section == name && *old == part.name)
        {
            (*new).clone_into(&mut part.name);
        }
    }
    match name {
        "cpus" => {
            let topology = ["threads_per_core", "cores_per_die", "dies_per_package", "packages"]
                .map(|member| group.take(&format!("topology.{member}")));
            if let [Some(threads), Some(cores), Some(dies), Some(packages)] = &topology {
                let numbers = [threads, cores, dies, packages].map(|part| part.value.shown());
                let value = Value::Text(numbers.join(":"));
                group.parts.push(Part { name: "topology".to_owned(), value, origin: threads.origin.clone() });
            }
            if let Some(pairs) = affinity(node) {
                let part = group.take("affinity");
                let origin = part.map_or(group.origin.clone(), |part| part.origin);
                group.parts.push(Part { name: "affinity".to_owned(), value: pairs, origin });
            }
        }
        "memory" => {
            let zones = member(node, "zones");
            for zone in zones.map(Node::elements).unwrap_or_default() {
                groups.extend(crate::json::group("memory-zone", zone));
            }
            if !groups.is_empty() {
                group.take("zones");
            }
        }
        "serial" | "console" => mode(&mut group),
        _ => {}
    }
    groups.push(group);
    groups
}

fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Read::Table(table) = &node.value else { return None };
    crate::structured::node::entry(table, name)
}

/// `[{"vcpu": 0, "host_cpus": [1, 2]}]` as the command line has it.
fn affinity(cpus: &Node) -> Option<Value> {
    let one = |node: &Node| {
        let vcpu = member(node, "vcpu")?.scalar()?;
        let hosts: Option<Vec<&str>> =
            member(node, "host_cpus")?.elements().iter().map(Node::scalar).collect();
        Some(Value::Text(format!("{vcpu}@[{}]", hosts?.join(","))))
    };
    let list: Option<Vec<Value>> = member(cpus, "affinity")?.elements().iter().map(one).collect();
    list.map(Value::List)
}

/// What a console is connected to, as the command line says it.
fn mode(group: &mut Group) {
    let Some(part) = group.take("mode") else { return };
    let word = part.value.shown().to_lowercase();
    if !matches!(word.as_str(), "file" | "socket") {
        group.parts.push(Part { name: String::new(), value: Value::Text(word), origin: part.origin });
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut writing = Writing::new(tree, FATES, ROWS);
    let whole = machine(&mut writing, "/").whole;
    let (groups, losses) = writing.finish();
    let mut config = Object::default();
    config.set("payload", Object::default());
    for group in &groups {
        write(&mut config, group);
    }
    config.kept(&whole);
    Ok(Exported { output: Output::Text(config.file()), losses })
}

fn write(config: &mut Object, group: &Group) {
    if PAYLOAD.iter().any(|(name, _)| *name == group.option) {
        if let Some(part) = group.parts.first() {
            *config.at(&format!("payload.{}", group.option)) = json(&part.value);
        }
        return;
    }
    if group.option == "memory-zone" {
        return config.append("memory.zones", parts("zones", group));
    }
    let Some((section, _)) = SECTIONS.iter().find(|(_, option)| *option == group.option) else { return };
    let object = parts(section, group);
    if ARRAYS.contains(section) { config.append(section, object) } else { config.set(section, object) }
}

fn parts(section: &str, group: &Group) -> Object {
    let mut object = Object::default();
    if section == "cpus" && group.part("max").is_none() {
        let boot = group.part("boot").map_or(Json::from(1), |boot| json(&boot.value));
        object.set("boot_vcpus", boot.clone());
        object.set("max_vcpus", boot);
    }
    for part in &group.parts {
        let text = part.value.shown();
        match (section, part.name.as_str()) {
            ("serial" | "console", "") => object.set("mode", capital(&text)),
            ("serial" | "console", name @ ("file" | "socket")) => {
                object.set("mode", capital(name));
                object.set(name, text);
            }
            ("cpus", "topology") => {
                let names = ["threads_per_core", "cores_per_die", "dies_per_package", "packages"];
                for (name, number) in names.iter().zip(text.split(':')) {
                    *object.at(&format!("topology.{name}")) = number.parse::<u64>().unwrap_or(1).into();
                }
            }
            ("cpus", "affinity") => {
                for pair in part.value.list().unwrap_or_default() {
                    let pair = pair.shown();
                    let (vcpu, hosts) = pair.split_once('@').unwrap_or((&pair, "[]"));
                    let mut one = Object::default();
                    one.set("vcpu", vcpu.parse::<u64>().unwrap_or_default());
                    one.set("host_cpus", numbers(hosts));
                    object.append("affinity", one);
                }
            }
            ("net", "fd") => object.set("fds", numbers(&text)),
            ("numa", "cpus") => object.set("cpus", numbers(&text)),
            ("disks", "image_type") => object.set("image_type", capital(&text)),
            (section, name) => {
                let renamed = RENAMED.iter().find(|(of, _, part)| *of == section && *part == name);
                *object.at(renamed.map_or(name, |(_, member, _)| member)) = json(&part.value);
            }
        }
    }
    object
}

/// `word` as its enumerations spell it.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Processors one by one: JSON has no ranges.
fn numbers(list: &str) -> Json {
    let mut numbers = Vec::new();
    for part in elements(list.trim_matches(['[', ']'])) {
        let (first, last) = part.split_once('-').unwrap_or((&part, &part));
        let (first, last) = (first.parse::<u32>().unwrap_or(0), last.parse::<u32>().unwrap_or(0));
        numbers.extend((first..=last).map(Json::from));
    }
    Json::Array(numbers)
}
