# NUMA domains: the guest finds the processors and the memory of each where the keys put them.
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

boot numa cpus=4 memory.size=768M domains.0.size=256M domains.0.cpus=0,2 \
    domains.1.size=512M domains.1.cpus=1,3 <<'END'
cd /sys/devices/system/node
same "nodes" "$(cat online)" 0-1
same "processors of node 0" "$(cat node0/cpulist)" 0,2
same "processors of node 1" "$(cat node1/cpulist)" 1,3
total() { awk '/MemTotal:/ { print int($4 / 1024) }' "node$1/meminfo"; }
echo "memory: $(total 0) and $(total 1) MiB"
[ "$(total 0)" -gt 150 ] && [ "$(total 0)" -le 256 ] || fail "node 0"
[ "$(total 1)" -gt 450 ] && [ "$(total 1)" -le 512 ] || fail "node 1"
END
