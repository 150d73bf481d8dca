#!/bin/busybox sh
# The first process of the virtual machine, from its initramfs: loads what mounting the host's root takes, lays a tmpfs
# over it, and goes there.
set -eu
/bin/busybox --install -s /bin
while read -r module; do insmod "/modules/$module"; done </modules/order
# Nobody changes what is below while the machine runs (overlayfs demands it of a lower layer), so it may be cached.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /lower
mount -t tmpfs -o size=80% tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work overlay /merged
read -r inside </inside
exec switch_root /merged /bin/sh "$inside"
