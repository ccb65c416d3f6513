# bhyve(8), EXAMPLES: two NUMA domains; and processors pinned, as in the text on -p.
bhyve -c 4 -w -H \
  -s 0,hostbridge \
  -s 4,ahci-hd,disk.img \
  -s 31,lpc -l com1,stdio \
  -l bootrom,/usr/local/share/uefi-firmware/BHYVE_UEFI.fd \
  -n id=0,size=4G,cpus=0-1 \
  -n id=1,size=4G,cpus=2-3,domain_policy=prefer:0 \
  -p 0:12 -p 1:13 -p 2:14 -p 3:15 -p 3:16 \
   numavm
