# bhyve(8), EXAMPLES: a disk image, and a serial port for the console.
bhyve -c 2 -s 0,hostbridge -s 1,lpc -s 2,virtio-blk,/my/image \
  -l com1,stdio -H -P -m 1G vm1
