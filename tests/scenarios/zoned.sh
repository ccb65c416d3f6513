# Disks with zones as Linux and its tools see them: blkzone and fio in zones with verification on one; zonefs, then
# btrfs that is scrubbed, on another one, whose process is killed again and again meanwhile (50 times in the long
# form). Both are mounted again and whole, and the images say the same afterwards, on this side.
#
# needs: bzimage initramfs rootfs
# long: 7200
# memory: 2048
. "$LAB/lib.sh"

for name in zoned served; do
    "$PARADOR" image create --zoned $name.img --size 512M --zone-size 4M --max-open 14 --max-active 14
done

# The process that the second disk is: started anew whenever it ends, until it is told to.
{
    trap 'kill $!; wait; exit 0' TERM
    while :; do
        "$PARADOR" device blk --socket-path served.sock -o path=served.img -o zoned=host-managed -o ser=served \
            -o queues=2 >>served.log 2>&1 &
        echo $! >served.pid
        wait $! || true
    done
} &
supervisor=$!
kills=3
[ -z "$LONG" ] || kills=25
# kill_under LOAD: kills the process so often, once the guest's load has begun, and then says that it was enough.
kill_under() {
    await zoned "^$1: begins"
    local left=$kills
    while [ "$left" -gt 0 ]; do
        sleep "$((1 + left % 2)).$((left * 7 % 10))"
        kill -9 "$(cat served.pid)"
        left=$((left - 1))
        echo "$1" >>kills
    done
    echo >&9
}

with_script zoned.initrd <<'END'
disk=$(disk zoned)
queue=/sys/block/${disk#/dev/}/queue
same "model" "$(cat "$queue/zoned")" host-managed
same "zones" "$(cat "$queue/nr_zones")" 128
same "sectors in a zone" "$(cat "$queue/chunk_sectors")" 8192
same "open zones" "$(cat "$queue/max_open_zones")" 14
same "active zones" "$(cat "$queue/max_active_zones")" 14
same "block" "$(cat "$queue/logical_block_size")" 4096

same "empty" "$(count em "$disk")" 128
blkzone open --offset 8192 --count 2 "$disk"
same "open" "$(count oe "$disk")" 2
blkzone close --offset 8192 --count 2 "$disk"
blkzone finish --offset 8192 --count 1 "$disk"
same "full" "$(count fu "$disk")" 1
! dd if=/dev/zero of="$disk" bs=4k count=1 seek=2050 oflag=direct 2>/dev/null || fail "wrote behind the write pointer"
blkzone reset "$disk"
same "empty again" "$(count em "$disk")" 128

verify_zones "$disk" --rw=write --bs=128k --size=32M
verify_zones "$disk" --rw=randwrite --bs=16k --size=64M --io_size=16M --max_open_zones=8
echo "fio: verified"

disk=$(disk served)
same "zones" "$(cat "/sys/block/${disk#/dev/}/queue/nr_zones")" 128
# under NAME: says that a load begins, and makes /tmp/NAME once the process was killed often enough.
under() {
    echo "$1: begins"
    { read -r _ && : >"/tmp/$1"; } </dev/ttyS0 &
}

debian mkzonefs -f "$disk" >/dev/null
mkdir -p /z /tmp/files
mount -t zonefs "$disk" /z
# One is for the file system itself.
same "files" "$(ls /z/seq | wc -l)" 127
dd if=/dev/urandom of=/tmp/data bs=64k count=20 2>/dev/null
dd if=/tmp/data of=/z/seq/3 bs=64k oflag=direct conv=notrunc 2>/dev/null
dd if=/tmp/data of=/z/seq/4 bs=64k oflag=direct conv=notrunc 2>/dev/null
truncate -s 0 /z/seq/4
truncate -s 4194304 /z/seq/5
umount /z
mount -t zonefs "$disk" /z
same "sizes" "$(stat -c %s /z/seq/3 /z/seq/4 /z/seq/5 | tr '\n' ' ')" "1310720 0 4194304 "
same "data" "$(md5sum </z/seq/3)" "$(md5sum </tmp/data)"
# part NUMBER: some of the data.
part() {
    dd if=/tmp/data bs=64k skip=$(($1 % 7)) count=$((1 + $1 % 13)) 2>/dev/null
}
# Four files at once, each checked at once; what is in them last is looked at again in the end.
under zonefs
round=0
until [ -e /tmp/zonefs ]; do
    writers=
    for file in 0 1 2 3; do
        number=$((round * 4 + file))
        file=$((8 + number % 12))
        {
            truncate -s 0 /z/seq/$file
            part $number | dd of=/z/seq/$file bs=64k iflag=fullblock oflag=direct conv=notrunc 2>/dev/null
            part $number | cmp - /z/seq/$file
            echo $number >/tmp/files/$file
        } &
        writers="$writers $!"
    done
    for writer in $writers; do wait "$writer" || fail "a file of zonefs"; done
    round=$((round + 1))
done
umount /z
mount -t zonefs "$disk" /z
for file in $(ls /tmp/files); do
    part "$(cat "/tmp/files/$file")" | cmp - "/z/seq/$file" || fail "file $file"
done
echo "zonefs: ends, $round rounds, $(ls /tmp/files | wc -l) files"
umount /z

blkzone reset "$disk"
debian modprobe btrfs
debian mkfs.btrfs -q -O zoned -d single -m single "$disk"
mount -t btrfs "$disk" /debian/mnt
from=/debian/usr/lib/modules/$(uname -r)/kernel/fs
under btrfs
round=0
until [ -e /tmp/btrfs ]; do
    # As often as there is room for it.
    [ $round -ge 16 ] || cp -a "$from" "/debian/mnt/tree$round"
    sync
    debian btrfs scrub start -B /mnt >/tmp/scrub 2>&1 || { cat /tmp/scrub; fail "scrub"; }
    grep -q 'no errors found' /tmp/scrub || fail "$(cat /tmp/scrub)"
    round=$((round + 1))
done
echo "btrfs: ends, $round rounds"
umount /debian/mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t btrfs "$disk" /debian/mnt
for tree in /debian/mnt/tree*; do
    same "tree" "$(sum "$tree")" "$(sum "$from")"
done
umount /debian/mnt
! dmesg | grep -iE '(btrfs|zonefs).*error' || fail "the guest saw an error"
blkzone report "$disk" | grep -v '(em)' | sed 's/^ */guest: zone: /'
END

start zoned memory.size=768M cpus=2 "boot.kernel=$BZIMAGE" boot.initrd=zoned.initrd "$(cmdline)" \
    device.served.model=virtio-blk device.served.backend=vhost-user device.served.socket=served.sock \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.z.model=virtio-blk device.z.path=zoned.img device.z.zoned=host-managed device.z.ser=zoned \
    device.z.queues=2
kill_under zonefs
kill_under btrfs
finish zoned
[ "$status" = 0 ] || fail "parador ended with $status"
says zoned '^guest: exit 0'
same "killed" "$(uniq -c kills | tr -s ' \n' ' ')" " $kills zonefs $kills btrfs "
kill "$supervisor"
wait

# Nobody has them open any more, and so none of their zones; nothing else has changed.
for name in zoned served; do
    "$PARADOR" image check $name.img || fail "check of $name.img"
    "$PARADOR" image report --map $name.img
done
sed -n 's/^guest: zone: \(.*]\).*/  \1/p' zoned.log | sed 's/2(oi)/4(cl)/' >guest
"$PARADOR" image report served.img | grep -v '(em)' >here
cat here
cmp guest here || fail "the guest told otherwise"
