# `parador run` boots a machine from a TOML file, with a disk and a network on a bridge: the interface has
# the name that the plan has, is on the bridge while the machine runs, and gone afterwards. A file that is
# said to be a device with zones is refused, with its place.
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

# This machine may have them built in.
modprobe -a bridge macvtap 2>/dev/null || true
ip link add br0 type bridge
ip addr add 192.0.2.1/24 dev br0
ip link set br0 up
trap 'ip link del br0' EXIT

printf 'from the host' >disk.img
truncate -s 64M disk.img
with_script run.initrd <<'END'
same "disk" "$(head -c 13 /dev/vda)" "from the host"
printf 'from the guest' | dd of=/dev/vda bs=1M seek=1 conv=fsync 2>/dev/null
same "address" "$(cat /sys/class/net/eth0/address)" 02:00:00:00:00:42
same "mtu" "$(cat /sys/class/net/eth0/mtu)" 1400
same "address of the macvtap" "$(cat /sys/class/net/eth1/address)" 02:00:00:00:00:43
ip link set eth1 up
ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up
ping -c 3 -w 60 192.0.2.1 >/tmp/ping || { cat /tmp/ping; fail "ping"; }
tail -n 2 /tmp/ping
echo "up"
read -r word
same "typed" "$word" "on"
END

cat >run.toml <<END
name = "a-web-server"
memory = "512M"
kernel = "$BZIMAGE"
initrd = "run.initrd"
cmdline = "console=ttyS0 panic=-1 quiet"
disk = ["disk.img"]

[[device]]
id = "lan"
model = "virtio-net"
mac = "02:00:00:00:00:42"
mtu = 1400
tap.bridge = "br0"

[[device]]
id = "wan"
model = "virtio-net"
mac = "02:00:00:00:00:43"
backend = "macvtap"
tap.name = "wan0"
tap.link = "br0"
END

ls /sys/class/net >before
"$PARADOR" run --dry-run run.toml >plan || fail "no plan"
cat plan
tap=$(sed -n 's/^  \(.*\)  TAP, .*, joins bridge br0.*/\1/p' plan)
[ -n "$tap" ] || fail "the plan has no interface"
ls /sys/class/net >after
cmp before after || fail "the plan made an interface"
"$PARADOR" run --dry-run=host run.toml >host || { cat host; fail "this host cannot do it"; }

rm -f run.in
mkfifo run.in
: >run.log
"$PARADOR" run run.toml <run.in >run.log 2>&1 9>&- &
vmm_pid=$!
exec 9>run.in
await run '^up'
same "bridge of $tap" "$(basename "$(readlink "/sys/class/net/$tap/master")")" br0
same "mtu of $tap" "$(cat "/sys/class/net/$tap/mtu")" 1400
[ -c "/dev/tap$(cat /sys/class/net/wan0/ifindex)" ] || fail "there is no macvtap interface"
same "interfaces" "$(ls /sys/class/net | wc -l)" $(($(wc -l <before) + 2))
echo on >&9
finish run
same "status" "$status" 0
says run '^guest: exit 0'
ls /sys/class/net >after
cmp before after || fail "an interface is left"
same "disk" "$(dd if=disk.img bs=1M skip=1 count=1 2>/dev/null | head -c 14)" "from the guest"

# The same, killed: its TAP interface is not left either. (Who runs it removes the macvtap one.)
"$PARADOR" run run.toml </dev/null >killed.log 2>&1 &
vmm_pid=$!
until [ -e "/sys/class/net/$tap/master" ]; do sleep 0.1; done
kill -9 $vmm_pid
left=100
while [ -e "/sys/class/net/$tap" ] && [ $left -gt 0 ]; do sleep 0.2; left=$((left - 1)); done
[ $left -gt 0 ] || fail "$tap is left"
echo "killed: $tap is gone"

sed 's/^disk = .*/disk = [{ path = "disk.img", zoned = "passthrough" }]/' run.toml >zoned.toml
status=0
"$PARADOR" run zoned.toml </dev/null >zoned.log 2>&1 || status=$?
cat zoned.log
same "status of a file as a device with zones" "$status" 1
grep -q -e '--> zoned.toml:6:' zoned.log || fail "it does not say where"
grep -q 'it is no block device' zoned.log || fail "it does not say what"
