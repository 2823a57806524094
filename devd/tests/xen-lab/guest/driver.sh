#!/bin/busybox sh
# Init of the driver domain.
. /lab/common.sh
for m in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs bridge loop xen-netback xen-blkback; do
    modprobe $m || echo "DRIVER cannot load $m"
done
mkdir -p /proc/xen && mount -t xenfs xenfs /proc/xen
ip link set lo up
brctl addbr labbr0
ip addr add 10.77.0.1/24 dev labbr0
ip link set labbr0 up

# Disks for the guest: files, and a block device (a loop device).
mkdir -p /disks /share
echo LAB-SHARE-MAGIC > /share/file
for d in file dev hot q1 q2; do
    printf 'LAB-DISK-%s-MAGIC\n' $d > /disks/$d.img
    truncate -s 16M /disks/$d.img
done
losetup /dev/loop7 /disks/dev.img

# With --scripts none the tools go that scripts and their likes are made of; the lab's own
# commands have them still.
if [ -e /lab/bare ]; then
    for f in bash ip losetup brctl ifconfig route iptables nft; do rm -f /usr/bin/$f /usr/sbin/$f; done
    ip() { busybox ip "$@"; }
    losetup() { busybox losetup "$@"; }
    brctl() { busybox brctl "$@"; }
fi
is_bare() {
    for f in bash ip losetup brctl ifconfig route iptables nft; do
        for d in /usr/bin /usr/sbin; do [ ! -e $d/$f ] || echo $d/$f; done
    done
    [ ! -e /etc/xen/scripts ] || echo /etc/xen/scripts
    echo bare
}
# Files for `labprobe pile`.
pile_files() { # FIRST COUNT
    for i in $(seq $1 $(($1 + $2 - 1))); do truncate -s 1M /disks/pile-$i.img; done
    [ -e /sys/block/loop6/loop ] || losetup /dev/loop6 /disks/hot.img
    echo made
}

start_daemon() {
    cd /
    setsid /lab/start-daemon < /dev/null >> /var/log/daemon.log 2>&1 &
    echo $! > /run/daemon.pid
}
# One line: numbers of the daemon process, and of all the children it has reaped.
daemon_stats() {
    p=$(cat /run/daemon.pid)
    [ -d /proc/$p ] || { echo dead; return; }
    set -- $(sed 's/.*) //' /proc/$p/stat)
    echo "$(awk '/^(Rss|Pss|Private_Dirty|Private_Clean|Anonymous):/{printf "%s_kB=%s ", tolower(substr($1, 1, length($1) - 1)), $2}
        ' /proc/$p/smaps_rollup)$(awk '/^VmHWM/{printf "peak_rss_kB=%s ", $2} /^Threads/{printf "threads=%s ", $2} /ctxt/{printf "%s=%s ", $1, $2}' /proc/$p/status | tr -d :)"\
"cpu_ms=$(cat /proc/$p/task/*/schedstat | awk '{s += $1} END {printf "%.1f", s / 1e6}') user_ticks=${12} sys_ticks=${13} children_user_ticks=${14} children_sys_ticks=${15} fds=$(ls /proc/$p/fd | wc -l)"
}
stop_daemon() { # [SIGNAL]
    p=$(cat /run/daemon.pid)
    kill -${1:-KILL} $p 2>/dev/null
    i=0
    while [ -d /proc/$p ] && [ $i -lt 100 ]; do usleep 50000; i=$((i + 1)); done
    [ ! -d /proc/$p ] && echo stopped
}
# The process ids of all QEMUs, or of those for one guest.
qemus() { # [DOMID]
    for q in /proc/[0-9]*; do
        IFS= read -r c < $q/cmdline
        case $c in *qemu*-xen-domid${1:+$1-}*) echo ${q#/proc/} ;; esac
    done 2>/dev/null
}
n_qemus() { echo "qemus=$(qemus $1 | grep -c .)."; }
# Does what the store says about this guest's QEMU agree with what runs?
qemu_honest() { # DOMID
    pid=$(xenstore-read libxl/$1/qdisk-backend-pid 2>/dev/null)
    st=$(xenstore-read device-model/$1/state 2>/dev/null)
    run=$(qemus $1)
    if [ -n "$run" ] && [ "$pid" = "$run" ]; then echo honest running
    elif [ -z "$run$pid" ] && [ "$st" != running ]; then echo honest none
    else echo "pid=$pid state=$st running=$run"; fi
}
qemu_stats() { # DOMID
    for q in $(qemus $1); do
        echo pid=$q $(awk '/^(Rss|Pss|Anonymous):/{printf "%s_kB=%s ", tolower(substr($1, 1, length($1) - 1)), $2}' /proc/$q/smaps_rollup) \
            threads=$(ls /proc/$q/task | wc -l) fds=$(ls /proc/$q/fd | wc -l) parent=$(sed 's/.*) . //; s/ .*//' /proc/$q/stat)
    done
}
# How often the hotplug scripts of hotplug/ have been run: HOOK VERB PATH-PATTERN
n_hooks() { echo "hooks=$(grep -c "$1 $2 .*$3" /run/hooks.log)."; }
# What hotplug/vif-hang has left running.
hangers() {
    for q in /proc/[0-9]*; do
        IFS= read -r c < $q/cmdline
        case $c in *vif-hang*|sleep7777*) echo ${q#/proc/} ;; esac
    done 2>/dev/null
}
n_hangers() { echo "hangers=$(hangers | grep -c .)."; }
# What hooks and disks must not leave behind.  A hook and all that it has started have
# XENBUS_PATH in their environment; a child that nobody has waited for still has its parent.
# Of the loop devices two are the lab's own.
left_processes() {
    p=$(cat /run/daemon.pid)
    for q in /proc/[0-9]*; do
        if grep -q "^PPid:.$p$" $q/status || grep -q XENBUS_PATH= $q/environ; then
            echo "${q#/proc/}:$(tr '\0' ' ' < $q/cmdline)"
        fi
    done 2>/dev/null
    qemus
}
left_loops() { losetup -a | grep -vE '^/dev/loop[67]:'; }
none_left() { l=$("left_$1"); echo "left=${l:-none}"; }
# A clean start for the next scenario: no daemon, no QEMU, nothing of a dead guest.
fresh_daemon() {
    stop_daemon
    for q in $(qemus); do kill -9 $q; done
    for q in $(hangers); do kill -9 $q; done
    for n in libxl device-model; do
        for f in $(xenstore-list $n 2>/dev/null); do
            case $f in [0-9]*) xenstore-rm $n/$f ;; esac
        done
    done
    : > /run/hooks.log
    start_daemon
    echo fresh
}
: > /run/hooks.log
start_daemon
agent &
follow /var/log/daemon.log DAEMON &
while :; do wait; sleep 3600; done
