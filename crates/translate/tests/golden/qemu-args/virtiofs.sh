# virtiofsd's documentation, and QEMU's of vhost-user.
qemu-system-x86_64 -M pc -cpu host --enable-kvm -smp 2 \
     -m 4G -object memory-backend-file,id=mem,size=4G,mem-path=/dev/shm,share=on -numa node,memdev=mem \
     -chardev socket,id=char0,path=/tmp/vhostqemu -device vhost-user-fs-pci,queue-size=1024,chardev=char0,tag=myfs \
     -chardev socket,id=char1,path=/tmp/vhost-user-blk.sock -device vhost-user-blk-pci,num-queues=4,chardev=char1 \
     -chardev socket,id=char2,path=/tmp/vhost-user-net.sock -netdev type=vhost-user,id=mynet1,chardev=char2,vhostforce=on,queues=2 \
     -device virtio-net-pci,netdev=mynet1,mq=on,mac=52:54:00:02:d9:01 \
     -chardev stdio,mux=on,id=mon -mon chardev=mon,mode=readline -device virtio-serial-pci -device virtconsole,chardev=mon \
     -vga none -display none
