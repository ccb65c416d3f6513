# What comes later counts, files included; the name counts most.
bhyve -o cpus=1 -k inc/shared.keys -m 2G -o memory.size=3G -s 3,virtio-rnd vm
