# 32 processors are online in the guest, and are where the topology says.
#
# They come one after the other, when the guest has its own clock (maxcpus=1, then as a user would): on the
# one emulated processor of the lab, the ticks of many while Linux still starts leave it no time to start.
#
# needs: bzimage initramfs
# timeout: 2400
. "$LAB/lib.sh"

LIMIT=2000
boot many sockets=2 cores=8 threads=2 memory.size=512M "$(cmdline maxcpus=1)" <<'END'
same "present" "$(cat /sys/devices/system/cpu/present)" 0-31
for online in /sys/devices/system/cpu/cpu*/online; do
    [ "$(cat "$online")" = 1 ] || echo 1 >"$online"
done
ids() { cat /sys/devices/system/cpu/cpu*/topology/"$1" | sort -u | wc -l; }
same "processors" "$(nproc)" 32
same "online" "$(cat /sys/devices/system/cpu/online)" 0-31
same "packages" "$(ids physical_package_id)" 2
same "cores" "$(ids core_cpus_list)" 16
# Each runs something.
for cpu in $(seq 0 31); do
    same "runs on" "$(taskset -c "$cpu" cut -d' ' -f39 /proc/self/stat)" "$cpu"
done
END
