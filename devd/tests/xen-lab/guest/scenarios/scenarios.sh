# Sourced by dom0.sh with --scenarios: what goes wrong in real life, in stories.  A correct
# daemon passes every check.  The other files here have the stories by theme, one function each,
# with what must hold said in front of it.
#
# vifs and vbds whose numbers are no ethX, xvdX are labprobe's: only the driver domain works,
# the guest does not see them.  Every story has numbers of its own, so that what one leaves
# behind is not in the next's way.
for f in qemu restart hooks lives limits detach; do . /lab/scenarios/$f.sh; done
Q=$BE/qdisk/$G

# In the order in which they are told; guest_destroyed and guest_crashed take the guest with them.
core="killed_while_connected attached_while_stopped restart_kill
    qemu_killed share_lost_its_qemu
    hook_fails_then_works bridge_missing script_missing vif_ioemu vbd3 file_deleted
    disk_of_two_guests
    directory_deleted replaced_while_hook_runs kexec
    two_at_once detaches
    not_a_driver_domain hook_hangs late_backend
    guest_goes_at_each_stage forty"
more="restart_term numbers_again kexec_thousand hundred_thirty
    hundred_network_detaches hundred_block_detaches no_linger guest_saved"
case $SCENARIOS in
core) chosen="$core guest_destroyed" ;;
all) chosen="$core $more guest_destroyed guest_crashed" ;;
*) chosen=$(echo "$SCENARIOS" | tr , ' ') ;;
esac

# ---- words that the stories are made of ----

add() { local k=$1 id=$2 target="$3"; shift 3; labprobe add $k $DD $G $id $target "$@"; } # KIND DEVID TARGET [NODE=VALUE]...
# Of one device or several: KIND DEVID...
drop() { local k=$1; shift; labprobe drop $k $DD $G $(echo $* | tr ' ' ,); }
closes() { local k=$1; shift; labprobe close $k $DD $G $(echo $* | tr ' ' ,) $PATIENCE; }
closing() { local k=$1; shift; labprobe close $k $DD $G $(echo $* | tr ' ' ,) 0; } # does not wait
served() {
    local k=$1 w= i; shift
    for i; do w="$w $BE/$k/$G/$i/hotplug-status connected"; done
    is $w
}
# fails KIND DEVID TEXT: its hotplug-error comes, and has these words.
fails() { local e; e=$(appears $BE/$1/$G/$2/hotplug-error); echo "$e"; case $e in *"$3"*) ;; *) return 1 ;; esac; }
# hooks KIND 'DEVID DEVID' 'VERB VERB': the hooks that have run for each, all of them, in order.
hooks() { until_expect $DD "hooks=[$3]." "hooks_of $1/$G $2"; }
told() { ask $DD "$@" > /dev/null; } # have the driver domain do something
script() { echo script=/etc/xen/scripts/$1; }

attach_qdisk() { xl_hot block-attach guest backendtype=qdisk,format=raw,vdev=$1,access=rw,backend=driver,target=/disks/$2.img; }
# xl waits ten seconds for the backend, then removes what it can: do not wait for xl.
detach() { xl $1-detach guest $2 > /tmp/xl.$2 2>&1 & }
no_loop() { expect $DD none "losetup -a | grep $1 || echo none"; }

# The daemon is there when it serves one device.
daemon_ready() { labprobe cycle vif $DD $G ${1:-900} 1 1 labbr0 $PATIENCE; }
# A daemon that knows of nothing: what a story that went wrong has left must not spoil the next.
fresh() {
    for d in $(xenstore-ls -f $BE | sed -n 's,/online = "0".*,,p'); do xenstore-rm $d; done
    for d in $(devices | grep -vxF -f /tmp/devices.before); do xenstore-rm $BE/$d; done
    told fresh_daemon
    daemon_ready > /tmp/out 2>&1 || echo "LAB info not_ready $(tail -n 1 /tmp/out)"
}
devices() { xenstore-ls -f $BE | sed -n "s,^$BE/\([^/]*/[^/]*/[^/ ]*\)/frontend .*,\1,p" | sort; }
# The daemon lives, and there is no device, process or loop device that was not there before.
nothing_left() {
    devices > /tmp/devices
    grep -vxF -f /tmp/devices.before /tmp/devices && return 1
    until_expect $DD 'daemon=alive left=none' leftovers || return 1
    { cat /tmp/devices; echo none; } > /tmp/devices.before # an empty list would match everything
}

tell() { # STORY
    story=$1.
    echo "LAB info story.$1 at=$(uptime)"
    had_failed=$failed
    story_$1
    check nothing_left nothing_left
    if [ $failed != $had_failed ]; then
        echo "LAB info $1.left $(devices | tr '\n' ' ') $(ask $DD "n_qemus; losetup -a | cut -d: -f1,3")"
        echo "LAB info $1.log $(ask $DD 'tail -n 8 /var/log/daemon.log')"
        fresh
    fi
    story=
}

for s in $chosen; do
    # What takes its time goes on beside the other stories.
    case " $(type begin_$s 2> /dev/null) " in *function*) begin_$s ;; esac
done
{ devices; echo none; } > /tmp/devices.before
told 'loops > /run/loops'
for s in $chosen; do tell $s; done
