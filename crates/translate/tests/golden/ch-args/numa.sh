# docs/memory.md and docs/cpu.md: nodes, zones, pinned processors; a few options that have no key.
cloud-hypervisor --api-socket /tmp/ch.sock -v \
    --cpus boot=8,topology=1:4:1:2,affinity=[0@[1,3],1@[4-7]] \
    --memory size=0,mergeable=on \
    --memory-zone id=mem0,size=1G,hugepages=on,hugepage_size=2M,host_numa_node=0 \
                  id=mem1,size=2G,hugepages=on,hugepage_size=2M \
    --numa guest_numa_id=0,cpus=[0-3],distances=[1@15],memory_zones=[mem0] \
           guest_numa_id=1,cpus=[4-7],distances=[0@15],memory_zones=[mem1] \
    --platform num_pci_segments=2,uuid=6f9f3ab6-8d66-4a6b-a1ad-a4b6e6e2f5b1 \
    --kernel /boot/vmlinux --initramfs /boot/initrd.img --cmdline console=hvc0 \
    --disk "path=\"/vm/a,b.raw\",id=root,direct=on,bw_size=1048576,bw_refill_time=1000" \
           path=/vm/c.qcow2,image_type=qcow2,readonly=on,iommu=on,pci_segment=1 \
           vhost_user=on,socket=/run/blk.sock,num_queues=4 \
    --net fd=[3],mac=12:34:56:78:90:ab,id=lan,num_queues=4 vhost_user=true,socket=/run/net.sock \
    --vsock cid=3,socket=/run/vsock --balloon size=256M,deflate_on_oom=on \
    --device path=/sys/bus/pci/devices/0000:01:00.0/ --pvpanic \
    --serial file=/var/log/serial.log --rng src=/dev/random
