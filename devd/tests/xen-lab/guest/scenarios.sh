# Sourced by dom0.sh with --scenarios: what goes wrong in real life.  Each letter is one
# story; a correct daemon passes every check.  $SCENARIOS is "all" or letters: a,b,e.
# vifs and vbds whose numbers are no ethX, xvdX are labprobe's: only the driver domain works,
# the guest does not see them (but 51840, which is xvdi).
# Every story has numbers of its own, so that what one leaves behind is not in the next's way.
Q=$BE/qdisk/$G
want() { case ,$SCENARIOS, in *,all,* | *,$1,*) ;; *) return 1 ;; esac; }
begin() { echo "LAB info scenario.$1 at=$(uptime)"; }
# Ready when it serves one device.
daemon_ready() { labprobe cycle vif $DD $G 900 1 1 labbr0 ${1:-20}; }
# What the story before has left goes away, so that each is judged on its own.
fresh() {
    for d in $(xenstore-ls -f $BE | sed -n 's,/online = "0".*,,p'); do xenstore-rm $d; done
    ask $DD fresh_daemon > /dev/null
    daemon_ready > /tmp/out 2>&1 || echo "LAB info not_ready"
}
attach_qdisk() { xl_hot block-attach guest backendtype=qdisk,format=raw,vdev=$1,access=rw,backend=driver,target=/disks/$2.img; }
# xl waits ten seconds for the backend, then removes what it can: do not wait for xl.
detach() { xl $1-detach guest $2 > /tmp/xl.$2 2>&1 & }
no_loop() { expect $DD none "losetup -a | grep $1 || echo none"; }
left() { echo "LAB info $1.left $(xenstore-ls -f $BE | grep -E '/(vif|vbd|qdisk)/[0-9]+/[0-9]+/(state|online|hotplug-status) ' | sed "s,$BE/,,; s, = ,=," | tr '\n' ' ') $(ask $DD "n_qemus; echo pids=\$(qemus); losetup -a | cut -d: -f1,3 | tr '\n' ' '")"; }

# b: SIGKILL with devices connected, start again, then take the devices away.  (First:
#    the devices of the guest's config are known to this daemon only.)
story_b() {
    check b.qdisk_attach attach_qdisk xvde q1
    check b.qdisk_state4 is $Q/51776/state 4 60
    pid=$(ask $DD qemus $G); pid=${pid% }
    check b.killed expect $DD stopped "stop_daemon KILL; : > /run/hooks.log"
    ask $DD 'start_daemon; echo started' > /dev/null
    check b.ready daemon_ready
    check b.qemu_kept_and_alone expect $DD "qemus:$pid:" "echo qemus:\$(qemus $G):"
    check b.no_hook_again expect $DD hooks=0. "n_hooks '[a-z-]*' '[a-z]*' $G/[05]"
    detach network 0; detach block xvda; detach block xvde
    check b.vif_gone gone $BE/vif/$G/0 7
    check b.vbd_gone gone $BE/vbd/$G/51712 1
    check b.qdisk_gone gone $Q/51776 1
    check b.no_qemu until_expect 3 $DD qemus=0. n_qemus
    check b.vif_hook_once expect $DD hooks=1. n_hooks vif-bridge offline vif/$G/0
    check b.vbd_hook_once expect $DD hooks=1. n_hooks block remove vbd/$G/51712
    check b.loop_freed no_loop file.img
    left b
}

# a: devices that come while the daemon is stopped.
story_a() {
    ask $DD stop_daemon TERM > /dev/null
    check a.qdisk_attach attach_qdisk xvdf q2
    labprobe add vif $DD $G 700 labbr0; labprobe add vbd $DD $G 700000 /disks/hot.img
    usleep 500000
    ask $DD 'start_daemon; echo started' > /dev/null
    check a.vif_served is $BE/vif/$G/700/hotplug-status connected 10
    check a.vbd_served is $BE/vbd/$G/700000/hotplug-status connected 10
    check a.qdisk_state4 is $Q/51792/state 4 15
    [ "$(xenstore-read $Q/51792/state)" != 4 ] || check a.guest_reads expect $G LAB-DISK-q2-MAGIC disk_test xvdf
    check a.vif_gone labprobe close vif $DD $G 700 8
    check a.vbd_gone labprobe close vbd $DD $G 700000 8
    detach block xvdf
    check a.qdisk_gone gone $Q/51792 7
    check a.no_qemu until_expect 2 $DD qemus=0. n_qemus
}

# d: QEMU dies under a connected disk.
story_d() {
    check d.qdisk_attach attach_qdisk xvdg q1
    check d.qdisk_state4 is $Q/51808/state 4 30
    ask $DD 'kill -9 $(qemus); echo' > /dev/null
    # Either nothing claims any more that one runs, or one runs.
    check d.noticed until_expect 6 $DD honest qemu_honest $G
    left d
    check d.new_disk attach_qdisk xvdh q2
    check d.new_disk_state4 is $Q/51824/state 4 15
    [ "$(xenstore-read $Q/51824/state)" != 4 ] || check d.new_disk_read expect $G LAB-DISK-q2-MAGIC disk_test xvdh
    detach block xvdg; detach block xvdh
    check d.old_gone gone $Q/51808 7
    check d.new_gone gone $Q/51824 1
    check d.no_qemu until_expect 2 $DD qemus=0. n_qemus
    check d.no_nodes gone /local/domain/$DD/device-model/$G 1
    left d_end
}

# c: dom0 loses patience and removes the directories; then the same numbers again.
story_c() {
    for round in 1 2; do
        labprobe add vif $DD $G 710 labbr0
        labprobe add vbd $DD $G 710000 /disks/hot.img
        labprobe add qdisk $DD $G 51840 raw:/disks/q2.img
        check c.vif_served$round is $BE/vif/$G/710/hotplug-status connected 5
        check c.vbd_served$round is $BE/vbd/$G/710000/hotplug-status connected 3
        check c.qdisk_served$round is $Q/51840/state 4 15
        [ "$(xenstore-read $Q/51840/state)" = 4 ] || echo "LAB info c.qemu_log $(ask $DD "n_qemus; tail -n 4 /var/log/xen/qdisk-$G.log; xenstore-ls device-model/$G/state")"
        [ $round = 1 ] || break
        labprobe drop vif $DD $G 710
        labprobe drop vbd $DD $G 710000
        labprobe drop qdisk $DD $G 51840
        check c.vif_hook until_expect 4 $DD hooks=1. n_hooks vif-bridge offline vif/$G/710
        check c.vbd_hook until_expect 1 $DD hooks=1. n_hooks block remove vbd/$G/710000
        check c.no_qemu until_expect 2 $DD qemus=0. n_qemus
        left c
    done
    check c.vif_gone labprobe close vif $DD $G 710 8
    check c.vbd_gone labprobe close vbd $DD $G 710000 8
    check c.qdisk_gone labprobe close qdisk $DD $G 51840 5
    check c.no_qemu_end until_expect 4 $DD qemus=0. n_qemus
    labprobe drop vif $DD $G 710; labprobe drop vbd $DD $G 710000; labprobe drop qdisk $DD $G 51840
}

# g: hotplug scripts that fail or never end; c and f run while they do.
story_g() {
    g0=$(uptime)
    labprobe add vif $DD $G 740 labbr0 /etc/xen/scripts/vif-hang
    labprobe add vif $DD $G 741 labbr0 /etc/xen/scripts/vif-fail
    labprobe add vif $DD $G 742 labbr0
    labprobe add vbd $DD $G 740000 /disks/hot.img
    check g.other_vif_served is $BE/vif/$G/742/hotplug-status connected 8
    check g.other_vbd_served is $BE/vbd/$G/740000/hotplug-status connected 8
    check g.failure_reported appears $BE/vif/$G/741/hotplug-error 5
    check g.other_vif_gone labprobe close vif $DD $G 742 8
    check g.other_vbd_gone labprobe close vbd $DD $G 740000 8
    check g.failed_gone labprobe close vif $DD $G 741 8
    labprobe drop vif $DD $G 741
    ! want c || story_c
    ! want f || story_f
    t=$(awk "BEGIN{printf \"%d\", 48 - $(uptime) + $g0}")
    check g.hang_reported appears $BE/vif/$G/740/hotplug-error $t
    echo "LAB info g.hang_seconds $(secs $g0) $(ask $DD n_hangers)"
    check g.hang_killed until_expect 5 $DD hangers=0. n_hangers
    check g.hung_gone labprobe close vif $DD $G 740 8
    labprobe drop vif $DD $G 740
}

# f: two vifs added, and removed, at the same moment; and one taken away before it is served.
story_f() {
    check f.pairs labprobe cycle vif $DD $G 730 6 2 labbr0 15
    labprobe add vif $DD $G 750 labbr0
    check f.quick_gone labprobe close vif $DD $G 750 15
    check f.no_vif_left expect $DD none "ls /sys/class/net | grep -E 'vif$G[.]7[35]' || echo none"
}

# h: many devices at once.  The driver domain owns their nodes and, in its kernel, their
#    watches: xenstored refuses it more than 1000 nodes and 128 watches.
quota() { # the highest numbers while it runs
    while :; do xenstore-control quota $DD; usleep 200000; done > /tmp/quota 2>&1 & qp=$!
}
quota_end() {
    kill $qp
    echo "LAB info h.$1.max $(sed 's/ *: */ /' /tmp/quota | awk '/^(nodes|watches|transactions|outstanding)/ {if ($2 > m[$1]) m[$1] = $2} END {for (k in m) printf "%s=%s ", k, m[k]}')"
}
burst() { # NAME FIRST COUNT: vifs and disks together, with a script that costs nothing
    quota
    export LABPROBE_SCRIPT=/lab/fast/costs-nothing
    labprobe cycle vif $DD $G $2 $3 $3 labbr0 20 > /tmp/burst.vif 2>&1 & m=$!
    labprobe cycle vbd $DD $G ${2}000 $3 $3 /dev/loop6 20 > /tmp/burst.vbd 2>&1
    wait $m
    unset LABPROBE_SCRIPT
    quota_end $1
    for k in vif vbd; do
        echo "LAB info h.$1.$k $(sed -n 's/^PROBE '$k' \(attach\|detach\) n=\([0-9]*\) min_ms=\([0-9.]*\) .*\(max_ms=[0-9.]*\).*/\1 n=\2 min_ms=\3 \4/p' /tmp/burst.$k | tr '\n' ' ') never: $(for s in initwait connected closed gone; do printf '%s=%s ' $s $(grep -c "timeout: .*: $s" /tmp/burst.$k); done)"
    done
}
never() { ! grep -E "timeout: .*: ($1)" /tmp/burst.vif /tmp/burst.vbd; }
story_h() {
    ask $DD 'losetup /dev/loop6 /disks/hot.img; echo' > /dev/null
    burst sixteen 300 16 # fits
    check h.sixteen.served never 'initwait|connected|gone'
    burst forty 400 40   # twice as many nodes as allowed: not all can be served ...
    check h.forty.taken_away never gone # ... but they must go, and leave no harm behind
    check h.daemon_survived expect $DD rss_kB daemon_stats
    check h.serves_after daemon_ready 8
    check h.no_vif_left expect $DD none "ls /sys/class/net | grep -E 'vif$G[.][34]' || echo none"
}

# i: a driver domain whose config lacks driver_domain=1.
story_i() {
    { guest_cfg driver2 "$DRIVER_MB" driver.sh | sed 's/guest.img/driver.img/'; } > /tmp/driver2.cfg
    check i.create xl create /tmp/driver2.cfg
    D2=$(xl domid driver2)
    follow /var/log/xen/console/guest-driver2.log '[driver2]' &
    check i.ready is /local/domain/$D2/data/ready 1 60
    xenstore-ls /local/domain/$D2 | grep -E '^(libxl|device-model|backend) ' | sed 's/^/LAB info i.node /'
    B2=/local/domain/$D2/backend
    labprobe add vif $D2 $G 0 labbr0; labprobe add vbd $D2 $G 100000 /disks/hot.img
    labprobe add qdisk $D2 $G 51840 raw:/disks/q1.img
    check i.vif_served is $B2/vif/$G/0/hotplug-status connected 10
    check i.vbd_served is $B2/vbd/$G/100000/hotplug-status connected 10
    check i.qdisk_served_or_error appears $B2/qdisk/$G/51840/hotplug-error 20
    echo "LAB info i.qdisk state=$(xenstore-read $B2/qdisk/$G/51840/state) $(ask $D2 n_qemus) $(ask $D2 'tail -n 2 /var/log/xen/qdisk-*')"
    check i.vif_gone labprobe close vif $D2 $G 0 8
    check i.vbd_gone labprobe close vbd $D2 $G 100000 8
    check i.qdisk_gone labprobe close qdisk $D2 $G 51840 8
    xl destroy driver2
}

# e: a guest is destroyed with everything attached.  (Last, with a guest and a daemon of its own.)
story_e() {
    xl destroy guest
    for k in vif vbd qdisk; do xenstore-rm $BE/$k/$G 2>/dev/null; done
    ask $DD 'fresh_daemon; for l in 0 1 2 3 4 5; do losetup -d /dev/loop$l; done' > /dev/null
    [ "$QDISK" = 1 ] || sed -i 's,^disk=\[,&"backendtype=qdisk\,format=raw\,vdev=xvde\,access=rw\,backend=driver\,target=/disks/q1.img"\,,' /tmp/guest.cfg
    check e.create xl create /tmp/guest.cfg
    G=$(xl domid guest); Q=$BE/qdisk/$G
    check e.qdisk_state4 is $Q/51776/state 4 60
    check e.vif_state4 is $BE/vif/$G/0/state 4 20
    check e.vbd_state4 is $BE/vbd/$G/51712/state 4 20
    [ "$DUMP" != 1 ] || { labprobe trace $BE > /tmp/trace.e 2>&1 & tp=$!; }
    t=$(uptime)
    check e.destroy xl destroy guest
    [ "$DUMP" != 1 ] || { kill $tp; grep -E "gone|/(state|online|hotplug-status) " /tmp/trace.e | sed 's/^/TRACE /'; }
    check e.vif_gone gone $BE/vif/$G 3
    check e.vbd_gone gone $BE/vbd/$G 3
    check e.qdisk_gone gone $Q 3
    echo "LAB info e.seconds $(secs $t)"
    check e.no_qemu until_expect 4 $DD qemus=0. n_qemus
    check e.no_vif_left expect $DD none "ls /sys/class/net | grep vif$G || echo none"
    check e.no_loop_left no_loop file.img
    check e.no_process_left until_expect 2 $DD left=none none_left processes
    check e.vif_hook_once expect $DD hooks=1. n_hooks vif-bridge offline vif/$G/0
    check e.vbd_hooks_once expect $DD hooks=2. n_hooks block remove vbd/$G/
    check e.no_pid_node gone /local/domain/$DD/libxl/$G 3
    check e.no_state_node gone /local/domain/$DD/device-model/$G 3
    left e
}

for story in b a d g c f h i e; do
    want $story || continue
    case $story in c | f) ! want g || continue ;; esac # have run inside g
    begin $story
    case $story in b | e) ;; *) fresh ;; esac
    story_$story
    check $story.daemon_alive expect $DD rss_kB daemon_stats
done
echo "LAB info qemu.log $(ask $DD 'tail -n 6 /var/log/xen/qdisk-*.log')"
echo "LAB info daemon.log $(ask $DD 'grep -vE "libxl_cpu_bitmap_alloc" /var/log/daemon.log | tail -n 12')"
