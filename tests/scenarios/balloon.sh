# Memory goes back to the host, measured there: what the balloon takes, and what the guest reports
# to be free.
#
# needs: bzimage initramfs
# memory: 2048
. "$LAB/lib.sh"

# resident: the MiB of this machine's memory that the started guest's process takes.
resident() { awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$vmm_pid/status"; }

# settles NAME OPERATOR MIB: waits until that is true of resident.
settles() {
    local left=$LIMIT
    until [ "$(resident)" "$2" "$3" ]; do
        { [ "$left" -gt 0 ] && kill -0 "$vmm_pid"; } || fail "$1: $(resident) MiB are resident, not $2 $3"
        left=$((left - 1))
        sleep 1
    done
    echo "$1: $(resident) MiB resident"
}

# The guest does what is typed and says when.
with_script balloon.initrd <<'END'
echo "ready"
while read -r line; do eval "$line"; done
END

# All of it is the guest's when it starts; half goes into the balloon.
start inflate memory.size=320M memory.prefault=true \
    device.b.model=virtio-balloon device.b.size=160M device.b.free_page_reporting=false \
    "boot.kernel=$BZIMAGE" boot.initrd=balloon.initrd "$(cmdline)"
settles "before it inflates" -ge 320
settles "inflated" -le 200
await inflate '^ready'
echo 'echo "alive $((6 * 7))"; exit' >&9
finish inflate
[ "$status" = 0 ] || fail "parador ended with $status"
says inflate '^alive 42'

# Nothing is asked for; what is free comes back by itself.
start report memory.size=320M memory.thp=false device.b.model=virtio-balloon \
    "boot.kernel=$BZIMAGE" boot.initrd=balloon.initrd "$(cmdline)"
await report '^ready'
echo 'dd if=/dev/zero of=/tmp/file bs=1M count=96 2>/dev/null; echo "filled $((6 * 8))"' >&9
await report '^filled 48'
full=$(resident)
echo "filled: $full MiB resident"
[ "$full" -ge 96 ] || fail "the file is nowhere"
echo 'rm /tmp/file; echo "freed $((6 * 9))"' >&9
await report '^freed 54'
settles "reported" -le $((full - 72))
# And it is memory again when it is used.
echo 'dd if=/dev/zero of=/tmp/file bs=1M count=96 2>/dev/null; echo "again $(md5sum </tmp/file)"; exit' >&9
finish report
[ "$status" = 0 ] || fail "parador ended with $status"
says report "^again $(dd if=/dev/zero bs=1M count=96 2>/dev/null | md5sum)"
