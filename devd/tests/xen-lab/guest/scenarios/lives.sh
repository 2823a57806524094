# Devices and guests that go when nobody expects it, and numbers that are used again.

# dom0 removes the directories before the hook has run, while it runs, and after it.  What the
# hook did is undone once, and the same numbers are a new device, which is served.
story_directory_deleted() {
    # Before: the hook is not called for.  (A vbd3 stays in state 1, a vif would not.)
    add vbd3 750 /disks/hot.img
    drop vbd3 750
    add vbd3 750 /disks/hot.img
    xenstore-write $BE/vbd3/$G/750/state 2
    check before.again served vbd3 750
    check before.goes closes vbd3 750
    check before.hooks hooks vbd3 750 'add remove'

    # While: the hook is ended, or ends, and is undone.
    told hold online add
    add vif 751 labbr0 $(script vif-slow); add vbd 751000 /disks/hot.img $(script block-slow)
    check while.vif_hook_runs hooks vif 751 waits-online
    check while.vbd_hook_runs hooks vbd 751000 waits-add
    drop vif 751; drop vbd 751000
    check while.vif_undone hooks vif 751 'waits-online waits-offline offline'
    check while.vbd_undone hooks vbd 751000 'waits-add waits-remove remove'
    told release
    add vif 751 labbr0; add vbd 751000 /disks/hot.img
    check while.vif_again served vif 751; check while.vbd_again served vbd 751000
    check while.vif_goes closes vif 751; check while.vbd_goes closes vbd 751000

    # After: with a QEMU, which ends.
    for round in 1 2; do
        add vif 752 labbr0
        add vbd 752000 /disks/hot.img
        add qdisk 51888 raw:/disks/q2.img
        check after.vif_served$round served vif 752
        check after.vbd_served$round served vbd 752000
        check after.qdisk_served$round is $Q/51888/state 4
        [ $round = 1 ] || break
        drop vif 752; drop vbd 752000; drop qdisk 51888
        check after.vif_undone hooks vif 752 'online offline'
        check after.vbd_undone hooks vbd 752000 'add remove'
        check after.no_qemu until_expect $DD qemus=0. n_qemus
    done
    check after.vif_goes closes vif 752; check after.vbd_goes closes vbd 752000
    check after.qdisk_goes closes qdisk 51888
    check after.hooks hooks vif 752 'online offline online offline'
    check after.no_qemu_end until_expect $DD qemus=0. n_qemus
}

# The same numbers again as soon as the directory is gone, three times.
story_numbers_again() {
    for round in 1 2 3; do
        add vif 753 labbr0; add vbd 753000 /disks/hot.img
        check vif_served$round served vif 753; check vbd_served$round served vbd 753000
        closing vif 753
        check vbd_goes$round closes vbd 753000
        check vif_goes$round gone $BE/vif/$G/753
    done
    check vif_hooks hooks vif 753 'online offline online offline online offline'
    check vbd_hooks hooks vbd 753000 'add remove add remove add remove'
}

# dom0 puts another disk in the place of one whose hook is at work, in one transaction: what the
# hook of the first did is undone, and the second gets its own.  (A vbd3, since no kernel
# survives that.)
story_replaced_while_hook_runs() {
    told hold add
    add vbd3 754 /disks/hot.img $(script block-slow) state=2
    check hook_runs hooks vbd3 754 waits-add
    labprobe replace vbd3 $DD $G 754 /disks/q3.img
    told release
    xenstore-write $BE/vbd3/$G/754/state 2
    check served served vbd3 754
    check hooks until_expect $DD 'remove add].' hooks_of vbd3/$G 754
    check its_own expect $DD q3.img "losetup -a | grep \$(xenstore-read backend/vbd3/$G/754/node)"
    check goes closes vbd3 754
    check loops_freed no_loop q3.img
}

# The guest initialises a device again and again (the frontend closes and comes back, `online`
# stays 1): everything stays, the add hook does not run again unless netback has made the
# interface anew, and the daemon's memory is flat.
kexec() { # TIMES
    add vif 755 labbr0; add vbd 755000 /disks/hot.img
    check vif_served served vif 755; check vbd_served served vbd 755000
    labprobe kexec vbd $DD $G 755000 5 $PATIENCE > /dev/null # warm
    m0=$(ask $DD daemon_memory)
    check vbd labprobe kexec vbd $DD $G 755000 $1 $PATIENCE; grep ^PROBE /tmp/out | sed "s/^PROBE/LAB info $story/"
    check vif labprobe kexec vif $DD $G 755 $1 $PATIENCE; grep ^PROBE /tmp/out | sed "s/^PROBE/LAB info $story/"
    m1=$(ask $DD daemon_memory)
    echo "LAB info ${story}anonymous_kB $m0 -> $m1 vif_hooks=$(ask $DD hooks_of vif/$G 755 | wc -w)"
    check memory_flat test $m1 -le $m0
    check vif_goes closes vif 755; check vbd_goes closes vbd 755000
    check vbd_hooks hooks vbd 755000 'add remove'
}
story_kexec() { kexec 30; }
story_kexec_thousand() { kexec 1000; }

# ---- guests that go ----

# A guest that is only there: Xen never runs it.  The vif and the disk are real to libxl.
idle_guest() { # NAME [CONFIG-LINE]
    { printf 'name="%s"\ntype="pv"\nkernel="/img/idle"\nmemory=16\nvcpus=1\n' $1; echo "$2"; } > /tmp/$1.cfg
    xl create -p /tmp/$1.cfg
}
idle_with_devices() { # NAME
    idle_guest $1 "vif=[\"mac=00:16:3e:77:01:01,bridge=labbr0,backend=driver,script=vif-slow\"]
disk=[\"format=raw,vdev=xvda,access=rw,backend=driver,script=block-slow,target=/disks/idle.img\"]"
}
# The devices of the guest that was $I are gone, and its hooks have run like this.
idle_gone() { # STAGE VIF-HOOKS VBD-HOOKS
    check $1.destroyed xl destroy idle
    check $1.vif_gone gone $BE/vif/$I; check $1.vbd_gone gone $BE/vbd/$I
    check $1.vif_hooks until_expect $DD "hooks=[$2]." hooks_of vif/$I 0
    check $1.vbd_hooks until_expect $DD "hooks=[$3]." hooks_of vbd/$I 51712
    check $1.loop_freed no_loop idle.img
    check $1.no_vif_left expect $DD none "ls /sys/class/net | grep vif$I || echo none"
}
# xl destroy of a guest before its hooks have run, while they do, after that, while it is being
# detached, and while the removal hooks run: all is undone once, nothing is left.
story_guest_goes_at_each_stage() {
    told 'cp /disks/hot.img /disks/idle.img'
    added='waits-online online' taken='waits-offline offline'
    addedb='waits-add add' takenb='waits-remove remove'

    check before.stopped expect $DD stopped stop_daemon TERM
    check before.create idle_with_devices idle; I=$(xl domid idle)
    check before.destroy xl destroy idle
    told start_daemon
    check before.ready daemon_ready 760
    check before.vif_gone gone $BE/vif/$I; check before.vbd_gone gone $BE/vbd/$I

    told hold online add
    check hook.create idle_with_devices idle; I=$(xl domid idle)
    check hook.vif_runs until_expect $DD "hooks=[waits-online]." hooks_of vif/$I 0
    check hook.vbd_runs until_expect $DD "hooks=[waits-add]." hooks_of vbd/$I 51712
    told '(sleep 1; release) > /dev/null 2>&1 &'
    idle_gone hook "$added $taken" "$addedb $takenb"

    check connected.create idle_with_devices idle; I=$(xl domid idle)
    check connected.vif is $BE/vif/$I/0/hotplug-status connected
    check connected.vbd is $BE/vbd/$I/51712/hotplug-status connected
    idle_gone connected "$added $taken" "$addedb $takenb"

    check closing.create idle_with_devices idle; I=$(xl domid idle)
    check closing.vif is $BE/vif/$I/0/hotplug-status connected
    check closing.vbd is $BE/vbd/$I/51712/hotplug-status connected
    xenstore-write $BE/vif/$I/0/online 0 $BE/vif/$I/0/state 5
    xenstore-write $BE/vbd/$I/51712/online 0 $BE/vbd/$I/51712/state 5
    idle_gone closing "$added $taken" "$addedb $takenb"

    check removing.create idle_with_devices idle; I=$(xl domid idle)
    check removing.vif is $BE/vif/$I/0/hotplug-status connected
    check removing.vbd is $BE/vbd/$I/51712/hotplug-status connected
    told hold offline remove
    xenstore-write $BE/vif/$I/0/online 0 $BE/vif/$I/0/state 5 /local/domain/$I/device/vif/0/state 6
    xenstore-write $BE/vbd/$I/51712/online 0 $BE/vbd/$I/51712/state 5 /local/domain/$I/device/vbd/51712/state 6
    check removing.vif_runs until_expect $DD "hooks=[$added waits-offline]." hooks_of vif/$I 0
    check removing.vbd_runs until_expect $DD "hooks=[$addedb waits-remove]." hooks_of vbd/$I 51712
    told '(sleep 1; release) > /dev/null 2>&1 &'
    idle_gone removing "$added $taken" "$addedb $takenb"
}

# `xl save` suspends the guest, and ends it; `xl restore` makes another domain of it.  What the old
# one had is undone once; the new one is served as any, and finds on its disk what it was writing
# when it was saved.  Saved and let go on (-c), it keeps its devices.
writes_on() { # until it is told to stop
    ask $G 'dd if=/dev/urandom of=/tmp/random bs=64k count=16 2> /dev/null; rm -f /tmp/stop /tmp/stopped'
    ask $G '(until [ -e /tmp/stop ]; do dd if=/tmp/random of=/dev/xvda bs=64k seek=16 oflag=direct && echo; done > /tmp/written; : > /tmp/stopped) > /dev/null 2>&1 &'
}
what_it_wrote() {
    expect $G stopped ': > /tmp/stop; until_true 1000 [ -e /tmp/stopped ] && echo stopped' || return 1
    expect $G same 'dd if=/dev/xvda bs=64k skip=16 count=16 iflag=direct 2> /dev/null | cmp - /tmp/random && echo same'
}
times_written() { ask $G 'wc -l < /tmp/written'; }
story_guest_saved() {
    told ': > /run/hooks.log'
    writes_on > /dev/null
    check saved_and_goes_on xl save -c guest /dev/null
    check same_guest test "$(xl domid guest)" = $G
    check answers expect $G here 'echo here'
    check no_vif_hook hooks vif 0 ''; check no_vbd_hook hooks vbd 51712 ''

    check saved xl save guest /tmp/guest.saved
    check vif_gone gone $BE/vif/$G; check vbd_gone gone $BE/vbd/$G
    check vif_hook hooks vif 0 offline; check vbd_hook hooks vbd 51712 remove
    check no_vif_left expect $DD none "ls /sys/class/net | grep vif$G || echo none"
    check loop_freed no_loop file.img

    sed -i "s,/$G/,/@/," /tmp/devices.before
    check restored xl restore /tmp/guest.saved
    rm /tmp/guest.saved
    G=$(xl domid guest); Q=$BE/qdisk/$G
    sed -i "s,/@/,/$G/," /tmp/devices.before
    check vif_state4 is $BE/vif/$G/0/state 4
    check vbd_state4 is $BE/vbd/$G/51712/state 4 $BE/vbd/$G/51728/state 4
    check vif_hook_again hooks vif 0 online; check vbd_hook_again hooks vbd 51712 add
    check answers_again expect $G here 'echo here'
    n=$(times_written)
    check what_it_wrote what_it_wrote
    echo "LAB info ${story}written $n, in the end $(times_written) times"
    check ping expect $G reached net_test
    check same_data same_data xvda /disks/file.img
    told 'loops > /run/loops'
}

# A guest with vif, vbd and qdisk, all connected, is destroyed, or crashes: nothing is left, and
# each removal hook has run once.  With a guest and a daemon of its own.
guest_dies() { # COMMAND...
    xl destroy guest 2> /dev/null
    for k in vif vbd qdisk; do xenstore-rm $BE/$k/$G 2>/dev/null; done
    told 'fresh_daemon; for l in 0 1 2 3 4 5; do losetup -d /dev/loop$l; done'
    grep -q qdisk /tmp/guest.cfg || sed -i 's,^disk=\[,&"backendtype=qdisk\,format=raw\,vdev=xvde\,access=rw\,backend=driver\,target=/disks/q1.img"\,,' /tmp/guest.cfg
    check create xl create /tmp/guest.cfg
    G=$(xl domid guest); Q=$BE/qdisk/$G
    check qdisk_state4 is $Q/51776/state 4
    check vif_state4 is $BE/vif/$G/0/state 4
    check vbd_state4 is $BE/vbd/$G/51712/state 4
    check guest_ready is /local/domain/$G/data/ready 1
    [ "$DUMP" != 1 ] || { labprobe trace $BE > /tmp/trace.e 2>&1 & tp=$!; }
    t=$(uptime)
    check dies "$@"
    [ "$DUMP" != 1 ] || { kill $tp; grep -E "gone|/(state|online|hotplug-status) " /tmp/trace.e | sed 's/^/TRACE /'; }
    check vif_gone gone $BE/vif/$G
    check vbd_gone gone $BE/vbd/$G
    check qdisk_gone gone $Q
    echo "LAB info ${story}seconds $(secs $t)"
    check no_qemu until_expect $DD qemus=0. n_qemus
    check no_vif_left expect $DD none "ls /sys/class/net | grep vif$G || echo none"
    check no_loop_left no_loop file.img
    check no_process_left until_expect $DD left=none none_left processes
    check vif_hooks hooks vif 0 'online offline'
    check vbd_hooks hooks vbd 51712 'add remove'; check vbd_dev_hooks hooks vbd 51728 'add remove'
    check no_pid_node gone /local/domain/$DD/libxl/$G
    check no_state_node gone /local/domain/$DD/device-model/$G
}
story_guest_destroyed() { guest_dies xl destroy guest; }
panics() {
    xenstore-write /local/domain/$G/data/cmd "0 echo c > /proc/sysrq-trigger"
    end=$(($(now_s) + PATIENCE))
    while xl domid guest > /dev/null 2>&1; do [ $(now_s) -lt $end ] || return 1; usleep 200000; done
}
story_guest_crashed() { guest_dies panics; }
