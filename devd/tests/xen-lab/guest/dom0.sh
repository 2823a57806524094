#!/bin/busybox sh
# Init of dom0: starts Xen's user space, the two guests, runs the checks.
# Every check prints one line:   LAB ok|FAIL NAME SECONDS [remark]
# Other numbers:                 LAB info NAME VALUE...
. /lab/common.sh
. /lab/config

# Seconds since an uptime.  (Without a program: starting one takes its time here.)
secs() {
    read -r u _ < /proc/uptime
    t=$((${u%.*}${u#*.} - ${1%.*}${1#*.}))
    printf '%d.%02d' $((t / 100)) $((t % 100))
}
failed=0
# check NAME COMMAND...: run the command, say whether it succeeded and how long it took.
# $story, if set, is put in front of the name.
story=
check() {
    local name="$story$1" t="$(uptime)"; shift
    store_lives
    if "$@" > /tmp/out 2>&1; then
        echo "LAB ok $name $(secs $t)"
    else
        failed=$((failed + 1))
        echo "LAB FAIL $name $(secs $t) $(tail -n 3 /tmp/out | tr '\n' ' ')"
        store_lives
    fi
}
# What is waited for comes or does not; how long it takes says how busy the machine is.  So
# nothing below fails for being slow: every wait ends after $PATIENCE seconds.
# ask DOMID COMMAND: run it in that guest (see agent in common.sh), print the answer.
ask() { local d=$1; shift; labprobe ask $d $PATIENCE "$*"; }
# expect DOMID TEXT COMMAND: the answer must contain TEXT.  until_expect: soon.
expect() {
    local d=$1 want="$2" got; shift 2
    got=$(ask $d "$@"); echo "$got"
    case $got in *"$want"*) ;; *) return 1 ;; esac
}
until_expect() {
    local end=$(($(now_s) + PATIENCE))
    until expect "$@"; do [ $(now_s) -lt $end ] || return 1; usleep 100000; done
}
now_s() { uptime | cut -d. -f1; }
# is PATH VALUE, gone PATH, appears PATH: soon.
is() { labprobe is $PATIENCE "$@"; }
gone() { labprobe gone $PATIENCE "$1" || { echo "$1 still there: $(xenstore-ls $1 | tr '\n' ' ')"; return 1; }; }
appears() { labprobe appears $PATIENCE "$1" || { echo "no $1"; return 1; }; }
# expect_node PATH TEXT: the node appears, and TEXT is in it.
expect_node() {
    got=$(appears $1); echo "$got"
    case $got in *"$2"*) ;; *) return 1 ;; esac
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
    local pid state
    [ -e /run/xenstored.pid ] || return 0 # not started yet
    # A dead one may still be a zombie.
    read -r pid < /run/xenstored.pid
    read -r _ _ state _ 2> /dev/null < /proc/$pid/stat
    case $state in [!ZX]) return ;; esac
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
check driver.ready is /local/domain/$DD/data/ready 1
[ $failed = 0 ] || finish
# Software emulation must run ordinary programs without fault, or nothing below means anything.
check driver.sane expect $DD 'bad=0.' sane $SANITY
[ "$SCRIPTS" != none ] || check driver.bare expect $DD tools=none tools_left
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
check guest.ready is /local/domain/$G/data/ready 1
xenstore-read /local/domain/$G/data/ready > /dev/null 2>&1 || finish
check vif.state4 is $BE/vif/$G/0/state 4
check vbd_file.state4 is $BE/vbd/$G/51712/state 4
check vbd_dev.state4 is $BE/vbd/$G/51728/state 4
check guest.ping expect $G reached net_test
check guest.disk_file expect $G LAB-DISK-file-MAGIC disk_test xvda
check guest.disk_dev expect $G LAB-DISK-dev-MAGIC disk_test xvdb
# The guest writes random data, reads them back, and the driver domain has them in FILE, if any.
same_data() { # DISK [FILE]
    set -- $(ask $G disk_sums $1) $2 # SUM - SUM - FILE
    echo "$*"
    [ "${#1}" = 32 ] && [ "$1" = "$3" ] || return 1
    [ -z "$5" ] || expect $DD "$1" "dd if=$5 bs=64k skip=16 count=16 2>/dev/null | md5sum"
}
check guest.same_data same_data xvda /disks/file.img
if [ "$SCRIPTS" = none ]; then
    check vif.mtu is /local/domain/$G/device/vif/0/mtu 1500
    # No two guests with one disk: dom0 plays the other guest.
    labprobe add vbd $DD 0 900000 /disks/file.img
    check vbd.refused expect_node $BE/vbd/0/900000/hotplug-error "guest $G has"
    check vbd.refused_gone labprobe close vbd $DD 0 900000 $PATIENCE
    check daemon.no_child expect $DD 'children_user_ticks=0 children_sys_ticks=0' daemon_stats
fi
stats after_boot
[ "$DUMP" = 1 ] && xenstore-ls -f -p $BE | sed 's/^/XS /'

# ---- hot plug and unplug through xl ----
# Without scripts it has a name of its own too, and the kernel says whose it is.
[ "$SCRIPTS" = none ] && vifname=vifname=labhot || vifname=
check xl.network_attach xl_hot network-attach guest mac=00:16:3e:77:00:03 bridge=labbr0 $vifname backend=driver
check vif1.state4 is $BE/vif/$G/1/state 4
[ -z "$vifname" ] || check vif1.renamed expect $DD "vif-$G-1 labbr0" 'cd /sys/class/net/labhot && echo $(readlink device | sed s:.*/::) $(readlink master | sed s:.*/::)'
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
        ask $DD 'cd /etc/xen/scripts && for s in vif-bridge block; do mv $s usual-$s; cp costs-nothing $s; done; losetup /dev/loop6 /disks/hot.img' > /dev/null
        disk=/dev/loop6
    fi
    [ "$SCRIPTS" != real ] || export LABPROBE_MTU=1
    stats before_cycles
    cycles vif vif 100 1 labbr0
    cycles vbd vbd 100000 1 $disk
    cycles vif_burst vif 200 $BURST labbr0
    cycles vbd_burst vbd 200000 $BURST $disk
    # What the usual ones have made for the guest only they take away.
    [ "$SCRIPTS" != fast ] || ask $DD 'cd /etc/xen/scripts && for s in vif-bridge block; do mv usual-$s $s; done' > /dev/null
fi

# ---- a pile of devices: is the last one as quick as the first? ----
pile() { # NAME KIND FIRST COUNT TARGET
    t=$(uptime)
    labprobe pile $2 $DD $G $3 $4 $5 120 > /tmp/pile 2>&1; r=$?
    sed -n 's/^PROBE [a-z]* pile \(.*\)/LAB info pile.'$1' \1/p' /tmp/pile
    if [ $r = 0 ]; then echo "LAB ok pile.$1 $(secs $t)"
    else failed=$((failed + 1)); echo "LAB FAIL pile.$1 $(secs $t) $(grep labprobe: /tmp/pile | head -n 3 | tr '\n' ' ')"; fi
    stats after_pile_$1
}
piles() { # NAME
    ask $DD "pile_files 600000 $PILE" > /dev/null
    for k in $PILE_KINDS; do
        case $k in
        vif) pile $1.vif vif 600 $PILE labbr0 ;;
        vbd_dev) pile $1.vbd_dev vbd 500000 $PILE /dev/loop6 ;;
        vbd_file) pile $1.vbd_file vbd 600000 $PILE /disks/pile-%d.img ;;
        esac
    done
}
if [ "$PILE" != 0 ]; then
    [ "$SCRIPTS" != real ] || export LABPROBE_MTU=1
    piles devd
    if [ "$SCRIPTS" = real ]; then
        # Scripts would take hours for them all: of this pile only the devices that are measured
        # have the real ones.
        ask $DD 'stop_daemon TERM; DAEMON=xl; start_daemon; echo started' > /dev/null
        sleep 3
        export LABPROBE_FILL=/etc/xen/scripts/costs-nothing
        piles xl
        unset LABPROBE_FILL
        ask $DD 'stop_daemon; DAEMON=daemon; start_daemon; echo started' > /dev/null
    fi
fi

if [ -n "$SCENARIOS" ]; then
    . /lab/scenarios/scenarios.sh # the guest does not survive them
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
check guest.vif_gone gone $BE/vif/$G
check guest.vbd_gone gone $BE/vbd/$G

# ---- nothing is left of it ----
no_backend() { ! xenstore-ls -f $BE | grep -E "^$BE/[^/ ]+/[^/ ]+/"; }
no_nodes() { ! xenstore-ls -f /local/domain/$DD | grep -E "^/local/domain/$DD/(libxl|device-model)/[0-9]"; }
check driver.no_backend_left no_backend
check driver.no_nodes_left no_nodes
check driver.no_vif_left expect $DD none "ls /sys/class/net | grep '^vif' || echo none"
check driver.no_loop_left expect $DD left=none none_left loops
check driver.no_process_left until_expect $DD left=none none_left processes
check daemon.alive expect $DD rss_kB daemon_stats
stats end
xenstore-ls -f $BE | sed 's/^/LEFT /'
finish
