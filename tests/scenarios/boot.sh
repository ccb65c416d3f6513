# Debian's own bzImage, and the PVH vmlinux inside it, boot to userspace and power off.
#
# needs: bzimage vmlinux initramfs
. "$LAB/lib.sh"

boot bzimage memory.size=512M <<'END'
case $(uname -r) in 6.*) ;; *) fail "kernel $(uname -r)" ;; esac
grep -qw panic=-1 /proc/cmdline || fail "the command line did not arrive"
uname -a
END

# 0xb0 is what Linux calls a loader that came through PVH.
KERNEL=$VMLINUX boot vmlinux memory.size=512M <<'END'
same "boot loader" "$(cat /proc/sys/kernel/bootloader_type)" 176
END
