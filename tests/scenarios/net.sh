# A TAP interface carries 100 MB each way between guest and host, on two queue pairs, in large
# segments and merged receive buffers, and nothing is lost or changed.
#
# needs: bzimage initramfs rootfs
. "$LAB/lib.sh"

TAP=lab-tap0
debian true
mkdir -p debian/dev/net
mknod -m 666 debian/dev/net/tun c 10 200
# As parador's own hint says.
debian ip tuntap add "$TAP" mode tap vnet_hdr multi_queue
trap 'ip link set "$TAP" down; debian ip tuntap del "$TAP" mode tap multi_queue' EXIT
ip addr add 192.0.2.1/24 dev "$TAP"
ip link set "$TAP" up

# 100 numbered parts of 1 MB: whatever is lost, doubled or in the wrong place changes the sum.
head -c 1000000 /dev/urandom >part
stream() { for number in $(seq 100); do echo "part $number" && cat part; done; }
stream | md5sum >sum

with_script net.initrd part sum <<'END'
# feature BIT NAME: it is in use.
feature() {
    same "$2" "$(cut -c $(($1 + 1)) /sys/class/net/eth0/device/features)" 1
}
feature 0 "checksums of the guest's packets"
feature 7 "large segments to the guest"
feature 11 "large segments from the guest"
feature 15 "merged receive buffers"
feature 22 "several queues"
cd /sys/class/net/eth0
same "queues" "$(echo queues/*)" "queues/rx-0 queues/rx-1 queues/tx-0 queues/tx-1"
same "address" "$(cat address)" 02:00:00:00:00:42
same "mtu" "$(cat mtu)" 1500

ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up
ping -c 3 -i 0.2 -s 1400 192.0.2.1 >/tmp/ping || { cat /tmp/ping; fail "ping"; }
tail -n 2 /tmp/ping

tcp() { debian socat -u "$@"; }
for number in $(seq 100); do echo "part $number" && cat /part; done | tcp - TCP:192.0.2.1:5001
echo "sent"
same "to the guest" "$(tcp TCP:192.0.2.1:5002 - | md5sum)" "$(cat /sum)"
END

debian socat -u TCP-LISTEN:5001 - | md5sum >received &
stream | debian socat -u - TCP-LISTEN:5002 &
# A listener that is not there yet refuses the guest.
listening() { netstat -ltn | grep -q ":$1 "; }
left=$((LIMIT * 10))
until listening 5001 && listening 5002; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "nobody listens on this side"
    sleep 0.1
done
vmm net memory.size=512M cpus=2 "boot.kernel=$BZIMAGE" boot.initrd=net.initrd "$(cmdline)" \
    device.debian.model=virtio-blk "device.debian.path=$ROOTFS" device.debian.ro=true device.debian.ser=debian \
    device.net.model=virtio-net device.net.tap.name="$TAP" device.net.queues=2 device.net.mac=02:00:00:00:00:42
[ "$status" = 0 ] || fail "parador ended with $status"
says net '^guest: exit 0'
wait
same "from the guest" "$(cat received)" "$(cat sum)"

# Packets of more than the wire's 1500 bytes: one, and not a packet for each of its segments, passed.
for way in rx tx; do
    bytes=$(cat "/sys/class/net/$TAP/statistics/${way}_bytes")
    packets=$(cat "/sys/class/net/$TAP/statistics/${way}_packets")
    # The way back has acknowledgements, of which there are as many at most.
    echo "$TAP $way: $bytes bytes in $packets packets"
    [ $((bytes / packets)) -gt 1500 ] || fail "$way: no large segments"
done
