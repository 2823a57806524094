#!/bin/busybox sh
# Init of the driver domain.
. /lab/common.sh
# lab.late: netback comes when a story says so.
grep -q lab.late /proc/cmdline || netback=xen-netback
for m in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs bridge loop $netback xen-blkback; do
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
for d in file dev hot q1 q2 q3; do
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
tools_left() {
    found=$(ls -d /etc/xen/scripts 2> /dev/null
        for f in bash ip losetup brctl ifconfig route iptables nft; do
            ls /usr/bin/$f /usr/sbin/$f 2> /dev/null
        done)
    echo "tools=${found:-none}"
}
# Files for `labprobe pile`.
pile_files() { # FIRST COUNT
    for i in $(seq $1 $(($1 + $2 - 1))); do truncate -s 1M /disks/pile-$i.img; done
    [ -e /sys/block/loop6/loop ] || losetup /dev/loop6 /disks/hot.img
    echo made
}

start_daemon() { # [MORE ARGUMENTS]
    cd /
    setsid /lab/start-${DAEMON:-daemon} "$@" < /dev/null >> /var/log/daemon.log 2>&1 &
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
    while [ -d /proc/$p ] && [ $i -lt 600 ]; do usleep 50000; i=$((i + 1)); done
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
daemon_memory() { awk '/^Anonymous:/ {print $2}' /proc/$(cat /run/daemon.pid)/smaps_rollup; }
# The scripts of hotplug/ that have run for devices, in order; for all of them the same, or more
# than one answer: KIND/DOMID DEVID... -> hooks=[online offline].
hooks_of() {
    of=$1; shift
    awk -v of="backend/$of/" -v ids="$*" '
        {h[$3] = h[$3] (h[$3] == "" ? "" : " ") $2}
        END {
            n = split(ids, id, " ")
            for (i = 1; i <= n; i++) {
                a = h[of id[i]]
                if (!(a in said)) all = all "[" a "]"
                said[a] = 1
            }
            print "hooks=" all "."
        }' /run/hooks.log
}
# hotplug/slow waits for these.
hold() { for v; do : > /run/hold-$v; done; }
release() { rm -f /run/hold-*; }
# What hotplug/hang has left running.
hangers() {
    for q in /proc/[0-9]*; do
        IFS= read -r c < $q/cmdline
        case $c in *-hang*|sleep7777*) echo ${q#/proc/} ;; esac
    done 2>/dev/null
}
n_hangers() { echo "hangers=$(hangers | grep -c .)."; }
# What hooks and disks must not leave behind.  A hook and all that it has started have
# XENBUS_PATH in their environment; a child that nobody has waited for still has its parent.
left_processes() {
    p=$(cat /run/daemon.pid)
    for q in $(grep -l "^PPid:.$p$" /proc/[0-9]*/status; grep -l XENBUS_PATH= /proc/[0-9]*/environ); do
        echo "${q%/*}:$(tr '\0' ' ' < ${q%/*}/cmdline)"
    done 2>/dev/null
    qemus
}
loops() { losetup -a | cut -d: -f1; }
left_loops() { # WHAT MAY BE THERE, besides the lab's own two
    for l in $(loops); do
        case " /dev/loop6 /dev/loop7 $* " in *" $l "*) ;; *) echo $l ;; esac
    done
}
none_left() { # processes|loops ...
    w=$1; shift
    l=$(left_$w "$@")
    echo "left=${l:-none}"
}
# Is the daemon there, and what is left since the last time?
leftovers() {
    l=$(left_processes; left_loops $(cat /run/loops))
    [ -n "$l" ] || loops > /run/loops
    echo "daemon=$([ -d /proc/$(cat /run/daemon.pid) ] && echo alive || echo dead) left=${l:-none}"
}
# A clean start for the next story: no daemon, no QEMU, nothing of a dead guest.
fresh_daemon() {
    stop_daemon
    for q in $(qemus); do kill -9 $q; done
    for q in $(hangers); do kill -9 $q; done
    for n in libxl device-model; do
        for f in $(xenstore-list $n 2>/dev/null); do
            case $f in [0-9]*) xenstore-rm $n/$f ;; esac
        done
    done
    release
    loops > /run/loops
    start_daemon
}
: > /run/hooks.log
: > /run/loops
start_daemon
agent &
follow /var/log/daemon.log DAEMON &
while :; do wait; sleep 3600; done
