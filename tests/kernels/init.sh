#!/bin/busybox sh
# The first process of the machine: mounts the file systems that programs expect, runs the test for which the machine was
# booted, and turns the machine off. HANDOVER_GUEST comes from the command line of the kernel.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ip link set lo up
cd /
/guest "$HANDOVER_GUEST" --nocapture --test-threads 1
# qemu runs with -no-reboot, so it exits instead of rebooting.
reboot -f
