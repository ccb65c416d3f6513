# Two disks of two queues each survive Debian's fio with verification, flushes and discards.
#
# needs: bzimage initramfs rootfs
# memory: 2048
. "$LAB/lib.sh"

truncate -s 256M ring.img threads.img

boot disks memory.size=768M cpus=2 \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.ring.model=virtio-blk device.ring.path=ring.img device.ring.ser=ring \
    device.ring.queues=2 device.ring.aio=io_uring \
    device.threads.model=virtio-blk device.threads.path=threads.img device.threads.ser=threads \
    device.threads.queues=2 device.threads.aio=threads <<'END'
for name in ring threads; do
    device=$(disk $name)
    same "$name: queues" "$(ls "/sys/block/${device#/dev/}/mq" | wc -l)" 2
    same "$name: size" "$(blockdev --getsize64 "$device")" 268435456
    verify "$device" --numjobs=2 --size=32M --offset_increment=32M --bsrange=4k-128k --randseed=7
    echo "$name: verified"
    # What is discarded is given back to the host and reads as zeroes.
    dd if=/dev/urandom of="$device" bs=1M count=16 seek=192 oflag=direct 2>/dev/null
    debian /usr/sbin/blkdiscard --offset $((192 << 20)) --length $((16 << 20)) "$device"
    echo 3 >/proc/sys/vm/drop_caches
    same "$name: bytes left" "$(dd if="$device" bs=1M count=16 skip=192 2>/dev/null | tr -d '\0' | wc -c)" 0
    debian /usr/sbin/blkdiscard --zeroout --offset 0 --length $((1 << 20)) "$device"
done
! dd if=/dev/zero of="$(disk debian)" bs=4k count=1 oflag=direct 2>/dev/null || fail "wrote to a read-only disk"
END

for image in ring.img threads.img; do
    # 64 MiB were written at most, and the 16 MiB discarded after them are not among them.
    used=$(du -k "$image" | cut -f1)
    echo "$image: $used KiB on the host"
    [ "$used" -lt $((66 << 10)) ] || fail "$image: the discarded blocks are still allocated"
done
