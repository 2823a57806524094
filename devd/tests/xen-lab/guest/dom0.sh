#!/bin/busybox sh
# Init of dom0: starts Xen's user space, the two guests, runs the checks.
# Every check prints one line:   LAB ok|FAIL NAME SECONDS [remark]
# Other numbers:                 LAB info NAME VALUE...
. /lab/common.sh
. /lab/config

secs() { awk "BEGIN{printf \"%.2f\", $(uptime) - $1}"; }
failed=0
# check NAME COMMAND...: run the command, say whether it succeeded and how long it took.
check() {
    name=$1; shift
    t=$(uptime)
    store_lives
    if "$@" > /tmp/out 2>&1; then
        echo "LAB ok $name $(secs $t)"
    else
        failed=$((failed + 1))
        echo "LAB FAIL $name $(secs $t) $(tail -n 3 /tmp/out | tr '\n' ' ')"
        store_lives
    fi
}
# ask DOMID COMMAND: run it in that guest (see agent in common.sh), print the answer.
seq=0
ask() {
    seq=$(($(cat /tmp/seq 2>/dev/null || echo 0) + 1)); echo $seq > /tmp/seq
    d=/local/domain/$1/data; shift
    xenstore-write $d/cmd "$seq $*"
    i=0
    until r=$(xenstore-read $d/reply-$seq 2>/dev/null); do
        i=$((i + 1)); [ $i -lt 400 ] || { echo "no answer to $*"; return 1; }
        usleep 50000
    done
    xenstore-rm $d/reply-$seq
    echo "$r"
}
# expect DOMID TEXT COMMAND: the answer must contain TEXT.
expect() {
    d=$1; want=$2; shift 2
    got=$(ask $d "$@"); echo "$got"
    case $got in *"$want"*) ;; *) return 1 ;; esac
}
is() { labprobe is "$1" "$2" "${3:-30}" || { echo "$1 is $(xenstore-read $1 2>&1), not $2"; return 1; }; }
gone() { labprobe gone "$1" "${2:-30}" || { echo "$1 still there: $(xenstore-ls $1 | tr '\n' ' ')"; return 1; }; }
# appears PATH [SECONDS]; until_expect SECONDS DOMID TEXT COMMAND: as expect, again and again.
now_s() { uptime | cut -d. -f1; }
appears() {
    end=$(($(now_s) + ${2:-10}))
    until xenstore-read $1 2>/dev/null; do [ $(now_s) -lt $end ] || { echo "no $1"; return 1; }; usleep 200000; done
}
until_expect() {
    end=$(($(now_s) + $1)); shift
    until expect "$@"; do [ $(now_s) -lt $end ] || return 1; done
}
# expect_node PATH TEXT: the node appears, and TEXT is in it.
expect_node() {
    appears $1 || return 1
    case $(xenstore-read $1) in *"$2"*) ;; *) return 1 ;; esac
}
# `xl ...-attach` refuses every device of a PV guest that has, or is to get, a qdisk, unless
# it believes that a QEMU for the guest runs in dom0 (see the README).
xl_hot() {
    [ "$QEMU" != 1 ] || xenstore-write /local/domain/$G/image/device-model-pid 1
    xl "$@"; r=$?
    [ "$QEMU" != 1 ] || xenstore-rm /local/domain/$G/image/device-model-pid
    return $r
}
stats() { echo "LAB info daemon.$1 $(ask $DD daemon_stats)"; }
finish() {
    echo "LAB info failed $failed"
    echo "LAB done $(uptime)"
    sleep 1
    poweroff -f
}

# Without the store nothing below means anything, and its clients wait for ever.
store_lives() {
    [ -e /run/xenstored.pid ] || return 0 # not started yet
    # A dead one may still be a zombie.
    grep -q '^State:[[:space:]]*[^ZX]' "/proc/$(cat /run/xenstored.pid)/status" 2>/dev/null && return
    failed=$((failed + 1))
    echo "LAB FAIL dom0.xenstored_alive $(uptime) $(dmesg | grep -E 'xenstored|segfault' | tail -n 3 | tr '\n' ' ') $(tail -n 12 /tmp/out | tr '\n' ' ')"
    finish
}

echo "LAB ok dom0.userspace $(uptime)"

dom0_up() {
    for m in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs loop; do modprobe $m || return 1; done
    mkdir -p /proc/xen && mount -t xenfs xenfs /proc/xen || return 1
    # A pile of devices is more than a domain is allowed.
    more=; [ "$PILE" = 0 ] || more="--entry-nb 40000 --watch-nb 4000"
    xenstored --pid-file /run/xenstored.pid --internal-db $more || return 1
    xen-init-dom0 || return 1
    mkdir -p /var/log/xen/console
    xenconsoled --pid-file=/run/xenconsoled.pid --log=guest --log-dir=/var/log/xen/console || return 1
}
check dom0.xen_up dom0_up

xl list > /dev/null 2>&1 || { cat /tmp/out; finish; }

# ---- driver domain ----
guest_cfg() {
    printf 'name="%s"\ntype="pv"\nkernel="/img/vmlinux"\nramdisk="/img/guest.img"\nvcpus=1\nmemory=%s\n' "$1" "$2"
    printf 'extra="console=hvc0 loglevel=4 rdinit=/lab/%s"\non_crash="destroy"\n' "$3"
}
{ guest_cfg driver "$DRIVER_MB" driver.sh; echo 'driver_domain=1'; } > /tmp/driver.cfg
if [ "$QEMU" = 1 ]; then
    cat /img/guest.img /img/qemu.img > /img/driver.img
    rm /img/qemu.img
    sed -i 's/guest.img/driver.img/' /tmp/driver.cfg
fi
check driver.create xl create /tmp/driver.cfg
DD=$(xl domid driver)
follow /var/log/xen/console/guest-driver.log '[driver]' &
check driver.ready is /local/domain/$DD/data/ready 1 90
[ $failed = 0 ] || finish
# Software emulation must run ordinary programs without fault, or nothing below means anything.
check driver.sane expect $DD 'bad=0 ' sane $SANITY
[ "$SCRIPTS" != none ] || check driver.bare expect $DD 'bare' is_bare
[ "$CYCLES" -ge 0 ] || finish
stats start

if [ "$DUMP" = 1 ]; then
    labprobe trace /local/domain/$DD/backend > /tmp/trace.log 2>&1 &
    tracer=$!
fi

# ---- guest with one vif and two disks, all served by the driver domain ----
{
    guest_cfg guest "$GUEST_MB" guest.sh
    echo 'vif=["mac=00:16:3e:77:00:02,bridge=labbr0,backend=driver"]'
    echo 'disk=["format=raw,vdev=xvda,access=rw,backend=driver,target=/disks/file.img",'
    if [ "$QDISK" = 1 ]; then
        echo '      "backendtype=qdisk,format=raw,vdev=xvde,access=rw,backend=driver,target=/disks/q1.img",'
        echo '      "backendtype=qdisk,format=qcow2,vdev=xvdf,access=rw,backend=driver,target=/disks/q.qcow2",'
    fi
    echo '      "format=raw,vdev=xvdb,access=rw,backend=driver,target=/dev/loop7"]'
} > /tmp/guest.cfg
[ "$QDISK" != 1 ] || . /lab/qdisk.sh before
check guest.create xl create /tmp/guest.cfg
G=$(xl domid guest)
follow /var/log/xen/console/guest-guest.log '[guest]' &
BE=/local/domain/$DD/backend
check vif.connected is $BE/vif/$G/0/hotplug-status connected
check vbd_file.connected is $BE/vbd/$G/51712/hotplug-status connected
check vbd_dev.connected is $BE/vbd/$G/51728/hotplug-status connected
[ "$QDISK" != 1 ] || . /lab/qdisk.sh started
[ $failed = 0 ] || finish # the guest's kernel would wait five minutes for its devices
check guest.ready is /local/domain/$G/data/ready 1 90
xenstore-read /local/domain/$G/data/ready > /dev/null 2>&1 || finish
check vif.state4 is $BE/vif/$G/0/state 4
check vbd_file.state4 is $BE/vbd/$G/51712/state 4
check vbd_dev.state4 is $BE/vbd/$G/51728/state 4
check guest.ping expect $G reached net_test
check guest.disk_file expect $G LAB-DISK-file-MAGIC disk_test xvda
check guest.disk_dev expect $G LAB-DISK-dev-MAGIC disk_test xvdb
check guest.disk_write expect $G WRITTEN-BY-GUEST disk_write xvda
check driver.sees_write expect $DD WRITTEN-BY-GUEST "strings /disks/file.img"
if [ "$SCRIPTS" = none ]; then
    check vif.mtu is /local/domain/$G/device/vif/0/mtu 1500 1
    # No two guests with one disk: dom0 plays the other guest.
    labprobe add vbd $DD 0 900000 /disks/file.img
    check vbd.refused expect_node $BE/vbd/0/900000/hotplug-error "guest $G has"
    check vbd.refused_gone labprobe close vbd $DD 0 900000 8
    check daemon.no_child expect $DD 'children_user_ticks=0 children_sys_ticks=0' daemon_stats
fi
stats after_boot
[ "$DUMP" = 1 ] && xenstore-ls -f -p $BE | sed 's/^/XS /'

# ---- hot plug and unplug through xl ----
check xl.network_attach xl_hot network-attach guest mac=00:16:3e:77:00:03 bridge=labbr0 backend=driver
check vif1.state4 is $BE/vif/$G/1/state 4
check xl.network_detach xl network-detach guest 1
check vif1.gone gone $BE/vif/$G/1
check xl.block_attach xl_hot block-attach guest format=raw,vdev=xvdc,access=rw,backend=driver,target=/disks/hot.img
check vbd2.state4 is $BE/vbd/$G/51744/state 4
check guest.disk_hot expect $G LAB-DISK-hot-MAGIC disk_test xvdc
check xl.block_detach xl block-detach guest xvdc
check vbd2.gone gone $BE/vbd/$G/51744
check driver.loop_freed expect $DD none "losetup -a | grep hot.img || echo none"
if [ "$DUMP" = 1 ]; then
    kill $tracer
    sed 's/^/TRACE /' /tmp/trace.log
fi

[ "$QDISK" != 1 ] || . /lab/qdisk.sh rest
[ "$P9" != 1 ] || . /lab/p9.sh

# ---- attach and detach again and again ----
cycles() { # NAME KIND FIRST BURST TARGET
    n=$1; shift
    t=$(uptime)
    labprobe cycle $1 $DD $G $2 $CYCLES $3 $4 > /tmp/cycle 2>&1; r=$?
    s=$(secs $t)
    sed -n 's/^PROBE [a-z]* \([a-z_]*\) \(.*\)/LAB info cycles.'$n'.\1 \2/p' /tmp/cycle
    [ "$DUMP" = 1 ] && grep '^probe ' /tmp/cycle
    if [ $r = 0 ]; then echo "LAB ok cycles.$n $s"
    else failed=$((failed + 1)); echo "LAB FAIL cycles.$n $s $(grep labprobe: /tmp/cycle | head -n 3 | tr '\n' ' ')"; fi
    stats after_$n
}
if [ "$CYCLES" -gt 0 ]; then
    disk=/disks/hot.img
    if [ "$SCRIPTS" = fast ]; then
        ask $DD 'cp /lab/fast/* /etc/xen/scripts/ && losetup /dev/loop6 /disks/hot.img && echo fast' > /dev/null
        disk=/dev/loop6
    fi
    [ "$SCRIPTS" != real ] || export LABPROBE_MTU=1
    stats before_cycles
    cycles vif vif 100 1 labbr0
    cycles vbd vbd 100000 1 $disk
    cycles vif_burst vif 200 $BURST labbr0
    cycles vbd_burst vbd 200000 $BURST $disk
fi

# ---- a pile of devices: is the last one as quick as the first? ----
pile() { # NAME KIND FIRST TARGET
    t=$(uptime)
    labprobe pile $2 $DD $G $3 $PILE $4 120 > /tmp/pile 2>&1; r=$?
    sed -n 's/^PROBE [a-z]* pile \(.*\)/LAB info pile.'$1' \1/p' /tmp/pile
    if [ $r = 0 ]; then echo "LAB ok pile.$1 $(secs $t)"
    else failed=$((failed + 1)); echo "LAB FAIL pile.$1 $(secs $t) $(grep labprobe: /tmp/pile | head -n 3 | tr '\n' ' ')"; fi
    stats after_pile_$1
}
if [ "$PILE" != 0 ]; then
    ask $DD "pile_files 600000 $PILE" > /dev/null
    [ "$SCRIPTS" != real ] || {
        # Scripts would take hours for them all: of a pile under scripts only the devices that
        # are measured have the real ones.
        export LABPROBE_MTU=1 LABPROBE_FILL=/lab/fast/costs-nothing
    }
    pile vif vif 600 labbr0
    pile vbd_dev vbd 500000 /dev/loop6
    pile vbd_file vbd 600000 /disks/pile-%d.img
    unset LABPROBE_FILL
fi

# ---- a daemon that dies and is started again: does it take over what is there? ----
if [ "$RESTART" = 1 ]; then
    ask $DD 'kill -9 $(cat /run/daemon.pid); echo killed' > /dev/null
    check restart.attach_while_dead xl_hot network-attach guest mac=00:16:3e:77:00:04 bridge=labbr0 backend=driver
    ask $DD 'start_daemon; echo started' > /dev/null
    check restart.new_device is $BE/vif/$G/1/hotplug-status connected 15
    check restart.detach_old xl block-detach guest xvdb
    check restart.old_device_gone gone $BE/vbd/$G/51728 5
    stats restarted
fi

if [ -n "$SCENARIOS" ]; then
    . /lab/scenarios.sh # the guest does not survive them
    finish
fi

# ---- the guest goes away ----
guest_off() {
    ask $G 'poweroff -f' > /dev/null 2>&1 &
    asker=$!
    for i in $(seq 300); do xl domid guest > /dev/null 2>&1 || break; usleep 100000; done
    kill $asker 2>/dev/null
    ! xl domid guest > /dev/null 2>&1
}
check guest.poweroff guest_off
check guest.vif_gone gone $BE/vif/$G 20
check guest.vbd_gone gone $BE/vbd/$G 20

# ---- nothing is left of it ----
no_backend() { ! xenstore-ls -f $BE | grep -E "^$BE/[^/ ]+/[^/ ]+/"; }
no_nodes() { ! xenstore-ls -f /local/domain/$DD | grep -E "^/local/domain/$DD/(libxl|device-model)/[0-9]"; }
check driver.no_backend_left no_backend
check driver.no_nodes_left no_nodes
check driver.no_vif_left expect $DD none "ls /sys/class/net | grep '^vif' || echo none"
check driver.no_loop_left expect $DD left=none none_left loops
check driver.no_process_left until_expect 2 $DD left=none none_left processes
check daemon.alive expect $DD rss_kB daemon_stats
stats end
xenstore-ls -f $BE | sed 's/^/LEFT /'
finish
