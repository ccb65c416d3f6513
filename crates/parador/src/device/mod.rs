//! `parador device`: one device in a process of its own, for any VMM that speaks vhost-user.

mod door;
mod notify;
mod words;

use parador_config::{Checked, Diagnostic, Diagnostics, Origin, Severity, Tree};
use parador_engine::{Alone, EventFd};
use serde_json::json;
use tracing::level_filters::LevelFilter;

use crate::signals::Signals;
use crate::status::Status;
use crate::{log, print, process, run, sources, vmm};
use door::Door;
use notify::notify;
pub(crate) use words::{MODELS, Model, Request, Serve, called, parse};

/// Does what `request` asks for.
pub(crate) fn run(request: &Request) -> Status {
    match request {
        Request::Capabilities(model) => print(&capabilities(model)),
        Request::Serve(serve) => self::serve(serve),
    }
}

/// What the back-end can do, as the conventions have it said.
fn capabilities(model: &Model) -> String {
    let mut object = json!({ "type": model.kind });
    if !model.features.is_empty() {
        object["features"] = json!(model.features);
    }
    format!("{object}\n")
}

fn serve(serve: &Serve) -> Status {
    let Serve { model, keys: request, .. } = serve;
    let mut diagnostics = Diagnostics::default();
    let shown = |diagnostics: Diagnostics| request.messages.show(&diagnostics.of_device(model.word));
    let Some(tree) = sources::read(request, &mut diagnostics) else {
        shown(diagnostics);
        return Status::Usage;
    };
    if let Some(form) = request.dump {
        return run::dump(&tree, form, request, diagnostics);
    }
    let keys = device(&tree, serve, &mut diagnostics).check(&mut diagnostics);
    let alone = Alone::new(&keys, &mut diagnostics);
    shown(diagnostics);
    let Some(alone) = alone else { return Status::Usage };
    log::start(log::level(&keys, LevelFilter::INFO));
    match started(&alone, &keys, serve) {
        Ok(()) => Status::PoweredOff,
        Err(diagnostic) => {
            request.messages.show_error(diagnostic.of_device(model.word));
            Status::Failed
        }
    }
}

/// The keys of a machine that has the device of `tree`, and nothing else.
fn device(tree: &Tree, serve: &Serve, diagnostics: &mut Diagnostics) -> Tree {
    let Serve { model, model_at, .. } = serve;
    let key = format!("device.{}.model", model.word);
    let mut device = tree.of_device(model.word);
    if device.setting(&key).is_some() {
        let already = || {
            Diagnostic::new("the command line says what the device is")
                .code("impossible")
                .hint(format!("leave `model` out: it is a {}", model.model))
        };
        diagnostics.add(Severity::Error, already);
    }
    device.set(&key, model.model, Origin::Argument(*model_at));
    device
}

/// Makes the device, and serves it to front-ends until it is ended or the only one has gone.
fn started(alone: &Alone, keys: &Checked, serve: &Serve) -> Result<(), Diagnostic> {
    let host = |doing: &str, e| Diagnostic::new(format!("cannot {doing}")).cause(&e);
    let signals =
        Signals::take(&[libc::SIGTERM, libc::SIGINT]).map_err(|e| host("take charge of signals", e))?;
    let mut server = alone.make(keys, vmm::stdio())?;
    let door = Door::open(serve.door.as_ref())?;
    let stop = EventFd::new(libc::EFD_NONBLOCK).map_err(|e| host("make an event", e))?;
    let stopped = stop.try_clone().map_err(|e| host("make an event", e))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 << 10)
        .spawn(move || wait_for_the_end(signals, &stopped))
        .map_err(|e| host("start a thread", e))?;
    notify("READY=1");
    match door {
        Door::Named(socket) => server.accept(socket.listener(), &stop),
        Door::Listening(listener) => server.accept(&listener, &stop),
        Door::Connected(stream) => {
            let ended = server.serve(stream, &stop);
            return ended.map_err(|e| Diagnostic::new("the front-end was not served to its end").cause(&e));
        }
    }
    .map_err(|e| host("take another front-end", e))
}

/// Ends the work in progress at the first signal, and the process at the second.
fn wait_for_the_end(mut signals: Signals, stop: &EventFd) {
    signals.next();
    notify("STOPPING=1");
    if let Err(e) = stop.write(1) {
        tracing::warn!("cannot end in an orderly way: {e}");
    }
    signals.next();
    process::exit(Status::Stopped as u8)
}
