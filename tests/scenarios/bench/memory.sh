# What a VMM's process has in memory besides the guest's own, idle guest, in KiB.
#
# needs: vmlinux initramfs qemu
# profile: release
# memory: 2560
# timeout: 400
. "$LAB/lib.sh"

# An archive without a script: a shell that waits for input nobody gives.
CMDLINE="console=ttyS0 quiet"

# resident PID: "rss anonymous" of every mapping but guest memory: the one of nearly 256 MiB, and the
# start of it, which has other huge-page settings and so is a mapping of its own that ends there.
resident() {
    awk '/^[0-9a-f]+-[0-9a-f]+ /{ split($1, range, "-") }
         NR == FNR { if ($1 == "Size:" && $2 >= 200000) guest = range[1]; next }
         $1 == "Rss:" && range[1] != guest && range[2] != guest { rss += $2 }
         $1 == "Anonymous:" && range[1] != guest && range[2] != guest { anonymous += $2 }
         END { print rss, anonymous }' "/proc/$1/smaps" "/proc/$1/smaps"
}

# measure NAME COMMAND...: starts a VMM, waits for the guest's prompt, looks, ends it.
measure() {
    name=$1
    shift
    [ -p "$WORK/silence" ] || mkfifo "$WORK/silence"
    # Opened for both, so that it neither waits for a writer nor ever ends.
    "$@" <>"$WORK/silence" >"$WORK/out" 2>&1 &
    pid=$!
    for second in $(seq 90); do
        grep -q ' # ' "$WORK/out" && break
        sleep 1
    done
    grep -q ' # ' "$WORK/out" || { cat "$WORK/out"; fail "$name: no prompt"; }
    sleep 3
    echo "bench: memory $name $(resident $pid)"
    kill -9 $pid
    wait $pid || true
}

truncate -s 64M "$WORK/disk"
tunctl -t lab-tap0
set -- -o cpus=1 -o memory.size=256M -o boot.kernel="$VMLINUX" -o boot.initrd="$INITRAMFS" \
    -o boot.cmdline="$CMDLINE" -o console=stdio
measure parador-bare "$PARADOR" vmm "$@"
measure parador-blk-net-console "$PARADOR" vmm "$@" \
    -o device.d.model=virtio-blk -o device.d.path="$WORK/disk" \
    -o device.n.model=virtio-net -o device.n.tap.name=lab-tap0 \
    -o device.c.model=virtio-console -o device.c.port.0.path="file:$WORK/console"
measure qemu-microvm $QEMU -L "$QEMU_DATA" -M microvm,acpi=on,rtc=off,pit=off,pic=off,isa-serial=on \
    -accel kvm -cpu host -smp 1 -m 256 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
    -kernel "$VMLINUX" -initrd "$INITRAMFS" -append "$CMDLINE"
