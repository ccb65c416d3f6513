# Memory of huge pages that were set aside: a guest has it, and gives it back; too few of them are told of.
#
# needs: bzimage initramfs
# memory: 2560
. "$LAB/lib.sh"

pages=/sys/kernel/mm/hugepages/hugepages-2048kB
had=$(cat $pages/nr_hugepages)
trap 'echo "$had" >$pages/nr_hugepages' EXIT
echo $((had + 128)) >$pages/nr_hugepages
free=$(cat $pages/free_hugepages)
[ "$free" -ge 128 ] || fail "this machine gave $free huge pages"
for shared in false true; do
    boot "hugetlb-shared-$shared" memory.size=256M memory.backing=hugetlb memory.shared=$shared <<'END'
dd if=/dev/zero of=/tmp/file bs=1M count=40 2>/dev/null
same "sum" "$(md5sum </tmp/file | cut -c1-32)" "$(dd if=/dev/zero bs=1M count=40 2>/dev/null | md5sum | cut -c1-32)"
END
    same "free huge pages" "$(cat $pages/free_hugepages)" "$free"
done

echo 127 >$pages/nr_hugepages
vmm missing memory.size=256M memory.backing=hugetlb "boot.kernel=$BZIMAGE"
same "status without the pages" "$status" 1
says missing 'hint: .*nr_hugepages'
