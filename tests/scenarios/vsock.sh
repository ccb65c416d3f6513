# vsock carries data both ways: out of the guest to the UNIX socket of a port, and into it by
# `CONNECT port`. What one side has finished sending ends for the other, which still answers.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

debian true
head -c 20000000 /dev/urandom >into
sum=$(md5sum <into)

# The host's end of port 5000 answers with the sum of what it is sent.
debian socat -t 300 UNIX-LISTEN:/mnt/v.sock_5000 EXEC:md5sum &

# CONNECT PORT INPUT: the answer to the file from the guest's port; nothing where nobody listens.
connect() {
    { echo "CONNECT $1"; cat "$2"; } | debian socat -t 300 - UNIX-CONNECT:/mnt/v.sock 2>/dev/null
}

# From the host: again until the guest listens.
{
    left=$LIMIT
    until connect 1024 into >answer && grep -q '^OK [0-9]' answer || [ "$left" = 0 ]; do
        left=$((left - 1))
        sleep 1
    done
    connect 1025 into >refused || true
    connect 1026 /dev/null >goodbye || true
} &

boot vsock memory.size=512M cpus=2 \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.vsock.model=virtio-vsock device.vsock.cid=42 device.vsock.socket=v.sock <<'END'
head -c 20000000 /dev/urandom >/tmp/out
same "from the guest" "$(debian socat -t 300 - VSOCK-CONNECT:2:5000 </tmp/out)" "$(md5sum </tmp/out)"
! debian socat - VSOCK-CONNECT:2:5001 </dev/null 2>/tmp/refused || fail "connected to a port without a socket"
grep -q reset /tmp/refused || fail "$(cat /tmp/refused)"

debian socat -t 300 VSOCK-LISTEN:1026 SYSTEM:'cat; echo goodbye' &
debian socat -t 300 VSOCK-LISTEN:1024 EXEC:md5sum
wait
END
wait

# The guest's own port is in the answer to CONNECT.
same "from the host" "$(sed 1d answer)" "$sum"
same "where nobody listens" "$(cat refused)" ""
same "a last word" "$(sed 1d goodbye)" "goodbye"
