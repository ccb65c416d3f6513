# As the Arch wiki puts it together: UEFI, a TAP interface, virtio, a TPM, VNC.
qemu-system-x86_64 -enable-kvm -cpu host,kvm=off,hv_relaxed,hv_vapic -machine q35,vmport=off \
  -smp cores=4,threads=2,sockets=1 -m 8G -mem-prealloc \
  -drive if=pflash,format=raw,readonly=on,file=/usr/share/edk2/x64/OVMF_CODE.4m.fd \
  -drive if=pflash,format=raw,file=/vm/my_uefi_vars.4m.fd \
  -drive file=/vm/disk_image,if=none,id=hd0,format=raw,cache=none,aio=native,discard=unmap \
  -device virtio-blk-pci,drive=hd0,bootindex=0,iothread=io1 -object iothread,id=io1 \
  -drive file=/dev/disk/by-id/ata-x,,y,format=raw,media=disk,if=virtio,readonly=on \
  -netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=on,queues=4 \
  -device virtio-net-pci,netdev=net0,mac=52:54:98:76:54:32,mq=on,vectors=10 \
  -chardev socket,id=chrtpm,path=/tmp/emulated_tpm/swtpm-sock \
  -tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis,tpmdev=tpm0 \
  -device qemu-xhci,id=xhci -device usb-tablet,bus=xhci.0 -device usb-host,bus=xhci.0,vendorid=0x1234,productid=0x5678 \
  -device VGA -vnc 127.0.0.1:2 -k de \
  -device vfio-pci,host=01:00.0,romfile=/vm/vbios.rom \
  -rtc base=localtime,driftfix=slew -monitor stdio -serial file:/vm/com1.log
