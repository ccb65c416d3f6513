# Console input works: on the serial port, much of it at once too, and on a virtio console behind a
# UNIX socket.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

debian true

# talk NAME PATTERN LINE: a client of the socket types the line and stays until it has its answer.
talk() {
    : >"$1.log"
    {
        echo "$3"
        left=$LIMIT
        until grep -q -e "$2" "$1.log" || [ "$left" = 0 ]; do
            left=$((left - 1))
            sleep 1
        done
    } | debian socat - UNIX-CONNECT:/mnt/c.sock >"$1.log"
    cat "$1.log"
    says "$1" "$2"
}

# Without a script the guest gives a shell on its serial console.
start shell memory.size=512M "boot.kernel=$BZIMAGE" "boot.initrd=$INITRAMFS" "$(cmdline)" \
    device.c.model=virtio-console device.c.port.0.path=unix:c.sock
# The kernel empties the port while it starts.
await shell ' # '
echo 'echo "serial $((6 * 7))"' >&9
await shell '^serial 42'

# More than any buffer on the way holds, at once.
seq 4000 >text
echo "stty -echo; echo \"typing \$((6 * 8))\"; head -c $(wc -c <text) >/tmp/text; stty echo" >&9
await shell '^typing 48'
cat text >&9
echo 'echo "much $(md5sum </tmp/text)"' >&9
await shell "^much $(md5sum <text)"

# A shell on the other console; whoever connects to its socket talks to it.
echo 'setsid sh </dev/hvc0 >/dev/hvc0 2>&1 &' >&9
echo 'echo "ready $((6 * 11))"' >&9
await shell '^ready 66'
talk first '^virtio 54' 'echo "virtio $((6 * 9))"'
# And whoever comes next.
talk second '^again 60' 'echo "again $((6 * 10))"'
echo 'poweroff -f' >&9
finish shell
[ "$status" = 0 ] || fail "parador ended with $status"
