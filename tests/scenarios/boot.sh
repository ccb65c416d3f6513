# Debian's own bzImage, and the PVH vmlinux inside it, boot to userspace and power off. One processor and
# the memory asked for are there: `cpus`, `reboot` and `memory` have more of them.
#
# needs: bzimage vmlinux initramfs
. "$LAB/lib.sh"

boot bzimage memory.size=512M <<'END'
case $(uname -r) in 6.*) ;; *) fail "kernel $(uname -r)" ;; esac
grep -qw panic=-1 /proc/cmdline || fail "the command line did not arrive"
uname -a
same "processors" "$(nproc)" 1
total=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
echo "total: $total MiB of 512"
# What the kernel keeps for itself is less than a tenth.
[ "$total" -gt 460 ] && [ "$total" -le 512 ] || fail "$total MiB"
END

# 0xb0 is what Linux calls a loader that came through PVH.
KERNEL=$VMLINUX boot vmlinux memory.size=512M <<'END'
same "boot loader" "$(cat /proc/sys/kernel/bootloader_type)" 176
END
