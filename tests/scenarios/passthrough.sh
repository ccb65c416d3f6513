# A zoned block device of the host, the kernel's null_blk, as a guest's disk with zones: commands, limits
# and fio in zones with verification; the device itself says the same afterwards, and has the data.
#
# needs: bzimage initramfs rootfs
# memory: 2048
. "$LAB/lib.sh"

# 64 zones of 4 MiB, of which 3 can be written; the first four are conventional.
modprobe null_blk nr_devices=0
[ -d /sys/kernel/config/nullb ] || mount -t configfs configfs /sys/kernel/config
nullb=/sys/kernel/config/nullb/zoned
mkdir "$nullb"
for setting in size=256 zoned=1 zone_size=4 zone_capacity=3 zone_nr_conv=4 zone_max_open=6 zone_max_active=8 \
    blocksize=4096 memory_backed=1 power=1; do
    echo "${setting#*=}" >"$nullb/${setting%%=*}"
done
# Named as the folder since Linux 6.2, before that by its number.
device=/dev/zoned
[ -b "$device" ] || device=/dev/nullb$(cat "$nullb/index")
same "model" "$(cat "/sys/block/${device#/dev/}/queue/zoned")" host-managed
debian true
mount -t sysfs sys debian/sys
trap 'umount debian/sys; rmdir "$nullb"' EXIT
mknod debian/dev/zoned b $(cat "/sys/block/${device#/dev/}/dev" | tr : ' ')
# report: a line for each zone; whether it is implicitly open or closed nobody has to agree on.
report() { debian /usr/sbin/blkzone report /dev/zoned | sed 's/2(oi)/4(cl)/'; }
# What somebody left open is closed for the guest.
debian /usr/sbin/blkzone open --offset $((60 * 8192)) --count 2 /dev/zoned

boot passthrough memory.size=512M cpus=2 \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.z.model=virtio-blk "device.z.path=$device" device.z.zoned=passthrough device.z.ser=zoned \
    device.z.queues=2 <<'END_OF_GUEST'
disk=$(disk zoned)
queue=/sys/block/${disk#/dev/}/queue
same "model" "$(cat "$queue/zoned")" host-managed
same "zones" "$(cat "$queue/nr_zones")" 64
same "open zones" "$(cat "$queue/max_open_zones")" 6
same "active zones" "$(cat "$queue/max_active_zones")" 8

blkzone() { debian /usr/sbin/blkzone "$@"; }
# count CONDITION: how many zones are in it, as in em, oi, oe, cl, fu.
count() { blkzone report "$disk" | grep -c "($1)" || true; }
same "conventional" "$(count nw)" 4
same "empty" "$(count em)" 60
blkzone open --offset $((8 * 8192)) --count 6 "$disk"
same "open" "$(count oe)" 6
! blkzone open --offset $((20 * 8192)) --count 1 "$disk" 2>/dev/null || fail "opened one more than can be"
! dd if=/dev/zero of="$disk" bs=1M count=1 seek=80 oflag=direct 2>/dev/null || fail "wrote to one more than can be open"
blkzone close --offset $((8 * 8192)) --count 6 "$disk"
blkzone finish --offset $((8 * 8192)) --count 1 "$disk"
same "full" "$(count fu)" 1
! dd if=/dev/zero of="$disk" bs=4k count=1 seek=$((20 * 1024 + 2)) oflag=direct 2>/dev/null ||
    fail "wrote behind the write pointer"
blkzone reset --offset $((4 * 8192)) "$disk"
same "empty again" "$(count em)" 60

# zbd OPTION...: fio that knows zones.
zbd() {
    debian /usr/bin/fio --name=zbd --filename="$disk" --direct=1 --zonemode=zbd --ioengine=libaio --iodepth=16 \
        --offset=16M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal "$@" >/tmp/fio 2>&1 ||
        { cat /tmp/fio; fail "fio"; }
}
zbd --rw=write --bs=128k --size=16M
zbd --rw=randwrite --bs=16k --size=64M --io_size=8M --max_open_zones=6
echo "fio: verified"
dd if=/dev/urandom of=/tmp/data bs=64k count=20 2>/dev/null
dd if=/tmp/data of="$disk" bs=64k oflag=direct seek=$((40 * 64)) 2>/dev/null
dd if=/tmp/data of="$disk" bs=64k oflag=direct seek=3 2>/dev/null
sync
blkzone report "$disk" >/tmp/report
sed 's/^/report: /' /tmp/report
echo "data: $(md5sum </tmp/data)"
END_OF_GUEST

sed -n 's/\r*$//; s/.*report:   */  /p' passthrough.log | sed 's/2(oi)/4(cl)/' >guest
report | sed 's/^ */  /' >host
same "zones the guest told of" "$(wc -l <guest)" 64
diff guest host || fail "the guest's zones are not the device's"
sum=$(sed -n 's/\r*$//; s/.*data: //p' passthrough.log)
for at in 3 $((40 * 64)); do
    same "data" "$(dd if="$device" bs=64k count=20 skip="$at" iflag=direct 2>/dev/null | md5sum)" "$sum"
done
