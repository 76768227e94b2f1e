#!/bin/busybox sh
# The first process of the machine: makes what programs expect, runs the test this machine was booted for, and turns it off.
# HANDOVER_GUEST comes from the command line of the kernel.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ip link set lo up
cd /
/guest "$HANDOVER_GUEST" --nocapture --test-threads 1
# qemu is told to end instead.
reboot -f
