# Three mistakes.
qemu-system-x86_64 -device virtio-blk-pci,drive=hd0 \
  -netdev '{"type":"tap"' -set x
