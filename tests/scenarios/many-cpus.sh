# 32 processors are online in the guest, are where the topology says, and each runs something.
#
# needs: bzimage initramfs
# timeout: 2400
. "$LAB/lib.sh"

# On the one emulated processor of the lab they wait for each other while Linux starts.
LIMIT=2000
boot many sockets=2 cores=8 threads=2 memory.size=512M <<'END'
ids() { cat /sys/devices/system/cpu/cpu*/topology/"$1" | sort -u | wc -l; }
same "processors" "$(nproc)" 32
same "online" "$(cat /sys/devices/system/cpu/online)" 0-31
same "packages" "$(ids physical_package_id)" 2
same "cores" "$(ids core_cpus_list)" 16
for cpu in $(seq 0 31); do
    same "runs on" "$(taskset -c "$cpu" cut -d' ' -f39 /proc/self/stat)" "$cpu"
done
END
