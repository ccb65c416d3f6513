# What else of Linux judges our zones: null_blk with the same shape, to which the same random operations are done;
# dm-zoned with ext4 on it; and NVMe's target, to which several threads append at once.
#
# needs: bzimage initramfs rootfs judge
# long: 7200
# memory: 3072
. "$LAB/lib.sh"

# In MiB: the disk, its zones, what of them can be written; then how many are conventional, may be open, may be
# active; and bytes of a block. The fifth disk has a short last zone, and the eighth a read-only and an offline one.
cat >shapes <<'END'
32 1 1 0 0 0 4096
32 1 1 4 3 0 4096
64 4 3 0 4 6 4096
64 4 3 2 0 5 4096
34 4 4 1 3 5 4096
64 8 5 1 3 4 4096
48 2 1 4 1 2 4096
40 2 2 2 4 9 512
END
create() {
    local image=$1
    shift
    "$PARADOR" image create --zoned "$image" "$@"
}
set --
number=0
while read -r size zone capacity conventional open active block; do
    number=$((number + 1))
    create "like$number.img" --size "${size}M" --zone-size "${zone}M" --zone-capacity "${capacity}M" \
        --conventional "$conventional" --max-open "$open" --max-active "$active" --block-size "$block"
    set -- "$@" device.like$number.model=virtio-blk device.like$number.path=like$number.img \
        device.like$number.zoned=host-managed device.like$number.ser=like$number
done <shapes
"$PARADOR" image inject read-only 5 like8.img
"$PARADOR" image inject offline 6 like8.img
create dm.img --size 512M --zone-size 4M --conventional 16
create nvme.img --size 24M --zone-size 4M --zone-capacity 3M

echo 800 >steps
if [ -n "$LONG" ]; then
    echo 13000 >steps
    LIMIT=6900
fi
with_script judges.initrd "$JUDGE" shapes steps <<'END_OF_GUEST'
debian modprobe null_blk nr_devices=0
debian modprobe nvme-loop
debian modprobe dm-zoned
mount -t configfs configfs /sys/kernel/config
# Thousands of requests are to be refused.
dmesg -n 3
now() { cut -d. -f1 /proc/uptime; }
began=$(now)

# like NUMBER SIZE ZONE CAPACITY CONVENTIONAL OPEN ACTIVE BLOCK: null_blk with this shape, as $nullb.
like() {
    nullb=/sys/kernel/config/nullb/like$1
    mkdir "$nullb"
    for setting in size=$2 zoned=1 zone_size=$3 zone_capacity=$4 zone_nr_conv=$5 zone_max_open=$6 \
        zone_max_active=$7 blocksize=$8 memory_backed=1 power=1; do
        echo "${setting#*=}" >"$nullb/${setting%%=*}"
    done
    # What is asked for is one request on both; null_blk takes at most 124 KiB in one.
    for name in "like$1" "$(basename "$(disk "like$1")")"; do
        echo 64 >"/sys/block/$name/queue/max_sectors_kb"
        echo none >"/sys/block/$name/queue/scheduler"
    done
}

# Whoever finds no difference must find one that is there: a block that cannot be written, and one that was
# was written on only one of them.
like 1 $(sed -n 1p /shapes)
echo "+$((2048 * 3))-$((2048 * 4 - 1))" >"$nullb/badblocks"
! /judge compare /dev/like1 "$(disk like1)" 3000 1 >/tmp/told 2>&1 || fail "saw no bad block"
grep -q 'reference: EIO' /tmp/told || fail "$(cat /tmp/told)"
rmdir "$nullb"
blkzone reset "$(disk like1)"
like 2 $(sed -n 2p /shapes)
dd if=/script of=/dev/like2 bs=4k count=1 seek=5 oflag=direct conv=sync 2>/dev/null
! /judge compare /dev/like2 "$(disk like2)" 3000 1 >/tmp/told 2>&1 || fail "saw no other data"
grep -q 'sector 40 begins differently' /tmp/told || fail "$(cat /tmp/told)"
rmdir "$nullb"
blkzone reset --offset $((4 * 2048)) "$(disk like2)"
dd if=/dev/zero of="$(disk like2)" bs=1M count=4 oflag=direct 2>/dev/null
echo "judge: differences are seen"

number=0
while read -r shape; do
    number=$((number + 1))
    like "$number" $shape
    if [ "$number" = 8 ]; then
        echo $((5 * 4096)) >"$nullb/zone_readonly"
        echo $((6 * 4096)) >"$nullb/zone_offline"
    fi
    /judge compare "/dev/like$number" "$(disk "like$number")" "$(cat /steps)" "$number" >/tmp/told 2>&1 ||
        { cat /tmp/told; fail "shape $shape"; }
    echo "shape $shape:"
    cat /tmp/told
    rmdir "$nullb"
done </shapes
echo "compared: $(($(now) - began)) s"

disk=$(disk nvme)
subsystem=/sys/kernel/config/nvmet/subsystems/zoned
mkdir "$subsystem"
echo 1 >"$subsystem/attr_allow_any_host"
mkdir "$subsystem/namespaces/1"
echo -n "$disk" >"$subsystem/namespaces/1/device_path"
echo 1 >"$subsystem/namespaces/1/enable"
port=/sys/kernel/config/nvmet/ports/1
mkdir "$port"
echo loop >"$port/addr_trtype"
ln -s "$subsystem" "$port/subsystems/zoned"
echo transport=loop,nqn=zoned >/dev/nvme-fabrics
until [ -b /dev/nvme0n1 ]; do sleep 0.2; done
same "namespace" "$(cat /sys/block/nvme0n1/queue/zoned)" host-managed
/judge append /dev/nvme0n1 "$disk" 4 || fail "appends"

disk=$(disk dm)
debian dmzadm --format "$disk" >/tmp/dmzadm 2>&1 || { cat /tmp/dmzadm; fail "dmzadm"; }
debian dmzadm --start "$disk" >/tmp/dmzadm 2>&1 || { cat /tmp/dmzadm; fail "dmzadm"; }
debian mkfs.ext4 -q /dev/dm-0
mount -t ext4 /dev/dm-0 /debian/mnt
from=/debian/usr/lib/modules/$(uname -r)/kernel/fs
cp -a "$from" /debian/mnt/tree
umount /debian/mnt
echo 3 >/proc/sys/vm/drop_caches
debian e2fsck -f -n /dev/dm-0 >/tmp/fsck 2>&1 || { cat /tmp/fsck; fail "e2fsck"; }
mount -t ext4 /dev/dm-0 /debian/mnt
same "tree" "$(sum /debian/mnt/tree)" "$(sum "$from")"
umount /debian/mnt
# What was written in any order lies in zones now.
blkzone report "$disk" | sed -n 's/.*(\(..\)) \[.*/\1/p' | sort | uniq -c | sed 's/^/dm-zoned:/'
! dmesg | grep -E 'EXT4-fs error|device-mapper.*(error|fail)' || fail "the guest saw an error"
END_OF_GUEST

echo "--- judges"
vmm judges memory.size=1024M "boot.kernel=$BZIMAGE" boot.initrd=judges.initrd "$(cmdline)" \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.dm.model=virtio-blk device.dm.path=dm.img device.dm.zoned=host-managed device.dm.ser=dm \
    device.nvme.model=virtio-blk device.nvme.path=nvme.img device.nvme.zoned=host-managed device.nvme.ser=nvme \
    device.nvme.queues=2 "$@"
[ "$status" = 0 ] || fail "parador ended with $status"
says judges '^guest: exit 0'
for image in like*.img dm.img nvme.img; do
    "$PARADOR" image check "$image" || fail "check of $image"
done
