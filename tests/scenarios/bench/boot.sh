# From the start of a VMM's process to the guest's userspace and out again, beside QEMU's microvm.
#
# needs: vmlinux poweroff qemu
# clock: virtual
# profile: release
# memory: 2560
# timeout: 900
. "$LAB/lib.sh"

# The kernel's log has the time in microseconds, and writing to it starts no process.
mark() { echo "bench: $*" >/dev/kmsg; }

CMDLINE="console=ttyS0 quiet panic=-1"

parador() {
    "$PARADOR" vmm -o cpus=1 -o memory.size=256M -o boot.kernel="$VMLINUX" -o boot.initrd="$POWEROFF" \
        -o boot.cmdline="$CMDLINE" -o console=stdio
}

microvm() {
    $QEMU -L "$QEMU_DATA" -M microvm,acpi=on,rtc=off,pit=off,pic=off,isa-serial=on -accel kvm -cpu host \
        -smp 1 -m 256 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$VMLINUX" -initrd "$POWEROFF" -append "$CMDLINE"
}

# The first run of each brings its files into the page cache, where they already are: it is only
# there to show that the figures repeat.
for run in 1 2; do
    mark "start parador"
    parador </dev/null >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail parador; }
    mark "end"
done
mark "start qemu-microvm"
microvm </dev/null >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail "qemu"; }
mark "end"
dmesg | grep 'bench:'
