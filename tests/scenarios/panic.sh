# A guest that panics ends with a status of its own.
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

with_script panic.initrd <<'END'
echo c >/proc/sysrq-trigger
sleep 60
END
vmm panic memory.size=512M "boot.kernel=$BZIMAGE" boot.initrd=panic.initrd \
    "boot.cmdline=console=ttyS0 quiet panic=0"
[ "$status" = 4 ] || fail "a guest panic ended with $status"
says panic 'Kernel panic'
