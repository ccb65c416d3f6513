# tools/examples/example_network of the book, with the names of one Ubuntu image.
crosvm run \
    --rwdisk ./rootfs \
    --initrd ./initrd.img-5.4.0-58-generic \
    --net tap-name=crosvm_tap \
    -p "root=/dev/vda5" \
    ./vmlinuz-5.4.0-58-generic
