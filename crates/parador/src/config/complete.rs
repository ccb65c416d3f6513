//! Completion: scripts for the shells, which ask `parador config complete WORD...` for what may follow.

use std::collections::BTreeSet;

use parador_config::keys::{self, Key, Support};

use super::man;
use crate::{device, image, options};

/// The shells there are scripts for.
pub(super) static SHELLS: &[&str] = &["bash", "zsh", "fish"];

// Readline takes `=` and `:` for the ends of words, and replaces only what follows the last.
const BASH: &str = r#"# Completion of parador(1) for bash: source this file, or put it where bash-completion looks.
_parador() {
    local line=${COMP_LINE:0:COMP_POINT} words candidate cut=
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[-1]}
    case $COMP_WORDBREAKS in *=*) cut=${word%"${word##*[=:]}"} ;; esac
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$cut"}")
    done < <("${words[0]}" config complete "${words[@]:1}" 2>/dev/null)
    [[ ${COMPREPLY[0]} == *[.=] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _parador parador
"#;

const ZSH: &str = r#"#compdef parador
# Completion of parador(1) for zsh: put this file in $fpath as _parador.
_parador() {
    local -a found open
    found=(${(f)"$($words[1] config complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ! $#found )); then
        _files
        return
    fi
    open=(${(M)found:#*[.=]})
    found=(${found:#*[.=]})
    compadd -Q -S '' -a open
    compadd -Q -a found
}
if [[ $funcstack[1] == _parador ]]; then _parador "$@"; else compdef _parador parador; fi
"#;

const FISH: &str = r#"# Completion of parador(1) for fish: put this file in ~/.config/fish/completions as parador.fish.
function __parador
    set -l words (commandline -opc)
    $words[1] config complete $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c parador -a '(__parador)'
"#;

/// The script for `shell`.
pub(super) fn script(shell: &str) -> Option<String> {
    let script = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        _ => return None,
    };
    Some(script.to_owned())
}

/// What the last of `typed` may become, one a line. None where it is a file's name.
pub(super) fn lines(typed: &[&str]) -> String {
    candidates(typed).into_iter().map(|candidate| candidate + "\n").collect()
}

fn candidates(typed: &[&str]) -> BTreeSet<String> {
    let Some((current, before)) = typed.split_last() else { return BTreeSet::new() };
    let command = match before {
        [] => return starting(current, options::COMMANDS.iter().map(|(word, _)| *word)),
        ["config"] => return starting(current, super::COMMANDS.iter().map(|(word, ..)| *word)),
        ["image"] => return starting(current, image::COMMANDS.iter().map(|(word, ..)| *word)),
        [group @ ("config" | "image"), word, ..] => format!("{group} {word}"),
        [word, ..] => (*word).to_owned(),
    };
    let options: Vec<_> = options::of(&command).collect();
    let previous = before.last().copied().unwrap_or_default();
    if let Some(option) =
        options.iter().find(|option| option.names.contains(&previous) && option.takes_a_word())
    {
        return match option.value {
            "KEY=VALUE" if command == "device" => settings_of_device(current, before),
            "KEY=VALUE" => settings(current, before),
            _ => starting(current, option.choices.iter().copied()),
        };
    }
    if let Some((name, value)) = current.split_once('=')
        && let Some(option) = options.iter().find(|option| option.names.contains(&name))
    {
        let words = starting(value, option.choices.iter().copied());
        return words.into_iter().map(|word| format!("{name}={word}")).collect();
    }
    if current.starts_with('-') {
        let names = options.iter().flat_map(|option| option.names.iter().copied());
        return starting(current, names);
    }
    match command.as_str() {
        "config man" => starting(current, man::PAGES.iter().copied()),
        "config completion" => starting(current, SHELLS.iter().copied()),
        "config keys" => starting(current, keys::MODELS.iter().map(|model| model.name)),
        "device" => starting(current, device::MODELS.iter().map(|model| model.word)),
        "help" => starting(current, options::COMMANDS.iter().map(|(word, _)| *word)),
        _ => BTreeSet::new(),
    }
}

fn starting<'a>(start: &str, words: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    words.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
}

/// What a `KEY=VALUE` that begins with `current` may become; `before` may say what a device is.
fn settings(current: &str, before: &[&str]) -> BTreeSet<String> {
    if let Some((path, value)) = current.split_once('=') {
        let key = keys::all().find(|key| key.matches(path) && usable(key, path, before));
        let words = key.map_or(BTreeSet::new(), |key| starting(value, key.words().into_iter()));
        return words.into_iter().map(|word| format!("{path}={word}")).collect();
    }
    keys::all().filter(|key| usable(key, current, before)).filter_map(|key| grown(&key, current)).collect()
}

/// As [`settings`], for the keys of the device that `before` names.
fn settings_of_device(current: &str, before: &[&str]) -> BTreeSet<String> {
    let Some(model) = device::MODELS.iter().find(|model| before.contains(&model.word)) else {
        return BTreeSet::new();
    };
    let prefix = format!("device.{}.", model.word);
    let said = format!("{prefix}model={}", model.model);
    let of_machine = settings(&format!("{prefix}{current}"), &[&said]);
    let own = of_machine.iter().filter_map(|setting| setting.strip_prefix(&prefix));
    own.filter(|setting| !["addr=", "model=", "isolation="].contains(setting)).map(str::to_owned).collect()
}

/// Whether it makes sense to set `key` at `path`.
fn usable(key: &Key, path: &str, before: &[&str]) -> bool {
    let of_device = path.strip_prefix("device.").and_then(|rest| rest.split_once('.'));
    let model = of_device.and_then(|(id, _)| {
        let set = format!("device.{id}.model=");
        before.iter().find_map(|word| word.strip_prefix(set.as_str()))
    });
    let native = |name: &str| keys::model(name).is_some_and(|model| model.support == Support::Native);
    let fits = match model {
        _ if key.models.is_empty() => true,
        Some(model) => key.models.contains(model),
        None => key.models.iter().any(native),
    };
    fits && key.support.matters()
}

/// `start`, grown along the pattern of `key` to its end or to a part that the user chooses.
fn grown(key: &Key, start: &str) -> Option<String> {
    let mut pattern = key.pattern.split('.');
    let mut parts = start.split('.');
    let last = parts.next_back()?;
    for part in parts.by_ref() {
        pattern.next().filter(|want| *want == "*" || *want == part)?;
    }
    let mut grown = start[..start.len() - last.len()].to_owned();
    let next = pattern.next().filter(|want| *want != "*" && want.starts_with(last))?;
    grown.push_str(next);
    for want in pattern {
        grown.push('.');
        if want == "*" {
            return Some(grown);
        }
        grown.push_str(want);
    }
    grown.push('=');
    Some(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(typed: &str) -> Vec<String> {
        candidates(&typed.split(' ').collect::<Vec<_>>()).into_iter().collect()
    }

    #[test]
    fn commands_options_and_their_values() {
        assert_eq!(said("c"), ["config"]);
        assert_eq!(said("config co"), ["completion", "convert"]);
        assert_eq!(said("config convert --to to"), ["toml"]);
        assert_eq!(said("config completion f"), ["fish"]);
        assert_eq!(said("image re"), ["report", "reset"]);
        assert_eq!(said("image create --block-size 4"), ["4096"]);
        assert_eq!(said("vmm --mes"), ["--message-format"]);
        assert_eq!(said("vmm --message-format j"), ["json"]);
        assert_eq!(said("vmm --message-format=j"), ["--message-format=json"]);
        assert_eq!(said("vmm --dump=o"), ["--dump=origin"]);
        assert_eq!(said("vmm -k we"), [""; 0], "files are the shell's");
    }

    #[test]
    fn keys_grow_to_the_part_that_the_user_chooses() {
        assert_eq!(said("vmm -o memory.si"), ["memory.size="]);
        assert_eq!(said("vmm -o dev"), ["device."]);
        assert_eq!(said("vmm -o device.dis"), [""; 0]);
        assert_eq!(said("vmm -o device.disk0.noc"), ["device.disk0.nocache="]);
        assert_eq!(said("vmm -o nothing"), [""; 0]);
        assert_eq!(said("vmm -o bootr"), [""; 0], "what this version refuses is not offered");
    }

    #[test]
    fn keys_of_a_device_alone() {
        assert_eq!(said("device b"), ["balloon", "blk"]);
        assert_eq!(said("device blk --soc"), ["--socket-path"]);
        assert_eq!(said("device blk -o noc"), ["nocache="]);
        assert_eq!(said("device blk -o aio=t"), ["aio=threads"]);
        assert_eq!(said("device blk -o addr"), [""; 0]);
        assert_eq!(said("device blk -o mac"), [""; 0]);
    }

    #[test]
    fn values_and_the_keys_of_a_model() {
        assert_eq!(said("vmm -o memory.backing=h"), ["memory.backing=hugetlb"]);
        assert_eq!(said("vmm -o memory.thp=t"), ["memory.thp=true"]);
        assert_eq!(said("vmm -o device.a.model=virtio-b").len(), 2);
        assert_eq!(said("vmm -o device.a.model=virtio-net -o device.a.ma"), ["device.a.mac="]);
        assert_eq!(said("vmm -o device.a.model=virtio-net -o device.a.aio"), [""; 0]);
    }
}
