# Our own devices, each a process of its own, behind our front-end: all of them work, with second drivers and
# after a reboot too, and a disk's process that is killed again and again while fio verifies loses nothing.
# `parador run` keeps the processes of the disk that programs are on and of a folder; the others are started here.
#
# needs: bzimage initramfs rootfs
# memory: 2048
# long: 7200
. "$LAB/lib.sh"

TAP=lab-vhost0
debian true
mkdir -p debian/dev/net
mknod -m 666 debian/dev/net/tun c 10 200
debian ip tuntap add "$TAP" mode tap vnet_hdr
trap 'ip link del "$TAP"' EXIT
ip addr add 192.0.2.1/24 dev "$TAP"
ip link set "$TAP" up

# back_end MODEL KEY=VALUE...: a process at MODEL.sock; $! is its number.
back_end() {
    local model=$1 key
    shift
    for key; do
        set -- "$@" -o "$key"
        shift
    done
    "$PARADOR" device "$model" --socket-path "$model.sock" "$@" >>"$model.log" 2>&1 9>&- &
}
truncate -s 64M disk.img
disk() { back_end blk path=disk.img ser=served; }
disk
disk_pid=$!
back_end net "tap.name=$TAP" tap.create=no mac=02:00:00:00:00:42
back_end rng
back_end console port.0.path=unix:c.sock
back_end vsock cid=42 socket=v.sock
# Linux 6.12 crashes when a driver leaves a balloon that has the queue for reports and not the one before it.
back_end balloon size=16M free_page_reporting=no
# Whoever connects to port 5000 has its data's sum, and what is typed at the console comes back.
debian socat -t 300 UNIX-LISTEN:/mnt/v.sock_5000,fork EXEC:md5sum &
until [ -S c.sock ]; do sleep 0.1; done
debian socat -t 300 UNIX-CONNECT:/mnt/c.sock EXEC:cat &

# The program that a folder's process is, with its libraries; the root of an initramfs is no place for a sandbox.
mkdir share bin
echo "from the host" >share/host
cat >bin/virtiofsd <<'EOF'
#!/bin/sh
here=${0%/bin/*}/debian
exec "$here/lib64/ld-linux-x86-64.so.2" --library-path "$here/lib/x86_64-linux-gnu" "$here/usr/libexec/virtiofsd" "$@" --sandbox none
EOF
chmod +x bin/virtiofsd

with_script devices.initrd <<'EOF'
# check WHEN
check() {
    same "disk, $1" "$(cat "/sys/block/$(basename "$(disk served)")/size")" 131072
    same "entropy, $1" "$(dd if=/dev/hwrng bs=1k count=4 iflag=fullblock 2>/dev/null | wc -c)" 4096
    same "address, $1" "$(cat /sys/class/net/eth0/address)" 02:00:00:00:00:42
    ip addr add 192.0.2.2/24 dev eth0
    ip link set eth0 up
    ping -q -c 2 -i 0.2 -w 60 -s 1400 192.0.2.1 >/tmp/ping || { cat /tmp/ping; fail "ping, $1"; }
    same "socket, $1" "$(echo hello | debian socat -t 300 - VSOCK-CONNECT:2:5000)" "$(echo hello | md5sum)"
    same "console, $1" "$( (
        stty raw -echo
        echo "$1" >&0
        read -r line
        echo "$line"
    ) <>/dev/hvc0)" "$1"
    mkdir -p /share
    mount -t virtiofs shared /share
    same "folder, $1" "$(cat /share/host)" "from the host"
    head -c 1000000 /dev/urandom >/tmp/data
    cp /tmp/data /share/guest
    umount /share
    mount -t virtiofs shared /share
    cmp /tmp/data /share/guest || fail "folder, $1"
    umount /share
}

served=$(disk served)
if [ "$(head -c 4 "$served")" != once ]; then
    programs=$(readlink -f "/sys/block/$(basename "$(disk debian)")/device")
    for device in /sys/bus/virtio/devices/*; do
        name=${device##*/} driver=$(readlink -f "$device/driver")
        [ "$name" != "${programs##*/}" ] || continue
        echo "$name" >"$driver/unbind"
        echo "$name" >"$driver/bind"
        echo "$name: again ${driver##*/}"
    done
    check "with a second driver"
    served=$(disk served)
    printf once | dd of="$served" conv=notrunc,fsync 2>/dev/null
    echo "first boot"
    reboot -f
    sleep 600
fi
check "after a reboot"
echo "second boot"
# Until somebody has killed often enough, and says so.
round=0
until read -r -t 1 _; do
    verify "$served" --offset=1M --size=8M --randseed=$round
    round=$((round + 1))
    echo "round $round is verified"
done
# Not from memory.
echo 3 >/proc/sys/vm/drop_caches
debian socat -V >/dev/null || fail "no program can be read"
! dmesg | grep -i 'i/o error' || fail "the guest saw an error"
EOF

cat >devices.conf <<EOF
name=devices
memory.size=512M
boot.kernel=$BZIMAGE
boot.initrd=devices.initrd
boot.cmdline=console=ttyS0 panic=-1 quiet
device.debian.model=virtio-blk
device.debian.path=$ROOTFS
device.debian.ro=true
device.debian.ser=debian
device.debian.isolation=process
device.share.model=virtio-fs
device.share.path=share
device.share.sharename=shared
device.disk.model=virtio-blk
device.disk.backend=vhost-user
device.disk.socket=blk.sock
device.net.model=virtio-net
device.net.backend=vhost-user
device.net.socket=net.sock
device.rng.model=vhost-user
device.rng.virtio_type=rng
device.rng.socket=rng.sock
device.con.model=vhost-user
device.con.virtio_type=console
device.con.socket=console.sock
device.vsock.model=vhost-user
device.vsock.virtio_type=vsock
device.vsock.socket=vsock.sock
device.balloon.model=vhost-user
device.balloon.virtio_type=balloon
device.balloon.socket=balloon.sock
device.balloon.queue_sizes=128,128,16
device.balloon.config_size=16
EOF
mkfifo devices.in
: >devices.log
PATH=$PWD/bin:$PATH "$PARADOR" run devices.conf <devices.in >devices.log 2>&1 9>&- &
vmm_pid=$!
exec 9>devices.in
await devices '^first boot'
await devices '^second boot'
# What fio writes to.
written() { dd if=disk.img bs=1M skip=1 count=8 2>/dev/null | md5sum; }
kills=6
[ -z "$LONG" ] || kills=100
for kill in $(seq $kills); do
    before=$(written)
    while [ "$(written)" = "$before" ]; do
        kill -0 "$vmm_pid" || { cat devices.log; fail "the machine ended"; }
        sleep 0.1
    done
    kill -9 "$disk_pid"
    wait "$disk_pid" || true
    disk
    disk_pid=$!
    echo "killed $kill times"
done
# This one is started anew by who started it.
for child in $(cat "/proc/$vmm_pid/task/$vmm_pid/children"); do
    case $(tr '\0' ' ' <"/proc/$child/cmdline") in *' device '*) kill -9 "$child" ;; esac
done
await devices '^warning: the process of device .debian. ended'
echo >&9
finish devices
same "status" "$status" 0
says devices '^guest: exit 0'
says devices '^round 1 is verified'
# shellcheck disable=SC2046
kill $(jobs -p)
wait
for model in blk net rng console vsock balloon; do
    ! grep -iE 'error|refused' "$model.log" || fail "$model: $(cat "$model.log")"
done
