# Little memory and much (more than fits below the hole under 4 GiB, nearly all that this machine has) are
# all seen by the guest.
#
# needs: bzimage initramfs
# memory: 7168
# timeout: 1800
. "$LAB/lib.sh"

# What the kernel keeps for itself is less than a tenth.
host=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
for mib in 512 6144 $((host - 64)); do
    boot "memory-$mib" memory.size=${mib}M <<END
total=\$(awk '/^MemTotal:/ { print int(\$2 / 1024) }' /proc/meminfo)
echo "total: \$total MiB of $mib"
[ "\$total" -gt $((mib * 9 / 10)) ] && [ "\$total" -le $mib ] || fail "\$total MiB"
END
done

# Memory that is shared with other processes is memory all the same.
boot shared memory.size=512M memory.backing=memfd memory.shared=true <<'END'
dd if=/dev/zero of=/tmp/file bs=1M count=128 2>/dev/null
same "sum" "$(md5sum </tmp/file | cut -c1-32)" "$(dd if=/dev/zero bs=1M count=128 2>/dev/null | md5sum | cut -c1-32)"
END
