# Much memory (more than fits below the hole under 4 GiB, and shared with other processes; nearly all that
# this machine has) is all seen by the guest. (Little is in `boot`.)
#
# needs: bzimage initramfs
# memory: 7168
# timeout: 1800
. "$LAB/lib.sh"

# seen MIB KEY=VALUE...: what the kernel keeps for itself is less than a tenth, and the rest is memory.
seen() {
    local mib=$1
    shift
    boot "memory-$mib" memory.size="${mib}M" "$@" <<END
total=\$(awk '/^MemTotal:/ { print int(\$2 / 1024) }' /proc/meminfo)
echo "total: \$total MiB of $mib"
[ "\$total" -gt $((mib * 9 / 10)) ] && [ "\$total" -le $mib ] || fail "\$total MiB"
dd if=/dev/zero of=/tmp/file bs=1M count=64 2>/dev/null
same "sum" "\$(md5sum </tmp/file | cut -c1-32)" "$(dd if=/dev/zero bs=1M count=64 2>/dev/null | md5sum | cut -c1-32)"
END
}

seen 6144 memory.backing=memfd memory.shared=true
seen $(($(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo) - 64))
