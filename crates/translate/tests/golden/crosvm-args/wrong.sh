crosvm run --cpus lots --mem size=1G --block 'path="a.img' --block a.img,ro=maybe,pci-address=5 \
    --cpu-affinity 0=x --init-mem 9999999 vmlinux second --params
