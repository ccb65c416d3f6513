# Eight processors are online in the guest, and are where the topology says. (One is in `boot`, two in
# `reboot`, 32 in `many-cpus`.)
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

boot topology sockets=2 cores=2 threads=2 memory.size=512M <<'END'
ids() { cat /sys/devices/system/cpu/cpu*/topology/"$1" | sort -u | wc -l; }
same "processors" "$(nproc)" 8
same "online" "$(grep -c ^processor /proc/cpuinfo)" 8
same "packages" "$(ids physical_package_id)" 2
same "cores" "$(ids core_cpus_list)" 4
END
