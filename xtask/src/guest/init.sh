#!/bin/busybox sh
# The first process of a test guest.
#
# Loads the drivers of the virtio devices and the pvpanic it finds, then
#   with `root=DEVICE` on the command line: hands over to that file system's init; /script, if the
#       archive has one, becomes /run/guest/script there;
#   else with a /script in the archive: runs it, says how it ended, powers off;
#   else: gives a shell.
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev /run /tmp /new /root /mnt /etc
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
ip link set lo up

for alias in /sys/bus/virtio/devices/*/modalias /sys/bus/acpi/devices/QEMU*/modalias; do
    [ -e "$alias" ] && modprobe -q "$(cat "$alias")"
done

root='' init=/sbin/init flags=rw
for word in $(cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    ro) flags=ro ;;
    esac
done

if [ -n "$root" ]; then
    mkdir -p /run/guest
    [ ! -e /script ] || cp /script /run/guest/script
    if mount -t ext4 -o "$flags" "$root" /new; then
        mount -o move /run /new/run
        mount -o move /dev /new/dev
        umount /tmp /sys /proc
        exec switch_root /new "$init"
    fi
    echo "guest: cannot mount $root"
elif [ -e /script ]; then
    sh /script
    echo "guest: exit $?"
else
    setsid -c sh
fi
sync
poweroff -f
