# A reboot inside the guest comes back, in the same process; or ends it with status 3 when asked to.
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

truncate -s 1M note.img
disk="device.note.model=virtio-blk device.note.path=note.img device.note.ser=note"

# shellcheck disable=SC2086
boot reboot memory.size=512M cpus=2 $disk <<'END'
note=$(disk note)
case $(head -c 4 "$note") in
once) same "second boot" "$(nproc)" 2 ;;
*)
    echo "first boot"
    printf once | dd of="$note" conv=notrunc,fsync 2>/dev/null
    reboot -f
    sleep 60
    ;;
esac
END
says reboot '^first boot'
says reboot '^second boot'

with_script stop.initrd <<'END'
reboot -f
sleep 60
END
vmm stop memory.size=512M on_reset=stop "boot.kernel=$BZIMAGE" boot.initrd=stop.initrd "$(cmdline)"
[ "$status" = 3 ] || fail "on_reset=stop ended with $status"
