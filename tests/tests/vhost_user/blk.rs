//! A disk: data, and what happens to a device besides.

use anyhow::ensure;

use crate::backend::Backend;
use crate::bench::Bench;
use crate::guest::Setup;

/// What the guest does each time it starts; what it did before is written in the disk's first block.
const SCRIPT: &str = r#"
data=$(disk data)
name=${data#/dev/}
read_back() { dd if="$data" bs=1M skip=1 count=8 iflag=direct 2>/dev/null | md5sum | cut -d' ' -f1; }
left() { dd if="$data" bs=64k skip="$1" count=16 iflag=direct 2>/dev/null | tr -d '\0' | wc -c; }
became() { echo "$1 $(read_back)" | dd of="$data" bs=512 conv=sync,fsync 2>/dev/null; }
set -- $(dd if="$data" bs=512 count=1 2>/dev/null | tr -d '\0') none

[ "$1" = none ] || same "what is left after $1" "$(read_back)" "$2"
case $1 in
none)
    same "size" "$(blockdev --getsize64 "$data")" 67108864
    same "queues" "$(ls "/sys/block/$name/mq" | wc -l)" 4
    same "cache" "$(cat "/sys/block/$name/queue/write_cache")" "write back"
    verify "$data" --numjobs=4 --offset=16m --size=4m --offset_increment=8m
    echo "verified"

    # The 64 KiB blocks 256 and up are the first MiB that fio wrote to.
    [ "$(left 256)" -gt 0 ] || fail "fio wrote nothing"
    debian /usr/sbin/blkdiscard --offset 16777216 --length 1048576 "$data"
    same "bytes after a discard" "$(left 256)" 0
    [ "$(left 384)" -gt 0 ] || fail "fio wrote nothing"
    debian /usr/sbin/blkdiscard --zeroout --offset 25165824 --length 1048576 "$data"
    same "bytes after zeroes" "$(left 384)" 0

    dd if=/dev/urandom of="$data" bs=1M seek=1 count=8 oflag=direct conv=fsync 2>/dev/null
    sum=$(read_back)
    device=$(basename "$(readlink "/sys/block/$name/device")")
    for number in 1 2 3; do
        echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
        [ ! -e "$data" ] || fail "the disk has a driver"
        echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
        same "after driver $number" "$(read_back)" "$sum"
    done
    became reboot
    reboot -f
    ;;
reboot)
    became reset
    # A machine that is reset has no time to finish what its disk does.
    echo "ready"
    while true; do verify "$data" --offset=16m --size=16m; done
    ;;
reset)
    verify "$data" --offset=16m --size=8m
    ;;
esac
"#;

#[test]
fn a_disk_has_its_data_after_resets_reboots_and_drivers() {
    Bench::run(|bench| {
        let image = bench.image("data.img", 64)?;
        let backend = Backend::disk(bench, "blk", &image, &["queues=4"])?;
        let disk = ["-device", "vhost-user-blk-pci,num-queues=4,chardev=END"];
        let setup = Setup::new("guest", SCRIPT).with(&["-smp", "4"]).device(backend.socket(), &disk);
        let mut guest = setup.start(bench)?;
        guest.says("verified")?;
        guest.says("bytes after zeroes")?;
        guest.says("after driver 3")?;
        guest.says("what is left after reboot")?;
        guest.says("ready")?;
        guest.ask("system_reset")?;
        guest.says("what is left after reset")?;
        let said = guest.finish()?;
        ensure!(!said.contains("I/O error"), "the guest's driver complains");
        backend.end()
    });
}
