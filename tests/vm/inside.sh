#!/bin/sh
# Process 1 of the virtual machine, in the host's root: what any Linux system has mounted, cgroup v2 alone among it;
# then the command, whose exit status goes to the host.
mkdir -p /.exchange /.project /lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L exchange /.exchange
. /.exchange/settings # kernel, project
mount --bind "$project" /.project
mount --bind "$kernel/lib/modules" /lib/modules
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666,gid=5 devpts /dev/pts
for directory in /dev/shm /run /tmp /var/tmp /var/lib/pysup; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=1777 tmpfs "$directory"
done
if [ ! -e "$project/Makefile" ]; then # it was in one of these
    mkdir -p "$project"
    mount --bind /.project "$project"
fi
ip link set lo up
# A session with a terminal of its own, as pytest's tests of terminals expect to be able to have one.
cd "$project" && setsid -c /bin/sh /.exchange/command
echo $? >/.exchange/status
sync
busybox reboot -f
