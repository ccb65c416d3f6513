//! Where a machine that is named, rather than its file, is described.

use std::ffi::OsString;
use std::path::PathBuf;

/// The files that may describe the machine `name`, the user's before the system's. `variable` gives
/// the value of an environment variable; what it says is that of the XDG Base Directory Specification.
pub(crate) fn candidates(name: &str, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    // Variables that are empty or no absolute path count as not set, as the specification has it.
    let folder = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let home = || Some(folder(variable("HOME")?)?.join(".config"));
    let user = variable("XDG_CONFIG_HOME").and_then(folder).or_else(home);
    let system = variable("XDG_CONFIG_DIRS").filter(|value| !value.is_empty());
    let system = system.unwrap_or_else(|| "/etc/xdg".into());
    let system = std::env::split_paths(&system).filter(|path| path.is_absolute()).collect::<Vec<_>>();
    user.into_iter().chain(system).map(|folder| folder.join("parador").join(format!("{name}.toml"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Vec<String> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        candidates("web", variable).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_users_folder_comes_before_the_systems() {
        assert_eq!(found(&[("HOME", "/h")]), ["/h/.config/parador/web.toml", "/etc/xdg/parador/web.toml"]);
        assert_eq!(
            found(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_CONFIG_DIRS", "/a:b:/d")]),
            ["/c/parador/web.toml", "/a/parador/web.toml", "/d/parador/web.toml"]
        );
        assert_eq!(
            found(&[("XDG_CONFIG_HOME", "c"), ("XDG_CONFIG_DIRS", "")]),
            ["/etc/xdg/parador/web.toml"]
        );
    }
}
