# QEMU's documentation of -numa and -object, put together: two nodes of huge pages, and a hub of networks.
qemu-system-x86_64 -nodefaults -machine q35,accel=kvm -smp 4,maxcpus=8,sockets=2,cores=2 -m size=2G,slots=3,maxmem=8G \
  -object memory-backend-memfd,id=m0,size=1G,hugetlb=on,hugetlbsize=1G,share=off,host-nodes=0,policy=bind,prealloc=on \
  -object memory-backend-memfd,id=m1,size=1G,hugetlb=on,hugetlbsize=1G,share=off,host-nodes=1,policy=bind,prealloc=on \
  -numa node,nodeid=0,memdev=m0,cpus=0-1 -numa node,nodeid=1,memdev=m1,cpus=2,cpus=3,initiator=0 \
  -numa dist,src=0,dst=1,val=20 \
  -net nic,model=virtio -net tap,ifname=tap3 -net user \
  -nic bridge,br=br5,model=virtio-net-pci,mac=52:54:00:12:34:56 \
  -drive file=/vm/a.img,if=none,id=a,format=raw,snapshot=on -device nvme,drive=a,serial=deadbeef \
  -drive file=/vm/b.img,format=raw,if=none,id=b -device nvme,drive=b,serial=cafe,addr=0x1e.7 \
  -device virtio-balloon,free-page-reporting=on -device virtio-rng-pci,max-bytes=1024,period=1000 \
  -action panic=none -device pvpanic -serial unix:/run/vm/com1,server,nowait -serial pty -no-shutdown
