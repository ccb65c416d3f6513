//! What Parador's own engine makes of the keys it is asked for.

use crate::check::Checked;
use crate::diagnose::{Diagnostics, Severity};
use crate::keys::{self, Support};
use crate::printable::printable;
use crate::unknown::Unknown;
use crate::value;

impl Checked {
    /// Adds to `diagnostics` what Parador's own engine refuses, unless `config.optional` allows for that,
    /// and what has no effect there.
    ///
    /// [`Tree::check`](crate::Tree::check) does not: a tree may be meant for another system.
    pub fn judge_support(&self, diagnostics: &mut Diagnostics) {
        let unknown = Unknown::of(self.tree());
        for (path, setting) in self.tree().in_order() {
            let Some(key) = self.key(path) else { continue };
            let spelt = setting.spelt(path);
            if path.starts_with("device.") && path.ends_with(".model") {
                self.judge_model(path, diagnostics);
                continue;
            }
            if !self.is_native_device(path) {
                continue;
            }
            match key.support {
                Support::Native | Support::Always(_) | Support::Runner => {}
                Support::Only(values, why) => {
                    let value = self.value(path);
                    let parsed = |text| value::parse(key.kind, text).ok();
                    if value.is_some() && !values.iter().any(|text| parsed(text) == value) {
                        diagnostics.add(Severity::Error, || {
                            let text = printable(&setting.value, 60);
                            self.about(path, format!("`{spelt}` cannot be `{text}` yet"))
                                .code("unsupported")
                                .hint(why)
                        });
                    }
                }
                Support::NoEffect(why) => diagnostics.add(Severity::Warning, || {
                    self.about(path, format!("`{spelt}` has no effect")).code("no-effect").hint(why)
                }),
                Support::Refused(_) if unknown.is_optional(path) => {}
                Support::Refused(why) => diagnostics.add(Severity::Error, || {
                    self.about(path, format!("`{spelt}` is not something this version can do"))
                        .code("unsupported")
                        .hint(why)
                }),
            }
        }
    }

    fn judge_model(&self, path: &str, diagnostics: &mut Diagnostics) {
        let Some(model) = self.word(path).and_then(keys::model) else { return };
        match model.support {
            Support::Native | Support::Always(_) | Support::Only(..) | Support::Runner => {}
            Support::NoEffect(why) => diagnostics.add(Severity::Warning, || {
                self.about(path, format!("a `{}` has no effect", model.name)).code("no-effect").hint(why)
            }),
            Support::Refused(why) => diagnostics.add(Severity::Error, || {
                self.about(path, format!("a device cannot be a `{}` yet", model.name))
                    .code("unsupported")
                    .hint(why)
            }),
        }
    }

    /// Whether `path` is of no device, or of one whose model has not been refused as a whole.
    fn is_native_device(&self, path: &str) -> bool {
        let Some((id, _)) = path.strip_prefix("device.").and_then(|rest| rest.split_once('.')) else {
            return true;
        };
        let device = self.devices().iter().find(|device| device.id == id);
        let model = device.and_then(|device| keys::model(device.model));
        model.is_some_and(|model| !matches!(model.support, Support::Refused(_)))
    }
}
