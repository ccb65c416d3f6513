//! A row of the table, as it is written.

use super::{Elsewhere, Kind, Support};

/// Words as they are written in the table.
pub(super) type Listed = &'static [&'static str];

/// A [`Key`](super::Key) as it is written in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) pattern: &'static str,
    pub(super) models: Listed,
    pub(super) kind: Kind<Listed>,
    pub(super) default: Option<&'static str>,
    pub(super) live: bool,
    pub(super) secret: bool,
    pub(super) support: Support<Listed>,
    pub(super) elsewhere: Elsewhere,
    pub(super) doc: &'static str,
}

pub(super) const fn key(pattern: &'static str, kind: Kind<Listed>, doc: &'static str) -> Row {
    let elsewhere =
        Elsewhere { bhyve: "", qemu: "", cloud_hypervisor: "", firecracker: "", crosvm: "", libvirt: "" };
    Row {
        pattern,
        models: &[],
        kind,
        default: None,
        live: false,
        secret: false,
        support: Support::Native,
        elsewhere,
        doc,
    }
}

/// A switch.
pub(super) const fn switch(pattern: &'static str, doc: &'static str) -> Row {
    key(pattern, Kind::Bool, doc)
}

/// A text of ordinary length.
pub(super) const fn text(pattern: &'static str, doc: &'static str) -> Row {
    key(pattern, Kind::Text { max: 255 }, doc)
}

/// A number from `min` to `max`.
pub(super) const fn number(pattern: &'static str, min: u64, max: u64, doc: &'static str) -> Row {
    key(pattern, Kind::Int { min, max }, doc)
}

impl Row {
    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(super) const fn of(mut self, models: Listed) -> Self {
        self.models = models;
        self
    }

    pub(super) const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn only(mut self, values: Listed, why: &'static str) -> Self {
        self.support = Support::Only(values, why);
        self
    }

    pub(super) const fn always(mut self, why: &'static str) -> Self {
        self.support = Support::Always(why);
        self
    }

    pub(super) const fn no_effect(mut self, why: &'static str) -> Self {
        self.support = Support::NoEffect(why);
        self
    }

    pub(super) const fn runner(mut self) -> Self {
        self.support = Support::Runner;
        self
    }

    pub(super) const fn refused(mut self, why: &'static str) -> Self {
        self.support = Support::Refused(why);
        self
    }

    pub(super) const fn bhyve(mut self, option: &'static str) -> Self {
        self.elsewhere.bhyve = option;
        self
    }

    pub(super) const fn qemu(mut self, option: &'static str) -> Self {
        self.elsewhere.qemu = option;
        self
    }

    pub(super) const fn cloud_hypervisor(mut self, option: &'static str) -> Self {
        self.elsewhere.cloud_hypervisor = option;
        self
    }

    pub(super) const fn firecracker(mut self, field: &'static str) -> Self {
        self.elsewhere.firecracker = field;
        self
    }

    pub(super) const fn crosvm(mut self, option: &'static str) -> Self {
        self.elsewhere.crosvm = option;
        self
    }

    pub(super) const fn libvirt(mut self, element: &'static str) -> Self {
        self.elsewhere.libvirt = element;
        self
    }
}
