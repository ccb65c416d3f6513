cloud-hypervisor --kernel vmlinux --cpus boot=many,topology=1:2,affinity=[0] \
    --memory size=lots,shared=maybe --disk path=a.raw,readonly=perhaps --net fd=x,mtu=big \
    --vsock cid=three,socket=/s
