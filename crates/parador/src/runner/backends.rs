//! Processes that do the work of devices: started before the machine, started anew when they end, and
//! ended after it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parador_config::{Checked, Diagnostic};
use parador_engine::{DevicePlan, Model, Plan};

use super::child;
use crate::signals;

/// How long the first wait before a process is started anew is, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long processes have to end when they are asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// The devices of `plan` for which processes are started.
pub(super) fn of(plan: &Plan) -> impl Iterator<Item = &DevicePlan> {
    plan.devices.iter().filter(|device| device.isolated || folder(device).is_some())
}

/// The folder of the host that a device shares, if virtiofsd is to be started for it.
pub(super) fn folder(device: &DevicePlan) -> Option<&Path> {
    if let Model::Remote(remote) = &device.model { remote.folder.as_deref() } else { None }
}

/// Where virtiofsd is, or its name where it is not.
pub(super) fn virtiofsd() -> Result<PathBuf, &'static str> {
    let mut places = vec![PathBuf::from("/usr/libexec/virtiofsd"), "/usr/lib/qemu/virtiofsd".into()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path).map(|folder| folder.join("virtiofsd")));
    places.into_iter().find(|place| place.is_file()).ok_or("virtiofsd")
}

/// What virtiofsd is started with; it listens at the first descriptor.
pub(super) fn sharing(program: &Path, folder: &Path) -> Vec<String> {
    let folder = folder.display();
    // QEMU's own, before 8.0, has other words.
    let source = if program.starts_with("/usr/lib/qemu") {
        vec!["-o".to_owned(), format!("source={folder}")]
    } else {
        vec![format!("--shared-dir={folder}")]
    };
    [vec![format!("--fd={}", child::FIRST)], source].concat()
}

/// A folder that only this user can look into, which goes away with everything in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Where folders are made, and what this process's is called.
    pub(super) fn name(process: &str) -> PathBuf {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|base| base.is_absolute());
        base.unwrap_or_else(std::env::temp_dir).join(format!("parador-{process}"))
    }

    pub(super) fn make() -> io::Result<Self> {
        let process = std::process::id();
        // A process of the same number may have been killed, and have left its folder.
        for attempt in 0..100 {
            let path = Self::name(&format!("{process}-{attempt}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays; nothing of it is used again.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Where the machine finds the process of each device, in `folder`.
pub(super) fn sockets(plan: &Plan, folder: &Path) -> Vec<(String, PathBuf)> {
    of(plan).enumerate().map(|(index, device)| (device.id.clone(), folder.join(index.to_string()))).collect()
}

/// How the process of a device is started.
pub(super) struct Recipe {
    /// The device.
    pub(super) id: String,
    /// The program; `None` is this one.
    pub(super) program: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
    /// Keys that it reads at the first descriptor.
    pub(super) keys: Option<String>,
    /// What it gets besides, from the next descriptor on.
    pub(super) descriptors: Vec<OwnedFd>,
}

struct Backend {
    recipe: Recipe,
    child: Option<Child>,
    starts: u32,
    started: Instant,
    wait: Duration,
    /// When it is started anew, and how it ended if that was not said yet: a machine that ends meanwhile
    /// has no need of it, and that its processes end is no news.
    due: Option<Instant>,
    ended: Option<ExitStatus>,
}

/// The processes of a machine's devices.
#[derive(Default)]
pub(super) struct Backends {
    all: Vec<Backend>,
    _folder: Option<Folder>,
}

impl Backends {
    /// Starts a process for each of `recipes`, whose sockets are in `folder`.
    pub(super) fn start(recipes: Vec<Recipe>, folder: Option<Folder>) -> io::Result<Self> {
        let mut backends = Self { all: Vec::new(), _folder: folder };
        for recipe in recipes {
            let child = Some(recipe.start()?);
            let (started, wait) = (Instant::now(), WAITS.0);
            backends.all.push(Backend { recipe, child, starts: 1, started, wait, due: None, ended: None });
        }
        Ok(backends)
    }

    /// Looks which have ended, and starts those whose time has come.
    ///
    /// # Errors
    /// One cannot do what it was started for: it has said why.
    pub(super) fn look(&mut self) -> Result<(), Diagnostic> {
        self.all.iter_mut().try_for_each(Backend::look)
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.all.iter().filter_map(|backend| backend.due).min()
    }
}

impl Drop for Backends {
    /// Has all end when they have done what they were asked for, or after a while without.
    fn drop(&mut self) {
        let mut children: Vec<Child> =
            self.all.iter_mut().filter_map(|backend| backend.child.take()).collect();
        children.iter().for_each(|child| signals::send(child.id(), libc::SIGTERM));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if children.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        for child in &mut children {
            // It has ended meanwhile, or does now.
            drop(child.kill().and_then(|()| child.wait()));
        }
    }
}

impl Recipe {
    fn start(&self) -> io::Result<Child> {
        let mut descriptors = Vec::new();
        if let Some(keys) = &self.keys {
            descriptors.push(child::text_file(keys)?);
        }
        for descriptor in &self.descriptors {
            descriptors.push(descriptor.try_clone()?);
        }
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        child::start(self.program.as_deref(), &arguments, descriptors, Stdio::null())
    }
}

impl Backend {
    fn look(&mut self) -> Result<(), Diagnostic> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.child = None;
            self.note(status)?;
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            if let Some(status) = self.ended.take() {
                let id = &self.recipe.id;
                eprintln!("warning: the process of device `{id}` ended: {status}\nhint: it is started anew");
            }
            self.starts += 1;
            self.started = Instant::now();
            match self.recipe.start() {
                Ok(child) => self.child = Some(child),
                Err(e) => {
                    eprintln!("warning: cannot start the process of device `{}`: {e}", self.recipe.id);
                    self.start_later();
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, status: ExitStatus) -> Result<(), Diagnostic> {
        let id = &self.recipe.id;
        if self.starts == 1 && status.code().is_some_and(|code| code != 0) {
            return Err(Diagnostic::new(format!("the process of device `{id}` gave up: {status}")));
        }
        self.ended = Some(status);
        if self.started.elapsed() > WAITS.1 {
            self.wait = WAITS.0;
        }
        self.start_later();
        Ok(())
    }

    fn start_later(&mut self) {
        self.due = Some(Instant::now() + self.wait);
        self.wait = WAITS.1.min(self.wait * 2);
    }
}

/// Listens for the machine at each of `sockets`.
pub(super) fn listen(sockets: &[(String, PathBuf)]) -> io::Result<Vec<OwnedFd>> {
    sockets.iter().map(|(_, path)| UnixListener::bind(path).map(OwnedFd::from)).collect()
}

/// Finds virtiofsd for the folder of `device`.
pub(super) fn program(keys: &Checked, device: &DevicePlan, folder: &Path) -> Result<PathBuf, Diagnostic> {
    virtiofsd().map_err(|_| {
        let message = format!("there is no virtiofsd to share {} with", folder.display());
        keys.about(&format!("device.{}.path", device.id), message)
            .hint("install the package virtiofsd; or have one listen somewhere, and set `socket` instead")
    })
}
