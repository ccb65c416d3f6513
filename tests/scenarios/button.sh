# The power button, which a SIGTERM presses: a Debian guest shuts itself down as it does on any computer.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

with_script button.initrd <<'END'
echo "button: $(cat /proc/bus/input/devices | grep -c 'Name="Power Button"')"
until systemctl is-active --quiet systemd-logind; do sleep 1; done
echo "button: ready"
END
start button memory.size=1G "boot.kernel=$BZIMAGE" boot.initrd=button.initrd \
    device.root.model=virtio-blk "device.root.path=$ROOTFS" "$(cmdline root=/dev/vda)"
await button '^button: ready'
kill -TERM "$vmm_pid"
finish button
[ "$status" = 0 ] || fail "parador ended with $status"
says button '^button: 1'
says button 'reboot: Power down'
