# Hooks that fail, hang, are missing, are late; and kinds of devices that the guest has none of.

# A hook that never ends, and whose child ignores SIGTERM: after the time-out the whole
# group is gone and the device says why; others are served meanwhile.  In the second driver
# domain, beside the other stories.
begin_hook_hangs() {
    second_domain
    labprobe add vbd $D2 $G 100016 /disks/hot.img $(script block-hang)
    labprobe add vbd $D2 $G 100032 /disks/hot.img
}
story_hook_hangs() {
    check ready is /local/domain/$D2/data/ready 1
    check other_served is $B2/vbd/$G/100032/hotplug-status connected
    e=$(appears $B2/vbd/$G/100016/hotplug-error)
    check reported test -n "$e"
    echo "LAB info ${story}error $e"
    check no_process_left until_expect $D2 hangers=0. n_hangers
    check hung_gone closes2 vbd 100016
    check other_gone closes2 vbd 100032
    check nothing_left_there until_expect $D2 left=none none_left processes
}

# A device whose backend comes up a minute late (netback was not loaded) gets its hook then.
begin_late_backend() {
    second_domain
    labprobe add vif $D2 $G 101 labbr0
    late_since=$(now_s)
}
story_late_backend() {
    check ready is /local/domain/$D2/data/ready 1
    until [ $(now_s) -gt $((late_since + 61)) ]; do sleep 1; done
    check not_yet is $B2/vif/$G/101/state 1
    check no_hook_yet hooks2 vif 101 ''
    check netback_comes expect $D2 loaded 'modprobe xen-netback && echo loaded'
    check served is $B2/vif/$G/101/hotplug-status connected
    check goes closes2 vif 101
    check hooks hooks2 vif 101 'online offline'
}

# A hook that fails twice, with words of its own, and then works: served, and the words go.
story_hook_fails_then_works() {
    add vif 720 labbr0 $(script vif-fails-twice)
    add vif 721 labbr0
    check told fails vif 720 'not yet'
    check other_served served vif 721
    check served served vif 720
    check words_gone gone $BE/vif/$G/720/hotplug-error
    check both_go closes vif 720 721
    check hooks hooks vif 720 'online online online offline'
}

# A bridge that is missing is the vif's error; when it is there the vif is served.
story_bridge_missing() {
    add vif 722 nobr0
    check told fails vif 722 nobr0
    told brctl addbr nobr0
    check served served vif 722
    check on_it expect $DD vif$G.722 ls /sys/class/net/nobr0/brif
    check goes closes vif 722
    told brctl delbr nobr0
}

# `script` or `type` is missing, names nothing, or names a program elsewhere: the device's error
# names what is wrong, that program is not run, others are served; put right, it is served.  (But
# for the vif without `script`: that one netback itself gives up, for good.)
story_script_missing() {
    told 'mkdir -p /tmp/planted; printf "#!/bin/sh\n: > /run/planted\n" > /tmp/planted/vif-planted; chmod 755 /tmp/planted/vif-planted; echo'
    add vif 730 labbr0 -script
    add vif 731 labbr0 -type
    add vif 732 labbr0 $(script vif-nonesuch)
    add vif 733 labbr0 script=/tmp/planted/vif-planted
    add vif 734 labbr0 script=/etc/xen/scripts/../../../tmp/planted/vif-planted
    add vbd 730000 /disks/hot.img -script
    add vif 735 labbr0
    check no_script fails vif 730 script
    check no_type fails vif 731 type
    check no_such_script fails vif 732 vif-nonesuch
    check elsewhere fails vif 733 vif-planted
    check elsewhere_by_dots fails vif 734 vif-planted
    check no_block_script fails vbd 730000 script
    check other_served served vif 735
    check not_run expect $DD none 'ls /run/planted 2> /dev/null || echo none'
    drop vif 730
    for i in 732 733 734; do xenstore-write $BE/vif/$G/$i/script /etc/xen/scripts/vif-bridge; done
    xenstore-write $BE/vif/$G/731/type vif $BE/vbd/$G/730000/script /etc/xen/scripts/block
    check put_right served vif 731 732 733 734
    check block_put_right served vbd 730000
    check go closes vif 731 732 733 734 735
    check block_goes closes vbd 730000
    check hooks hooks vif '731 732 733 734 735' 'online offline'
    check block_hooks hooks vbd 730000 'add remove'
}

# The second pass of a vif_ioemu, for the emulated interface, both ways.  (Nobody emulates a
# network card here: the lab makes the interface.)
story_vif_ioemu() {
    told "modprobe tun; tunctl -t vif$G.740-emu"
    add vif 740 labbr0 type=vif_ioemu
    check served served vif 740
    check both_passes hooks vif 740 'online add'
    check both_on_bridge expect $DD "vif$G.740 vif$G.740-emu" 'ls /sys/class/net/labbr0/brif'
    check goes closes vif 740
    check both_passes_back hooks vif 740 'online add offline remove'
    told tunctl -d vif$G.740-emu
}

# A vbd3 is served as a vbd is.  (tapback is not there: the story writes its states.)
story_vbd3() {
    add vbd3 741 /disks/hot.img
    check no_hook_in_state_1 hooks vbd3 741 ''
    xenstore-write $BE/vbd3/$G/741/state 2
    check served served vbd3 741
    xenstore-write $BE/vbd3/$G/741/state 4
    check goes closes vbd3 741
    check hooks hooks vbd3 741 'add remove'
}

# The file of a disk is deleted before the disk is detached: its loop device is freed.
story_file_deleted() {
    told 'cp /disks/hot.img /disks/shortlived.img'
    add vbd 742000 /disks/shortlived.img
    check served served vbd 742000
    told rm /disks/shortlived.img
    check goes closes vbd 742000
    check loop_freed no_loop shortlived
    check hooks hooks vbd 742000 'add remove'
}

# The same file, to be written by two guests.  Upstream's script lets the second have it, since it
# looks for who they are where a driver domain may not read: shown, and not judged.  devd's
# built-in hook names the one that has it, and gives it to the second when the first lets go; and
# it frees the loop device of a file that is deleted meanwhile.
story_disk_of_two_guests() {
    check other_guest idle_guest other
    G2=$(xl domid other)
    add vbd 743000 /disks/q3.img mode=w $(script upstream-block)
    check upstream.first_served served vbd 743000
    labprobe add vbd $DD $G2 743000 /disks/q3.img mode=w $(script upstream-block)
    echo "LAB info ${story}upstream.second $(labprobe appears $PATIENCE $BE/vbd/$G2/743000/hotplug-status)"
    check upstream.second_goes labprobe close vbd $DD $G2 743000 $PATIENCE
    check upstream.first_goes closes vbd 743000
    if [ "$DAEMON" = devd ]; then
        told 'stop_daemon TERM; start_daemon --hooks builtin'
        told cp /disks/q3.img /disks/shared.img
        add vbd 743016 /disks/shared.img mode=w
        check first_served served vbd 743016
        labprobe add vbd $DD $G2 743016 /disks/shared.img mode=w
        e=$(appears $BE/vbd/$G2/743016/hotplug-error)
        check second_refused test -z "${e##*guest $G has*}" -a -n "$e"
        echo "LAB info ${story}second $e"
        check first_goes closes vbd 743016
        check second_served is $BE/vbd/$G2/743016/hotplug-status connected
        told rm /disks/shared.img
        check second_goes labprobe close vbd $DD $G2 743016 $PATIENCE
        check loop_freed no_loop shared.img
        told 'stop_daemon TERM; start_daemon'
        check ready daemon_ready
    fi
    check other_guest_goes xl destroy other
}
