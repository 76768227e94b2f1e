#!/bin/sh
# Turns the namespaces in which it is started into a machine with systemd as process 1, which knows only the units in $SHARE.
# CGROUP: a cgroup for the machine. SYSTEMD: an unpacked version of systemd, or empty. HANDOVER: the program under test.
set -eu
if [ "${1-}" != inside ]; then
    echo 0 >"$CGROUP/cgroup.procs"
    exec unshare --cgroup -- sh "$0" inside
fi

mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$SHARE" /mnt

cd /
if [ -n "$SYSTEMD" ]; then
    for part in usr/lib/systemd usr/lib/*-linux-gnu/systemd usr/bin/systemctl; do
        [ ! -e "/$part" ] || mount --bind "$SYSTEMD/$part" "/$part"
    done
fi

# The writable folders are private to this machine.
mount -t tmpfs tmpfs /usr/local/bin
cp "$HANDOVER" /usr/local/bin/handover
mkdir /mnt/etc
cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.c* /mnt/etc
echo 'handover:x:977:977::/nonexistent:/usr/sbin/nologin' >>/mnt/etc/passwd
echo 'handover:x:977:' >>/mnt/etc/group
mkdir /mnt/etc/handover
mount --bind /mnt/etc /etc
for dir in run srv var tmp; do mount -t tmpfs tmpfs "/$dir"; done
mkdir /run/lock /var/lib /var/log /var/tmp /srv/www
printf 'generation=0 \n' >/srv/www/index.html
# Discards systemd's messages to the real console.
mount --bind /dev/null /dev/console

exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test SYSTEMD_LOG_TARGET=null \
    SYSTEMD_UNIT_PATH=/mnt/units SYSTEMD_GENERATOR_PATH=/mnt/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/mnt/none \
    /usr/lib/systemd/systemd --system --show-status=no
