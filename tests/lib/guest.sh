# What a guest's script begins with (with_script puts it there).
set -eu

# fail MESSAGE: ends the script.
fail() {
    echo "FAILED: $*"
    exit 1
}

# same WHAT GOT WANTED
same() {
    [ "$2" = "$3" ] || fail "$1: $2, not $3"
    echo "$1: $2"
}

# disk SERIAL: the path of the disk with this serial number.
disk() {
    local path
    for path in /sys/block/vd*; do
        if [ "$(cat "$path/serial")" = "$1" ]; then
            echo "/dev/${path##*/}"
            return
        fi
    done
    fail "no disk with the serial number $1" >&2
}

# debian COMMAND...: runs a program of the Debian root file system, which is the disk `debian`.
debian() {
    if [ ! -d /debian/usr ]; then
        mkdir -p /debian
        mount -t ext4 -o ro,noload "$(disk debian)" /debian
        mount -o bind /dev /debian/dev
        mount -o bind /proc /debian/proc
        mount -o bind /sys /debian/sys
        mount -o bind /tmp /debian/tmp
    fi
    chroot /debian "$@"
}
