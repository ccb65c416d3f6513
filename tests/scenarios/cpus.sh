# 1, 2 and 8 processors are all online in the guest, and are where the topology says.
#
# needs: bzimage initramfs
. "$LAB/lib.sh"

for count in 1 2 8; do
    boot "cpus-$count" cpus=$count memory.size=512M <<END
same "processors" "\$(nproc)" $count
same "online" "\$(grep -c ^processor /proc/cpuinfo)" $count
END
done

boot topology sockets=2 cores=2 threads=2 memory.size=512M <<'END'
ids() { cat /sys/devices/system/cpu/cpu*/topology/"$1" | sort -u | wc -l; }
same "processors" "$(nproc)" 8
same "packages" "$(ids physical_package_id)" 2
same "cores" "$(ids core_cpus_list)" 4
END
