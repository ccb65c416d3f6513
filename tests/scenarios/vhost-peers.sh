# Back-ends of others behind our front-end: a guest boots from a disk of qemu-storage-daemon, of two
# releases, writes to another one of two queues, whose driver is taken away and back, and finds a file of
# this machine in a folder of virtiofsd.
#
# needs: bzimage initramfs rootfs storage-daemon
# memory: 2048
. "$LAB/lib.sh"

debian true
mount -t proc proc debian/proc

# The disk it boots from: busybox, and an init that runs the scenario's script.
truncate -s 128M root.img
mke2fs -F root.img >/dev/null 2>&1
mkdir root
mount -t ext4 -o loop root.img root
(cd root && mkdir bin dev proc sys run tmp etc mnt && cpio -i bin/busybox <"$INITRAMFS" 2>/dev/null)
cat >root/init <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
sh /run/guest/script
echo "guest: exit $?"
sync
poweroff -f
END
chmod +x root/init
umount root
truncate -s 64M disk.img

mkdir share
echo "from the host" >share/host

# serve FOLDER DAEMON...: two disks and a folder, in what FOLDER is to the daemon, which is this one.
serve() {
    local at=$1
    shift
    "$@" --pidfile "$at/daemon.pid" \
        --blockdev "driver=file,node-name=root,filename=$at/root.img" \
        --blockdev "driver=file,node-name=disk,filename=$at/disk.img,discard=unmap" \
        --export "type=vhost-user-blk,id=root,node-name=root,writable=on,addr.type=unix,addr.path=$at/root.sock" \
        --export "type=vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,addr.type=unix,addr.path=$at/disk.sock" &
    debian /usr/libexec/virtiofsd --socket-path /mnt/fs.sock --shared-dir /mnt/share --sandbox none &
}

with_script peers.initrd <<'END'
same "root" "$(grep -c '^/dev/root / ext4\|^/dev/vda / ext4' /proc/mounts)" 1
same "queues" "$(ls /sys/block/vdb/mq | wc -l)" 2
driver() { readlink -f "/sys/block/$1/device/driver"; }
device() { basename "$(readlink -f "/sys/block/$1/device")"; }
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
dd if=/tmp/data of=/dev/vdb bs=64k oflag=direct conv=notrunc,fsync 2>/dev/null
# Away and back: the device is reset in between.
from=$(driver vdb) which=$(device vdb)
echo "$which" >"$from/unbind"
[ ! -e /sys/block/vdb ] || fail "the disk is there without its driver"
echo "$which" >"$from/bind"
same "after bind" "$(dd if=/dev/vdb bs=1M count=4 iflag=direct 2>/dev/null | md5sum)" "$(md5sum </tmp/data)"

mkdir -p /share
mount -t virtiofs shared /share
same "host's file" "$(cat /share/host)" "from the host"
END
# booted NAME: a guest boots, does all that, and the back-ends end.
booted() {
    vmm "$1" memory.size=512M cpus=2 "boot.kernel=$BZIMAGE" boot.initrd=peers.initrd \
        "$(cmdline root=/dev/vda init=/init)" \
        device.root.model=virtio-blk device.root.backend=vhost-user device.root.socket=root.sock \
        device.disk.model=virtio-blk device.disk.backend=vhost-user device.disk.socket=disk.sock \
        device.disk.queues=2 \
        device.share.model=virtio-fs device.share.socket=fs.sock device.share.sharename=shared
    [ "$status" = 0 ] || fail "parador ended with $status"
    says "$1" '^guest: exit 0'
    kill "$(cat daemon.pid)"
    wait
    rm -f ./*.sock ./daemon.pid
}
serve /mnt debian qemu-storage-daemon
booted stable
# shellcheck disable=SC2086
$STORAGE_DAEMON --version
# shellcheck disable=SC2086
serve . $STORAGE_DAEMON
booted former
umount debian/proc
