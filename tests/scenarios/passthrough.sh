# A zoned block device of the host, the kernel's null_blk, as a guest's disk with zones: commands, limits,
# a write that fails, fio in zones with verification, btrfs, which appends; the device itself says the same
# afterwards, and has the data. It is copied to an image, and that to a second device.
#
# needs: bzimage initramfs rootfs
# memory: 2048
. "$LAB/lib.sh"

# 128 zones of 4 MiB, of which 3 can be written; the first four are conventional.
configure() {
    null_blk "$1" size=512 zone_size=4 zone_capacity=3 zone_nr_conv=4 zone_max_open=6 zone_max_active=14
}
configure zoned
device=$null_blk
nullb=/sys/kernel/config/nullb
# In zone 110 the third block is bad.
bad=$((110 * 8192 + 16))
echo "+$bad-$((bad + 7))" >"$nullb/zoned/badblocks"
same "model" "$(cat "/sys/block/${device#/dev/}/queue/zoned")" host-managed
debian true
mount -t sysfs sys debian/sys
trap 'umount debian/sys; rmdir "$nullb/zoned"' EXIT
mknod debian/dev/zoned b $(cat "/sys/block/${device#/dev/}/dev" | tr : ' ')
# What somebody left open is closed for the guest.
debian blkzone open --offset $((100 * 8192)) --count 2 /dev/zoned

boot passthrough memory.size=768M cpus=2 \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.z.model=virtio-blk "device.z.path=$device" device.z.zoned=passthrough device.z.ser=zoned \
    device.z.queues=2 <<'END_OF_GUEST'
disk=$(disk zoned)
queue=/sys/block/${disk#/dev/}/queue
same "model" "$(cat "$queue/zoned")" host-managed
same "zones" "$(cat "$queue/nr_zones")" 128
same "open zones" "$(cat "$queue/max_open_zones")" 6
same "active zones" "$(cat "$queue/max_active_zones")" 14

same "conventional" "$(count nw "$disk")" 4
same "empty" "$(count em "$disk")" 124
blkzone open --offset $((8 * 8192)) --count 6 "$disk"
same "open" "$(count oe "$disk")" 6
! blkzone open --offset $((20 * 8192)) --count 1 "$disk" 2>/dev/null || fail "opened one more than can be"
! dd if=/dev/zero of="$disk" bs=1M count=1 seek=80 oflag=direct 2>/dev/null || fail "wrote to one more than can be open"
blkzone close --offset $((8 * 8192)) --count 6 "$disk"
blkzone finish --offset $((8 * 8192)) --count 1 "$disk"
same "full" "$(count fu "$disk")" 1
! dd if=/dev/zero of="$disk" bs=4k count=1 seek=$((20 * 1024 + 2)) oflag=direct 2>/dev/null ||
    fail "wrote behind the write pointer"
blkzone reset --offset $((4 * 8192)) "$disk"
same "empty again" "$(count em "$disk")" 124

# A write that the device fails takes nothing else with it. The driver asks where it is before the next one.
zone=110
pointer() {
    blkzone report --offset $((zone * 8192)) --count 1 "$disk" | sed 's/.*wptr \(0x[0-9a-f]*\) .*/\1/'
}
! dd if=/dev/zero of="$disk" bs=16k count=1 seek=$((zone * 256)) oflag=direct 2>/dev/null || fail "wrote to a bad block"
same "write pointer" "$(pointer)" 0x000000
dd if=/dev/zero of="$disk" bs=4k count=2 seek=$((zone * 1024)) oflag=direct 2>/dev/null || fail "not even before the bad block"
same "write pointer" "$(pointer)" 0x000010
blkzone reset --offset $((zone * 8192)) --count 1 "$disk"

verify_zones "$disk" --offset=16M --rw=write --bs=128k --size=16M
verify_zones "$disk" --offset=16M --rw=randwrite --bs=16k --size=64M --io_size=8M --max_open_zones=6
echo "fio: verified"

blkzone reset --offset $((4 * 8192)) "$disk"
debian modprobe btrfs
debian mkfs.btrfs -q -O zoned -d single -m single "$disk"
mount -t btrfs "$disk" /debian/mnt
from=/debian/usr/lib/modules/$(uname -r)/kernel/net/netfilter
cp -a "$from" /debian/mnt/tree
umount /debian/mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t btrfs "$disk" /debian/mnt
same "tree" "$(sum /debian/mnt/tree)" "$(sum "$from")"
umount /debian/mnt

# The device has what is written to it: to a conventional zone, and to the last one that is empty.
dd if=/dev/urandom of=/tmp/data bs=64k count=20 2>/dev/null
last=$(blkzone report "$disk" | sed -n '/(em)/s/.*start: \(0x[0-9a-f]*\),.*/\1/p' | tail -n 1)
dd if=/tmp/data of="$disk" bs=64k oflag=direct seek=$((last / 128)) 2>/dev/null
echo "zone: $((last / 128))"
dd if=/tmp/data of="$disk" bs=64k oflag=direct seek=3 2>/dev/null
blkzone finish --offset $((120 * 8192)) --count 1 "$disk"
blkzone open --offset $((121 * 8192)) --count 1 "$disk"
sync
blkzone report "$disk" | sed -n '/(em)/d; s/^ *start: \(0x[0-9a-f]*\), .* cap \(0x[0-9a-f]*\), wptr \(0x[0-9a-f]*\) .*(\(..\)).*/report: \1 \2 \3 \4/p'
echo "data: $(md5sum </tmp/data)"
# The kernel's last words go between what is not written yet.
sleep 1
END_OF_GUEST

# Which of the open zones are closed for others nobody has to agree on.
sed -n 's/\r*$//; s/oi$/cl/; s/.*report: //p' passthrough.log >guest
debian blkzone report /dev/zoned |
    sed -n '/(em)/d; s/(oi)/(cl)/; s/^ *start: \(0x[0-9a-f]*\), .* cap \(0x[0-9a-f]*\), wptr \(0x[0-9a-f]*\) .*(\(..\)).*/\1 \2 \3 \4/p' >host
[ "$(wc -l <guest)" -ge 8 ] || fail "too few zones are in use"
diff guest host || fail "the guest's zones are not the device's"
sum=$(sed -n 's/\r*$//; s/.*data: //p' passthrough.log)
for at in 3 $(sed -n 's/\r*$//; s/^.*zone: \([0-9]*\)$/\1/p' passthrough.log); do
    same "data" "$(dd if="$device" bs=64k count=20 skip="$at" iflag=direct 2>/dev/null | md5sum)" "$sum"
done

# Copied to an image, and from there to a second device: both say the same of their zones, and have the data.
echo "-$bad-$((bad + 7))" >"$nullb/zoned/badblocks"
configure second
second=$null_blk
trap 'umount debian/sys; rmdir "$nullb/zoned" "$nullb/second"' EXIT
mknod debian/dev/second b $(cat "/sys/block/${second#/dev/}/dev" | tr : ' ')
"$PARADOR" image convert "$device" copy.img
! "$PARADOR" image convert copy.img "$second" 2>refused || fail "a device that may have something on it was overwritten"
grep -q 'conventional, and may not be empty' refused || { cat refused; fail "another reason"; }
"$PARADOR" image convert --force copy.img "$second"
# What is open is closed in a copy, and where a full zone points means nothing.
zones() {
    sed -n '/(em)/d; /wptr 0x000000 .*(o[ie])/d; s/(o[ie])/(cl)/; s/wptr [^ ]*\( .*(fu)\)/wptr full\1/
        s/^ *start: \(0x[0-9a-f]*\), .* cap \(0x[0-9a-f]*\), wptr \([0-9a-fxul]*\) .*(\(..\)).*/\1 \2 \3 \4/p'
}
debian blkzone report /dev/zoned | zones >source
"$PARADOR" image report copy.img | zones >image
debian blkzone report /dev/second | zones >target
[ "$(wc -l <source)" -ge 7 ] || fail "too few zones are in use"
diff source image || fail "the image's zones are not the device's"
diff source target || fail "the second device's zones are not the first one's"
# What lies beyond that of a zone which can be written is anybody's guess.
while read -r start capacity pointer state; do
    case $state in
        nw | fu) sectors=$capacity ;;
        *) sectors=$pointer ;;
    esac
    for disk in "$device" "$second"; do
        dd if="$disk" bs=4k skip=$((start / 8)) count=$((sectors / 8)) iflag=direct 2>/dev/null | md5sum
    done >sums
    same "sectors $start" "$(sort -u sums | wc -l)" 1
done <source
"$PARADOR" image check copy.img | grep -q ': clean$' || fail "the image is not clean"
