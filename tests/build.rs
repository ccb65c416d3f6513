//! One test per scenario: adding a file under `scenarios/` is adding a test.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=scenarios");
    let mut names = Vec::new();
    for entry in fs::read_dir("scenarios")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".sh") {
            names.push(name.to_owned());
        } else if Path::new("scenarios").join(&name).join("scenario.sh").exists() {
            names.push(name);
        }
    }
    names.sort();
    let mut tests = String::new();
    for name in names {
        let function = name.replace('-', "_");
        let _ = writeln!(tests, "#[test]\nfn {function}() {{\n    scenario(\"{name}\");\n}}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("scenarios.rs"), tests)
}
