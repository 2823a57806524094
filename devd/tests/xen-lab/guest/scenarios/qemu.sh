# A guest's QEMU.  (That it starts with the first disk and ends with the last, and that data
# come through whole, is in qdisk.sh and p9.sh.)

# QEMU dies under two connected disks: both say so; the next disk gets a new one, which leaves
# those two alone; all can be detached, and the last takes the new QEMU with it.
story_qemu_killed() {
    check first_attach attach_qdisk xvdg q1
    check second_attach attach_qdisk xvdi q3
    check first_state4 is $Q/51808/state 4
    check second_state4 is $Q/51840/state 4
    told 'kill -9 $(qemus)'
    # Either nothing claims any more that one runs, or one runs.
    check noticed until_expect $DD honest qemu_honest $G
    check first_reported fails qdisk 51808 QEMU
    check second_reported fails qdisk 51840 QEMU
    check next_attach attach_qdisk xvdh q2
    check next_state4 is $Q/51824/state 4
    [ "$(xenstore-read $Q/51824/state)" != 4 ] || check next_read expect $G LAB-DISK-q2-MAGIC disk_test xvdh
    check lost_stay_lost is $Q/51808/hotplug-status error
    detach block xvdg; detach block xvdh; detach block xvdi
    check first_gone gone $Q/51808
    check second_gone gone $Q/51840
    check next_gone gone $Q/51824
    check no_qemu until_expect $DD qemus=0. n_qemus
    check no_nodes gone /local/domain/$DD/device-model/$G
}

# The same under a share, which a new QEMU would take up as it is: none may start before the
# share is gone, and the disk that waits for one then gets it.
story_share_lost_its_qemu() {
    ask $G 'modprobe 9pnet_xen' > /dev/null
    add 9pfs 3 other:/share
    check share_state4 is $BE/9pfs/$G/3/state 4
    told 'kill -9 $(qemus)'
    check share_reported fails 9pfs 3 QEMU
    add qdisk 51872 raw:/disks/q2.img
    check disk_told_why fails qdisk 51872 share
    check no_new_qemu expect $DD qemus=0. n_qemus
    check share_gone closes 9pfs 3
    check disk_state4 is $Q/51872/state 4
    check disk_gone closes qdisk 51872
    check no_qemu until_expect $DD qemus=0. n_qemus
}

# ---- a second driver domain: its config lacks driver_domain=1, and netback comes late ----

D2=
second_domain() {
    [ -z "$D2" ] || return 0
    { guest_cfg second "$DRIVER_MB" driver.sh | sed 's/guest.img/driver.img/; s/rdinit=/lab.late &/'; } > /tmp/second.cfg
    check second_domain xl create /tmp/second.cfg
    D2=$(xl domid second)
    B2=/local/domain/$D2/backend
    follow /var/log/xen/console/guest-second.log '[second]' &
}
# hooks of a device there; its end
hooks2() { until_expect $D2 "hooks=[$3]." "hooks_of $1/$G $2"; }
closes2() { labprobe close $1 $D2 $G $2 $PATIENCE; }

# Without driver_domain=1 a qdisk cannot be served, and says why; others are.
begin_not_a_driver_domain() {
    second_domain
    labprobe add qdisk $D2 $G 52112 raw:/disks/q1.img
    labprobe add vbd $D2 $G 100000 /disks/hot.img
}
story_not_a_driver_domain() {
    check ready is /local/domain/$D2/data/ready 1
    check vbd_served is $B2/vbd/$G/100000/hotplug-status connected
    e=$(appears $B2/qdisk/$G/52112/hotplug-error)
    check qdisk_says_why test -z "${e##*driver_domain=1*}" -a -n "$e"
    echo "LAB info ${story}qdisk state=$(xenstore-read $B2/qdisk/$G/52112/state) $e"
    check qdisk_gone closes2 qdisk 52112
    check vbd_gone closes2 vbd 100000
    check no_qemu expect $D2 qemus=0. n_qemus
}
