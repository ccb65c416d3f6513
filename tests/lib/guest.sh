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

# verify DEVICE [OPTION...]: fio writes to a disk, many requests at once, and reads all of it back.
verify() {
    local device=$1
    shift
    fio_verify "$device" --rw=randrw --bsrange=4k-64k --fsync=32 --group_reporting "$@"
}

# verify_zones DEVICE [OPTION...]: the same of what has zones; the order and the size of requests are OPTIONs.
verify_zones() {
    local device=$1
    shift
    fio_verify "$device" --zonemode=zbd "$@"
}

fio_verify() {
    local device=$1
    shift
    debian fio --name=verify --filename="$device" --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --minimal "$@" >/tmp/fio.$$ 2>&1 ||
        { cat /tmp/fio.$$; fail "fio on $device"; }
}

# blkzone WORD...: as util-linux has it.
blkzone() {
    debian blkzone "$@"
}

# count CONDITION DEVICE: how many zones are in it, as in em, oi, oe, cl, fu, nw.
count() {
    blkzone report "$2" | grep -c "($1)" || true
}

# sum FOLDER: of the names and the contents of all files in it.
sum() {
    (cd "$1" && find . -type f | sort | xargs md5sum | md5sum)
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
