#!/bin/busybox sh
# The first process of the lab's outer machine: makes a Linux with KVM, runs the scenario, reports
# its exit status on the second serial port and switches the machine off.
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev /run /tmp /scratch /root /etc
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs -o size=90% work /scratch
ip link set lo up
# A scenario may ask for more guest memory than this machine has, and touch a little of it.
echo 1 >/proc/sys/vm/overcommit_memory
for module in kvm-amd tun virtio_blk loop; do
    modprobe "$module" || echo "lab: no module $module"
done

cd /scratch
. /lab/environment
if [ -n "$LAB_INTERACTIVE" ]; then
    setsid -c sh "$LAB/scenario.sh" </dev/ttyS0 >/dev/ttyS0 2>&1
else
    sh "$LAB/scenario.sh" </dev/null
fi
status=$?
sync
echo "exit $status" >/dev/ttyS1
poweroff -f
