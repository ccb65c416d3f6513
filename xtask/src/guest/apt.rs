//! Packages from the Debian archive, without touching what the machine has configured.
//!
//! A private set of sources and package lists lies in the cache. Its mirror is the one the machine's
//! own apt configuration names (or `$PARADOR_MIRROR`), so a site with a mirror of its own is obeyed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::{cache, command};

/// The current stable release: what guests run.
pub(super) const STABLE: &str = "trixie";

/// The release before it.
pub(super) const FORMER: &str = "bookworm";

/// How old package lists may get before they are fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt: its own sources and lists.
pub(super) struct Apt {
    dir: PathBuf,
    mirror: String,
}

impl Apt {
    /// Sees the stable release and the backports to the one before it, as a machine that has
    /// nothing installed.
    pub(super) fn for_guests() -> Result<Apt> {
        let mirror = mirror()?;
        let sources =
            format!("{}{}", source(&mirror, STABLE), source(&mirror, &format!("{FORMER}-backports")));
        let apt = Apt::open("apt-guest", mirror, &sources)?;
        fs::write(apt.dir.join("status"), "")?;
        apt.update()?;
        Ok(apt)
    }

    /// Sees one suite, as a machine that has nothing installed.
    pub(super) fn for_suite(suite: &str) -> Result<Apt> {
        let mirror = mirror()?;
        let sources = source(&mirror, suite);
        let apt = Apt::open(&format!("apt-{suite}"), mirror, &sources)?;
        fs::write(apt.dir.join("status"), "")?;
        apt.update()?;
        Ok(apt)
    }

    /// Sees what this machine's own Debian sources have, plus the suite `extra` of the same mirror.
    pub(super) fn for_host(extra: Option<&str>) -> Result<Apt> {
        let mirror = mirror()?;
        let mut sources = String::new();
        for target in own_targets()? {
            if target.suite.starts_with(&codename()?) {
                sources
                    .push_str(&format!("deb [signed-by={KEYRING}] {} {} main\n", target.uri, target.suite));
            }
        }
        if let Some(suite) = extra {
            sources.push_str(&source(&mirror, suite));
        }
        let apt = Apt::open("apt-host", mirror, &sources)?;
        apt.update()?;
        Ok(apt)
    }

    /// The `deb` line of a suite of the same archive.
    pub(super) fn source(&self, suite: &str) -> String {
        source(&self.mirror, suite).trim_end().to_owned()
    }

    /// The names of all packages that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = command::output_text(self.tool("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Fetches `package` (or `package/suite`) and unpacks it into `into`.
    pub(super) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let debs = into.join(".debs");
        fs::create_dir_all(&debs)?;
        command::run_quiet(self.tool("apt-get").args(["download", package]).current_dir(&debs))
            .with_context(|| format!("cannot fetch {package} from {}", self.mirror))?;
        for deb in fs::read_dir(&debs)? {
            command::run_quiet(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(into))?;
        }
        cache::remove(&debs)
    }

    /// Installs packages on this machine, preferring `suite` where one is given.
    pub(super) fn install(&self, packages: &[&str], suite: Option<&str>) -> Result<()> {
        let mut install = self.tool("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["install", "--yes", "--no-install-recommends"]);
        if let Some(suite) = suite {
            install.args(["--target-release", suite]);
        }
        command::run_quiet(install.args(packages))
    }

    fn open(name: &str, mirror: String, sources: &str) -> Result<Apt> {
        let dir = cache::dir()?.join(name);
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let list = dir.join("sources.list");
        if fs::read_to_string(&list).ok().as_deref() != Some(sources) {
            fs::write(&list, sources)?;
            cache::remove(&dir.join("lists"))?;
            fs::create_dir_all(dir.join("lists/partial"))?;
        }
        Ok(Apt { dir, mirror })
    }

    fn update(&self) -> Result<()> {
        let stamp = self.dir.join("lists/updated");
        let age = fs::metadata(&stamp).and_then(|found| found.modified());
        let fresh = age.is_ok_and(|then| SystemTime::now().duration_since(then).unwrap_or_default() < FRESH);
        if !fresh {
            let _lock = cache::lock("apt")?;
            // An index that could not be fetched is only a warning to apt unless it is told otherwise.
            command::run_quiet(self.tool("apt-get").args(["update", "--error-on=any"]))
                .context("cannot fetch the package lists\nhint: check the network and the apt sources")?;
            fs::write(stamp, "")?;
        }
        Ok(())
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = command::program(name);
        let mut set = |key: &str, value: &str| {
            tool.arg("-o").arg(format!("{key}={value}"));
        };
        let at = |name: &str| self.dir.join(name).display().to_string();
        set("Dir::Etc::sourcelist", &at("sources.list"));
        set("Dir::Etc::sourceparts", "-");
        set("Dir::State::lists", &at("lists"));
        set("Dir::Cache", &at("cache"));
        set("Acquire::Languages", "none");
        set("Acquire::Retries", "3");
        set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false");
        // Fetch as the caller: the cache is not a place the user _apt can write to.
        set("APT::Sandbox::User", "");
        if self.dir.join("status").exists() {
            set("Dir::State::status", &at("status"));
        }
        tool
    }
}

/// This machine's release, such as `bookworm`.
pub(super) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let found = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(found.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

#[derive(Debug)]
struct Target {
    uri: String,
    suite: String,
}

/// The binary package indexes of the machine's own apt configuration.
fn own_targets() -> Result<Vec<Target>> {
    // On a fresh machine apt has fetched nothing yet, and then knows nothing but addresses.
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--no-release-info", "--format", "$(URI)", "Created-By: Packages"]);
    Ok(targets(&command::output_text(&mut list)?))
}

/// The main components among `ARCHIVE/dists/SUITE/COMPONENT/binary-ARCHITECTURE/Packages` lines.
fn targets(addresses: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for address in addresses.lines() {
        let Some((uri, index)) = address.split_once("/dists/") else { continue };
        let Some((suite, _)) = index.split_once("/main/binary-") else { continue };
        if !targets.iter().any(|known| known.uri == uri && known.suite == suite) {
            targets.push(Target { uri: uri.to_owned(), suite: suite.to_owned() });
        }
    }
    targets
}

/// The archive's address, from the machine's own apt configuration.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("PARADOR_MIRROR") {
        return Ok(mirror);
    }
    let suite = codename()?;
    let Some(target) = own_targets()?.into_iter().find(|target| target.suite == suite) else {
        bail!(
            "this machine's apt configuration names no Debian archive for {suite}\n\
             hint: set PARADOR_MIRROR to the address of a Debian mirror"
        );
    };
    Ok(target.uri)
}

fn source(mirror: &str, suite: &str) -> String {
    format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_before_anything_was_fetched() {
        let found = targets(
            "http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages\n\
             http://mirror.example/debian/dists/bookworm/main/binary-all/Packages\n\
             http://mirror.example/debian/dists/bookworm/contrib/binary-amd64/Packages\n\
             https://other.example/apt/dists/cloud-sdk/main/binary-amd64/Packages\n\
             http://mirror.example/flat/Packages\n",
        );
        let found =
            found.iter().map(|target| (target.uri.as_str(), target.suite.as_str())).collect::<Vec<_>>();
        assert_eq!(
            found,
            [("http://mirror.example/debian", "bookworm"), ("https://other.example/apt", "cloud-sdk")]
        );
    }
}
