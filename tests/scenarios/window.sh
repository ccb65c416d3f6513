# The window's size reaches the guest's virtio console, and so does a change of it.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

debian true
mkdir -p debian/dev/pts
mount -o bind /dev/pts debian/dev/pts
mknod -m 666 debian/dev/ptmx c 5 2
debian socat -u PTY,link=/mnt/tty,rawer OPEN:/mnt/screen,creat,append &
until [ -e tty ]; do sleep 0.1; done
tty=$(readlink tty)
stty -F "$tty" rows 33 cols 101

with_script window.initrd <<'END'
until [ -c /dev/hvc0 ]; do sleep 0.2; done
# size WANTED: waits for it.
size() {
    for _ in $(seq 300); do
        [ "$(stty size <&3)" != "$1" ] || break
        sleep 0.2
    done
    same "size" "$(stty size <&3)" "$1"
}
exec 3<>/dev/hvc0
size "33 101"
echo "window: pull"
size "20 77"
END
cat >window.conf <<END
boot.kernel=$BZIMAGE
boot.initrd=window.initrd
$(cmdline)
memory.size=512M
console=file:window.log
device.c.model=virtio-console
device.c.port.0.path=stdio
END
# With a terminal of its own, as in a window of its own.
setsid -c "$PARADOR" run window.conf <"$tty" >"$tty" 2>&1 &
vmm_pid=$!
: >window.log
await window '^window: pull'
stty -F "$tty" rows 20 cols 77
exec 9>/dev/null
finish window
[ "$status" = 0 ] || fail "parador ended with $status"
says window '^size: 20 77'
