crosvm run --disable-sandbox -s /run/crosvm.sock --cpus num-cores=4,clusters=[[0,1],[2,3]] \
  --mem 4096 --init-mem 3072 --balloon-page-reporting --hugepages --no-rng --cpu-affinity 0=1,2:1=3-5 \
  --block "path=\"/vm/a,b.img\",async-executor=uring,pci-address=00:05.0,packed-queue" \
  --net tap-fd=7,mac=02:00:00:00:00:01,vq-pairs=2,vhost-net --vsock 3 \
  --serial type=stdout,hardware=virtio-console,num=1,console,stdin \
  --serial type=file,path=/var/log/com1,hardware=serial,num=1 --serial type=syslog,hardware=debugcon \
  --vhost-user fs,socket=/run/fs.sock --vhost-user block,socket=/run/blk.sock --vhost-user type=gpu,socket=/run/gpu.sock \
  --vfio /sys/bus/pci/devices/0000:01:00.0,iommu=viommu --shared-dir "/:mtdfake:type=fs:cache=always" \
  --smbios uuid=6f9f3ab6-8d66-4a6b-a1ad-a4b6e6e2f5b1,oem-strings=[a,b] --bios /vm/bios.bin --pflash path=/vm/vars,block-size=4096 \
  --params "quiet root=/dev/vda" --params rw
