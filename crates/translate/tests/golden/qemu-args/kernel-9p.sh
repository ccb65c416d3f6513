# For kernel developers: the host's own root, over 9P, and gdb.
kvm \
-kernel arch/x86/boot/bzImage \
-smp 4 \
-m 2G \
-nographic -no-reboot -s -S \
-fsdev local,security_model=none,id=fsdev-root,path=/,readonly \
-device virtio-9p-pci,id=fs-root,fsdev=fsdev-root,mount_tag=/dev/root \
-virtfs local,path=/src,mount_tag=src,security_model=mapped,id=src \
-serial mon:stdio \
-append "console=ttyS0 nokaslr root=/dev/root ro rootflags=trans=virtio,version=9p2000.u rootfstype=9p lsm= init=/bin/bash"
