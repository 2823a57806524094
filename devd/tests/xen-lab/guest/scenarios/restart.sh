# The daemon ends, and is started again.

# SIGKILL with devices connected, start again, then take the devices away: each removal hook
# runs once, QEMU is neither lost nor doubled.
story_killed_while_connected() {
    check qdisk_attach attach_qdisk xvde q1
    check qdisk_state4 is $Q/51776/state 4
    pid=$(ask $DD qemus $G); pid=${pid% }
    check killed expect $DD stopped stop_daemon KILL
    told 'start_daemon; : > /run/hooks.log'
    check ready daemon_ready
    check qemu_kept_and_alone expect $DD "qemus:$pid:" "echo qemus:\$(qemus $G):"
    check no_vif_hook hooks vif 0 ''
    check no_vbd_hook hooks vbd 51712 ''
    detach network 0; detach block xvda; detach block xvde
    check vif_gone gone $BE/vif/$G/0
    check vbd_gone gone $BE/vbd/$G/51712
    check qdisk_gone gone $Q/51776
    check no_qemu until_expect $DD qemus=0. n_qemus
    check vif_hook_once hooks vif 0 offline
    check vbd_hook_once hooks vbd 51712 remove
    check loop_freed no_loop file.img
}

# Devices that come while no daemon runs are served when it starts.
story_attached_while_stopped() {
    check stopped expect $DD stopped stop_daemon TERM
    check qdisk_attach attach_qdisk xvdf q2
    add vif 700 labbr0; add vbd 700000 /disks/hot.img
    told start_daemon
    check vif_served served vif 700
    check vbd_served served vbd 700000
    check qdisk_state4 is $Q/51792/state 4
    [ "$(xenstore-read $Q/51792/state)" != 4 ] || check guest_reads expect $G LAB-DISK-q2-MAGIC disk_test xvdf
    check vif_gone closes vif 700
    check vbd_gone closes vbd 700000
    detach block xvdf
    check qdisk_gone gone $Q/51792
    check no_qemu until_expect $DD qemus=0. n_qemus
}

# The daemon ends with a device in every state, and with hooks of both kinds at work; some
# devices close before the next one starts.  No hook runs twice, none is left out, what is to go
# goes.  (1 is a vbd3's, which no kernel takes up; 4 the guest's own.)
restart() { # SIGNAL FIRST
    local n=$2 i fe=/local/domain/$G/labprobe
    told ': > /run/hooks.log'
    add vbd3 ${n}01 /disks/hot.img
    for i in 2 5 6 7; do add vif $n$i labbr0; add vbd ${n}0$i /disks/hot.img; done
    add vif ${n}9 labbr0 $(script vif-slow); add vbd ${n}09 /disks/hot.img $(script block-slow)
    check vifs_served served vif ${n}2 ${n}5 ${n}6 ${n}7 ${n}9
    check vbds_served served vbd ${n}02 ${n}05 ${n}06 ${n}07 ${n}09
    # 5: its frontend does not answer.  6: closed, but wanted.
    xenstore-write $BE/vif/$G/${n}5/online 0 $BE/vif/$G/${n}5/state 5 \
        $BE/vbd/$G/${n}05/online 0 $BE/vbd/$G/${n}05/state 5
    xenstore-write $fe/vif/${n}6/state 6 $fe/vbd/${n}06/state 6
    check closed_and_wanted is $BE/vif/$G/${n}6/state 6 $BE/vbd/$G/${n}06/state 6
    # 8: the add hook is at work.  9: the removal hook is.
    told hold online add offline remove
    add vif ${n}8 labbr0 $(script vif-slow); add vbd ${n}08 /disks/hot.img $(script block-slow)
    closing vif ${n}9; closing vbd ${n}09
    check vif_add_hook_runs hooks vif ${n}8 waits-online
    check vbd_add_hook_runs hooks vbd ${n}08 waits-add
    check vif_removal_hook_runs hooks vif ${n}9 'waits-online online waits-offline'
    check vbd_removal_hook_runs hooks vbd ${n}09 'waits-add add waits-remove'

    check ended expect $DD stopped stop_daemon $1
    # 7: closes while no daemon runs.
    closing vif ${n}7; closing vbd ${n}07
    check closed_meanwhile is $BE/vif/$G/${n}7/state 6 $BE/vbd/$G/${n}07/state 6
    told start_daemon
    check ready daemon_ready ${n}0
    told release

    for i in 7 9; do check vif$i.gone gone $BE/vif/$G/$n$i; check vbd$i.gone gone $BE/vbd/$G/${n}0$i; done
    check vif8_served served vif ${n}8; check vbd8_served served vbd ${n}08
    check vbd3_waits is $BE/vbd3/$G/${n}01/state 1
    xenstore-write $BE/vbd3/$G/${n}01/state 2
    check vbd3_served served vbd3 ${n}01
    xenstore-write $fe/vif/${n}6/state 1 $fe/vbd/${n}06/state 1
    check wanted_is_back is $BE/vif/$G/${n}6/state 2 $BE/vbd/$G/${n}06/state 2
    check wanted_is_served served vif ${n}6; check wanted_disk_is_served served vbd ${n}06
    check guests_own_disk expect $G LAB-DISK-dev-MAGIC disk_test xvdb
    check vifs_go closes vif ${n}2 ${n}5 ${n}6 ${n}8
    check vbds_go closes vbd ${n}02 ${n}05 ${n}06 ${n}08
    check vbd3_goes closes vbd3 ${n}01
    check vif_hooks hooks vif "${n}2 ${n}5 ${n}6 ${n}7" 'online offline'
    check vbd_hooks hooks vbd "${n}02 ${n}05 ${n}06 ${n}07" 'add remove'
    check slow_vif_hooks hooks vif "${n}8 ${n}9" 'waits-online online waits-offline offline'
    check slow_vbd_hooks hooks vbd "${n}08 ${n}09" 'waits-add add waits-remove remove'
    check vbd3_hooks hooks vbd3 ${n}01 'add remove'
    check no_hook_of_guests_own hooks vbd 51728 ''
}
story_restart_term() { restart TERM 61; }
story_restart_kill() { restart KILL 62; }
