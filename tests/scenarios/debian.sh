# Debian with systemd from its own disk: reaches a login with no failed unit, and powers off cleanly when the
# power button is pressed, which SIGTERM does.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

with_script debian.initrd <<'END'
. /etc/os-release
echo "debian: $ID $VERSION_CODENAME, $(uname -r)"
echo "debian: init is $(cat /proc/1/comm)"
echo "debian: $(systemctl is-system-running --wait)"
systemctl list-units --no-legend --state=failed | sed 's/^/debian: failed unit: /'
findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS / | sed 's/^/debian: root /'
# A login shell appears on the serial console on its own.
for _ in $(seq 60); do
    ! pgrep -t ttyS0 bash >/dev/null || break
    sleep 1
done
pgrep -t ttyS0 bash >/dev/null && echo "debian: logged in"
# Who hears of the button.
for _ in $(seq 200); do
    ! journalctl --unit=systemd-logind | grep -q 'Watching system buttons' || break
    sleep 1
done
touch /var/lib/was-here && sync
echo "debian: logind is $(systemctl is-active systemd-logind)"
END
# systemd gives a device 90 seconds to show up, which a guest of an emulated machine may need.
start debian memory.size=1G cpus=2 "boot.kernel=$BZIMAGE" boot.initrd=debian.initrd \
    device.root.model=virtio-blk "device.root.path=$ROOTFS" "$(cmdline root=/dev/vda systemd.default_device_timeout_sec=600)"
await debian 'debian: logind is active'
kill -TERM "$vmm_pid"
finish debian
[ "$status" = 0 ] || fail "parador ended with $status"
says debian 'debian: init is systemd'
says debian 'debian: running'
says debian 'debian: root /dev/vda'
says debian 'debian: logged in'
! grep 'failed unit' debian.log || fail "a unit failed"

# Powered off cleanly: what was written is there, and the journal has nothing to replay.
mkdir mnt
mount -t ext4 -o ro,noload "$ROOTFS" mnt
[ -e mnt/var/lib/was-here ] || fail "the disk lost a file"
umount mnt
clean "$ROOTFS"
