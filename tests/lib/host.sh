# What every scenario begins with: `. "$LAB/lib.sh"`. The shell is busybox ash, the current folder is
# an empty one to write to.
set -eu -o pipefail

# How long one guest may run, in seconds: a bound for what is stuck, not a measure of speed.
LIMIT=${LIMIT:-800}

# fail MESSAGE: ends the scenario.
fail() {
    echo "FAILED: $*"
    exit 1
}

# same WHAT GOT WANTED
same() {
    [ "$2" = "$3" ] || fail "$1: $2, not $3"
    echo "$1: $2"
}

# with_script OUT [FILE...] <SCRIPT: an initramfs whose guest runs the script, beside FILEs in /.
with_script() {
    local out=$1 file
    shift
    rm -rf stage
    mkdir stage
    cat "$LAB/guest.sh" - >stage/script
    for file; do cp "$file" stage/; done
    { cat "$INITRAMFS"; (cd stage && find . -type f | cpio -o -H newc 2>/dev/null); } >"$out"
}

# vmm NAME KEY=VALUE...: runs a guest to its end. Its console goes to NAME.log, parador's exit status
# to $status.
vmm() {
    local name=$1 key
    shift
    for key; do
        set -- "$@" -o "$key"
        shift
    done
    echo "--- $name"
    status=0
    timeout -s KILL "$LIMIT" "$PARADOR" vmm -o "name=$name" "$@" </dev/null 2>&1 | tee "$name.log" || status=$?
}

# cmdline [WORD...]: the key for the usual kernel command line with WORDs after it.
cmdline() {
    echo "boot.cmdline=console=ttyS0 panic=-1 quiet $*"
}

# boot NAME KEY=VALUE... <SCRIPT: runs the script in a guest; it must succeed and the guest power off.
boot() {
    local name=$1
    shift
    with_script "$name.initrd"
    vmm "$name" "boot.kernel=${KERNEL:-$BZIMAGE}" "boot.initrd=$name.initrd" "$(cmdline)" "$@"
    [ "$status" = 0 ] || fail "$name: parador ended with $status"
    says "$name" '^guest: exit 0'
}

# says NAME PATTERN: the guest's console has a line like this.
says() {
    grep -q -e "$2" "$1.log" || fail "$1: the guest did not say '$2'"
}

# start NAME KEY=VALUE...: as vmm, in the background: $vmm_pid, console in NAME.log, and what is
# written to descriptor 9 is typed at it. `finish NAME` waits for its end.
start() {
    local name=$1 key
    shift
    for key; do
        set -- "$@" -o "$key"
        shift
    done
    echo "--- $name"
    rm -f "$name.in"
    mkfifo "$name.in"
    : >"$name.log"
    "$PARADOR" vmm -o "name=$name" "$@" <"$name.in" >"$name.log" 2>&1 9>&- &
    vmm_pid=$!
    exec 9>"$name.in"
}

# finish NAME: waits for a started guest to end, shows its console, sets $status.
finish() {
    local left=$LIMIT
    while kill -0 "$vmm_pid" 2>/dev/null && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
    exec 9>&-
    if [ "$left" = 0 ]; then
        kill -9 "$vmm_pid"
        cat "$1.log"
        fail "$1: did not end"
    fi
    status=0
    wait "$vmm_pid" || status=$?
    cat "$1.log"
}

# await NAME PATTERN: waits until the guest's console has a line like this.
await() {
    local left=$((LIMIT * 5))
    until grep -q -e "$2" "$1.log"; do
        if [ "$left" = 0 ] || ! kill -0 "$vmm_pid" 2>/dev/null; then
            cat "$1.log"
            fail "$1: the guest did not say '$2'"
        fi
        left=$((left - 1))
        sleep 0.2
    done
}

# debian COMMAND...: runs a program of the Debian root file system on this side ($ROOTFS, read-only);
# the current folder is /mnt there.
debian() {
    if [ ! -d debian/usr ]; then
        mkdir -p debian
        mount -t ext4 -o ro,noload "$ROOTFS" debian
        mount -o bind . debian/mnt
        # Devices of its own: whoever clears away the work folder must not find this machine's.
        mount -t tmpfs dev debian/dev
        mknod -m 666 debian/dev/null c 1 3
    fi
    chroot debian "$@"
}

# null_blk NAME SETTING=VALUE...: a device of the kernel's own with zones and blocks of 4096 bytes, kept in memory;
# its path is in $null_blk, its folder NAME in /sys/kernel/config/nullb, and rmdir is its end.
null_blk() {
    local folder=/sys/kernel/config/nullb/$1 setting
    null_blk=/dev/$1
    shift
    [ -d /sys/module/null_blk ] || modprobe null_blk nr_devices=0
    [ -d /sys/kernel/config/nullb ] || mount -t configfs configfs /sys/kernel/config
    mkdir "$folder"
    for setting in zoned=1 blocksize=4096 memory_backed=1 "$@" power=1; do
        echo "${setting#*=}" >"$folder/${setting%%=*}"
    done
    # Named as the folder since Linux 6.2, before that by its number.
    [ -b "$null_blk" ] || null_blk=/dev/nullb$(cat "$folder/index")
}

# clean IMAGE: the ext4 file system was unmounted, and has nothing to replay (the bits EXTENTS and RECOVER
# of s_feature_incompat).
clean() {
    local features
    features=$(od -An -tu4 -j 1120 -N 4 "$1")
    [ $((features & 0x40)) != 0 ] || fail "$1: no ext4"
    [ $((features & 4)) = 0 ] || fail "$1: it was not unmounted"
}
