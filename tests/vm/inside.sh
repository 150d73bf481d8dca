#!/bin/sh
# Process 1 of the virtual machine, in the host's root: what any Linux system has mounted, cgroup v2 alone among it;
# then the command, whose exit status goes to the host.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666,gid=5 devpts /dev/pts
for directory in /dev/shm /run /tmp /var/lib/pysup /mnt; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=1777 tmpfs "$directory"
done
mount -t 9p -o trans=virtio,version=9p2000.L exchange /mnt
. /mnt/settings # kernel, project
mkdir -p /lib/modules
mount --bind "$kernel/lib/modules" /lib/modules
ip link set lo up
# A session with a terminal of its own, as pytest's tests of terminals expect to be able to have one.
cd "$project" || exit
setsid -c /bin/sh /mnt/command
echo $? >/mnt/status
sync
busybox reboot -f
