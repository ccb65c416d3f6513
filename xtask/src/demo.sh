# A Debian guest with a disk and a network interface of the usual kind, and a disk with zones.
#
# needs: bzimage initramfs rootfs
# memory: 2048
. "$LAB/lib.sh"

tap=demo-tap
tunctl -t $tap >/dev/null
trap 'tunctl -d $tap >/dev/null' EXIT
ip addr add 10.99.0.1/24 dev $tap
ip link set $tap up
truncate -s 1G data.img
"$PARADOR" image create --zoned zoned.img --size 512M --zone-size 4M

with_script demo.initrd <<'END'
mkdir -p /run/systemd/network
printf '[Match]\nType=ether\n\n[Network]\nAddress=10.99.0.2/24\n' >/run/systemd/network/10-demo.network
networkctl reload
# Whoever has a terminal looks around alone.
! grep -qw tour /proc/cmdline && exit 0
show() {
    echo
    echo "# $*"
    "$@" 2>&1 | head -n 24
}
systemctl is-system-running --wait
show cat /etc/debian_version
show uname -a
show lscpu
show free -m
show lsblk --output NAME,SIZE,TYPE,FSTYPE,MOUNTPOINTS,SERIAL
show lspci
zoned=$(readlink -f /dev/disk/by-id/virtio-zoned)
show mkfs.btrfs -O zoned -d single -m single "$zoned"
show mount "$zoned" /mnt
show cp -a /usr/bin /mnt
show sync
show df -h /mnt
show blkzone report --count 8 "$zoned"
umount /mnt
/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=60
show ip -brief address
show ping -c 3 -i 0.3 10.99.0.1
show systemctl status --no-pager
show systemd-analyze
systemctl poweroff
END

keys="memory.size=1G cpus=2 boot.kernel=$BZIMAGE boot.initrd=demo.initrd
    device.root.model=virtio-blk device.root.path=$ROOTFS
    device.data.model=virtio-blk device.data.path=data.img device.data.ser=data
    device.zoned.model=virtio-blk device.zoned.path=zoned.img device.zoned.zoned=host-managed device.zoned.ser=zoned
    device.net0.model=virtio-net device.net0.tap.name=$tap
    device.rnd.model=virtio-rnd"
line="console=ttyS0 panic=-1 quiet systemd.show_status=1 systemd.default_device_timeout_sec=600 root=/dev/vda"
if [ -n "$LAB_INTERACTIVE" ]; then
    for key in $keys; do set -- "$@" -o "$key"; done
    "$PARADOR" vmm -o name=demo -o "boot.cmdline=$line" "$@"
else
    # shellcheck disable=SC2086
    vmm demo $keys "boot.cmdline=$line tour"
    [ "$status" = 0 ] || fail "parador ended with $status"
fi
echo
echo "# parador image report --map zoned.img"
"$PARADOR" image report --map zoned.img
