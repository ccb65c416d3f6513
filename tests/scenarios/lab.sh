# The lab itself: KVM is there, works as root and as the scenario needs it.

. "$LAB/lib.sh"

[ -c /dev/kvm ] || fail "no /dev/kvm"
grep -qwE 'svm|vmx' /proc/cpuinfo || fail "the processor has no virtualization"
[ -c /dev/net/tun ] || fail "no /dev/net/tun"
[ -x "$PARADOR" ] || fail "no parador"
touch "$WORK/written"
echo "kernel $(uname -r), $(nproc) processors"
