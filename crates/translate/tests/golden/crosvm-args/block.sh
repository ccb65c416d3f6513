# The pages on block devices and on the root file system.
crosvm run \
  --block disk.img,ro,sparse=false,o_direct=true,block_size=4096,id=MYSERIALNO \
  --block path=root.ext4,root \
  vmlinux
