//! What the command says about itself.

use crate::args::Topic;

const SHORT: &str = "\
Parador runs virtual machines on Linux/KVM.

  parador run FILE [-o KEY=VALUE]...             run a machine at this terminal
  parador vmm -k FILE... [-o KEY=VALUE]... NAME  run a machine under a supervisor
  parador device MODEL -o KEY=VALUE...           be a device of another VMM (vhost-user)
  parador image create --zoned FILE --size SIZE  make a disk with zones; `parador image --help`
  parador config check FILE                      say what is wrong with a configuration
  parador config convert --to FORMAT FILE        say it in another system's words
  parador config keys [PATTERN]                  what a machine can be asked to be
  parador COMMAND --help, parador --version

A first machine:

  cat > web.conf <<END
  boot.kernel=/boot/vmlinuz
  boot.cmdline=console=ttyS0 root=/dev/vda1
  device.root.model=virtio-blk
  device.root.path=web.img
  END
  parador run web.conf

Exit status: 0 the guest powered off, 1 the VMM or the host failed, 2 the command
line or the configuration is wrong, 3 the guest reset itself (on_reset=stop),
4 the guest panicked (on_panic=stop), 5 stopped from outside without the guest.
";

const VMM: &str = "\
Usage: parador vmm [-k FILE]... [-o KEY=VALUE]... [--] [NAME]
       parador vmm --compat bhyve [OPTION OF BHYVE]... NAME

Runs the machine that the files and options describe, until it ends. Nothing is
read from a terminal but the guest's own input, and no terminal is changed.

  -k FILE          read lines KEY=VALUE from FILE, `-` for standard input
  --config-fd N    read them from the inherited descriptor N; warnings are not said
  -o KEY=VALUE     set one key; wins over all files
  --unset KEY      take away KEY and all keys below it
  NAME             what the machine is called; wins over the key `name`
  --dump[=FORM]    print the keys and run nothing; FORM is raw, expanded, origin, json
  --dump-secrets   with the values of secret keys
  --message-format=text|json
                   how findings are written: for people, or one JSON object a line

What comes later wins over what comes earlier. `parador config keys` lists the keys.

SIGTERM presses the guest's power button; a second one ends it at once, as do
SIGINT, SIGHUP and SIGQUIT. SIGPWR presses the button, however often.

PARADOR_LOG=error|warn|info|debug|trace sets what is written to standard error.

Exit status: see `parador --help`.
";

const RUN: &str = "\
Usage: parador run [-k FILE]... [-o KEY=VALUE]... [--] FILE [NAME]

Runs the machine that FILE describes at this terminal: a file of keys, FILE.toml or
FILE.json, or the name of one: NAME.toml in ~/.config/parador or /etc/xdg/parador
($XDG_CONFIG_HOME, $XDG_CONFIG_DIRS). It opens images, makes network interfaces, and starts `parador vmm`,
which then needs no privileges; what `parador vmm --help` says holds here too.
Keys go to the guest one by one, control characters included, except for those
that follow Ctrl-A:

  Ctrl-A x       end the machine at once
  Ctrl-A p       press its power button
  Ctrl-A Ctrl-A  send Ctrl-A to the guest
  Ctrl-A ?       list these

  --dry-run        say what would be done, and do nothing
  --dry-run=host   and whether this host can do it (status 1 if it cannot)

The terminal is set back on every way out. Without a terminal at its input it
reads what there is; the end of input does not end the machine.
";

const DEVICE: &str = "\
Usage: parador device MODEL [-k FILE]... [-o KEY=VALUE]... --socket-path PATH
       parador device MODEL [-k FILE]... [-o KEY=VALUE]... --fd N
       parador device MODEL --print-capabilities

Is a device of any virtual machine monitor that speaks vhost-user. MODEL is blk, net,
rng, console, vsock or balloon. The keys are those of such a device in a machine,
without `device.ID.`: `parador config keys virtio-blk` lists them.

  parador device blk -o path=web.img -o queues=2 --socket-path /run/web.sock
  qemu-system-x86_64 -machine q35,memory-backend=mem -m 1G \\
    -object memory-backend-memfd,id=mem,size=1G,share=on \\
    -chardev socket,id=web,path=/run/web.sock,reconnect-ms=100 \\
    -device vhost-user-blk-pci,chardev=web,num-queues=2

  -k FILE              read lines KEY=VALUE from FILE, `-` for standard input
  --config-fd N        read them from the inherited descriptor N
  -o KEY=VALUE         set one key; wins over all files
  --unset KEY          take away KEY and all keys below it
  --socket-path PATH   listen there; one front-end is served after the other
  --fd N               the inherited socket N, listening or connected
  --print-capabilities say what the back-end can do, in JSON, and nothing else
  --blk-file=PATH      the same as -o path=PATH; blk only
  --read-only          the same as -o ro=true; blk only
  --dump[=FORM]        print the keys and do nothing; FORM is raw, expanded, origin, json
  --message-format=text|json
                       how findings are written: for people, or one JSON object a line

Without --socket-path and --fd it takes the socket it was activated with (LISTEN_FDS).
READY=1 and STOPPING=1 are told to NOTIFY_SOCKET. It stays in the foreground.
SIGTERM and SIGINT end it when the requests it has taken are done; a second one ends
it at once.

Exit status: 0 it was ended, or the front-end at --fd has gone; 1 the host refuses
something; 2 the command line or a key is wrong; 5 ended by a second signal.
";

/// The text on `topic`.
pub(crate) fn text(topic: Topic) -> String {
    match topic {
        Topic::Short => SHORT.to_owned(),
        Topic::Vmm => VMM.to_owned(),
        Topic::Run => RUN.to_owned(),
        Topic::Device => DEVICE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use parador_config::{Source, Tree};
    use parador_engine::Plan;

    use super::*;

    #[test]
    fn the_first_machine_is_one() {
        let (_, rest) = SHORT.split_once("<<END\n").expect("a file");
        let (file, _) = rest.split_once("  END\n").expect("its end");
        let file: String = file.lines().map(|line| format!("{}\n", line.trim())).collect();
        let (tree, mut diagnostics) =
            Tree::from_sources(&[Source::File { name: "help", bytes: file.as_bytes() }]);
        let keys = tree.check(&mut diagnostics);
        let plan = Plan::new(&keys, &mut diagnostics);
        assert_eq!(diagnostics.to_string(), "");
        assert!(plan.is_some());
    }
}
