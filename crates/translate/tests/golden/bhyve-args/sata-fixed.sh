# The same, with the controller in a slot of its own.
bhyve -c 4 \
  -s 0,amd_hostbridge -s 1,lpc \
  -s 2:0,ahci,hd:/images/disk.1,hd:/images/disk.2,nmrr=1,\
hd:/images/disk.3,cd:/images/install.iso \
  -s 3,virtio-net,tap0 \
  -l com1,/dev/nmdm0A \
  -H -P -m 8G sata
