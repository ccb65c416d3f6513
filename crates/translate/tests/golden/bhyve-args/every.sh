# Every model and option of bhyve(8), each as its text says.
bhyve -AaxCDeHIMPSuWwY -c cpus=4,sockets=1,cores=2,threads=2 -m2048 -G w127.0.0.1:1234 -K us_unix \
  -U 12345678-9abc-4def-8123-456789abcdef -f opt/org.example/hello,string=world \
  -s 0,hostbridge,pcireg.vendor=0x8086 -s 3,nvme,ram=64,maxq=4 -s 4:0,nvme,/dev/zvol/zroot/a,ser=N1,dsm=enable \
  -s 4:1,virtio-blk,/b.img,nocache,direct,sectorsize=512/4096,bootindex=1 \
  -s 5,virtio-scsi,/dev/cam/ctl2.3,iid=3 -s 6,virtio-9p,share=/export,ro -s 7,virtio-rnd \
  -s 8,virtio-console,port1=/tmp/port1.sock,port2=/tmp/port2.sock -s 9,virtio-input,/dev/input/event0 \
  -s 10,e1000,vale0:1,mac=58:9c:fc:00:00:01 -s 11,virtio-net,netgraph,path=switch:,peerhook=link2,mtu=9000 \
  -s 12,virtio-net,slirp,'hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22' -s 13:0,passthru,ppt0 \
  -s 13:1,passthru,4/0/1,rom=/boot/vbios.rom -s 14,hda,play=/dev/dsp0,rec=/dev/dsp0 -s 15,uart,/dev/nmdm1A \
  -s 1:2:3,virtio-net,vmnet0 -s 31,lpc,pcireg.revid=2 -l com1,stdio -l com2,/dev/nmdm2A -l pc-testdev \
  -l fwcfg,qemu -l tpm,swtpm,/tmp/tpm.sock,version=2.0 -o system.manufacturer='Some Maker' \
  -o pci.0.4.1.path=/c,d.img -o my.own=1 -r /tmp/snapshot all
