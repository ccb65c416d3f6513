# A zoned block device of the host, null_blk, passed through to a guest: by us and by QEMU, to the same kernel and the
# same fio.
#
# needs: vmlinux initramfs rootfs qemu
# clock: virtual ticks
# profile: release
# memory: 2560
# timeout: 1200
. "$LAB/lib.sh"

# 128 zones of 1 MiB.
null_blk zoned size=128 zone_size=1
device=$null_blk
same "model" "$(cat "/sys/block/${device#/dev/}/queue/zoned")" host-managed
debian true

with_script zoned.initrd <<'END_OF_GUEST'
disk=$(disk zoned)
same "model" "$(cat "/sys/block/${disk#/dev/}/queue/zoned")" host-managed
# job NAME OPTION...: requests of 4 KiB a second.
job() {
    local name=$1
    shift
    debian fio --name=job --filename="$disk" --direct=1 --zonemode=zbd --ioengine=libaio --iodepth=32 --bs=4k \
        --group_reporting --minimal "$@" >/tmp/fio 2>&1 || { cat /tmp/fio; fail "fio"; }
    awk -F';' -v "name=$name" '/^3;/ { print "job:", name, ($8 > $49 ? $8 : $49) }' /tmp/fio
}
blkzone reset "$disk"
# The first one also brings fio and the device into memory.
job first --rw=write --size=1M
blkzone reset "$disk"
job write-1 --rw=write --size=4M
job write-8 --rw=write --numjobs=8 --offset=16M --offset_increment=1M --size=1M
# What is there, and no more.
blkzone reset "$disk"
debian fio --name=fill --filename="$disk" --direct=1 --zonemode=zbd --ioengine=libaio --rw=write --bs=256k --size=8M \
    --minimal >/dev/null
job read --rw=randread --size=8M --io_size=8M
job sync-read --rw=randread --size=8M --io_size=4M --iodepth=1
job sync-write --rw=write --size=4M --offset=64M --iodepth=1
END_OF_GUEST

CMDLINE="console=ttyS0 panic=-1 quiet"

parador() {
    "$PARADOR" vmm -o cpus=1 -o memory.size=512M -o boot.kernel="$VMLINUX" -o boot.initrd=zoned.initrd \
        -o boot.cmdline="$CMDLINE" -o console=stdio \
        -o device.debian.model=virtio-blk -o "device.debian.path=$ROOTFS" -o device.debian.ro=true \
        -o device.debian.ser=debian \
        -o device.z.model=virtio-blk -o "device.z.path=$device" -o device.z.zoned=passthrough -o device.z.ser=zoned
}

qemu() {
    $QEMU -L "$QEMU_DATA" -M q35 -accel kvm -cpu host \
        -smp 1 -m 512 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$VMLINUX" -initrd zoned.initrd -append "$CMDLINE" \
        -object iothread,id=io \
        -blockdev "driver=host_device,node-name=debian,filename=$ROOTFS,read-only=on" \
        -device virtio-blk-pci,drive=debian,serial=debian \
        -blockdev "driver=host_device,node-name=zoned,filename=$device,cache.direct=on,aio=io_uring" \
        -device virtio-blk-pci,drive=zoned,serial=zoned,iothread=io
}

for name in parador qemu; do
    echo "--- $name"
    $name </dev/null 2>&1 | tee "$name.log"
    says "$name" '^guest: exit 0'
    sed -n "s/\r*$//; /job: first/d; s/^.*job: /bench: passthrough $name /p" "$name.log"
done
rmdir /sys/kernel/config/nullb/zoned
