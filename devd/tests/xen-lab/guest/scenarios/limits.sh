# Many devices at once.  The driver domain owns their nodes and, in its kernel, their watches:
# xenstored refuses it more than 1000 nodes and 128 watches.

# Two vifs added, and removed, at the same moment; and one taken away before it is served.
story_two_at_once() {
    check pairs labprobe cycle vif $DD $G 770 6 2 labbr0 $PATIENCE
    add vif 780 labbr0
    check quick_gone closes vif 780
    check no_vif_left expect $DD none "ls /sys/class/net | grep -E 'vif$G[.]7[78]' || echo none"
}

quota() { # the highest numbers while it runs
    while :; do xenstore-control quota $DD; sleep 1; done > /tmp/quota 2>&1 & qp=$!
}
quota_end() {
    kill $qp
    echo "LAB info $story$1.max $(sed 's/ *: */ /' /tmp/quota | awk '/^(nodes|watches|transactions|outstanding)/ {if ($2 > m[$1]) m[$1] = $2} END {for (k in m) printf "%s=%s ", k, m[k]}')"
}
burst() { # NAME GUESTS FIRST COUNT SECONDS: vifs and disks together, with a script that costs nothing
    set -- $1 $2 $3 $4 $5,$PATIENCE # not all will be served, but what closes must go
    quota
    labprobe cycle vif $DD $2 $3 $4 $4 labbr0 $5 $(script costs-nothing) > /tmp/burst.vif 2>&1 & m=$!
    labprobe cycle vbd $DD $2 ${3}000 $4 $4 /dev/loop6 $5 $(script costs-nothing) > /tmp/burst.vbd 2>&1
    wait $m
    quota_end $1
    for k in vif vbd; do
        echo "LAB info $story$1.$k $(sed -n 's/^PROBE '$k' \(attach\|detach\) n=\([0-9]*\) min_ms=\([0-9.]*\) .*\(max_ms=[0-9.]*\).*/\1 n=\2 min_ms=\3 \4/p' /tmp/burst.$k | tr '\n' ' ') never: $(for s in initwait connected closed gone; do printf '%s=%s ' $s $(grep -c "timeout: .*: $s" /tmp/burst.$k); done)"
    done
}
# What does not close was given up by the driver domain's kernel: it says so of each.
rest_given_up() {
    for k in vif vbd; do
        for d in $(ask $DD "dmesg | grep -o '$k-[0-9]*-[0-9]* failed' | cut -d' ' -f1"); do echo $d; done > /tmp/given_up
        timed_out initwait >> /tmp/given_up
        echo none >> /tmp/given_up # an empty list would match everything
        timed_out closed | grep -vxF -f /tmp/given_up && return 1
    done
    return 0
}
timed_out() { sed -n "s,.*/backend/$k/\([0-9]*\)/\([0-9]*\): $1,$k-\1-\2,p" /tmp/burst.$k; } # STEP
never() { ! grep -E "timeout: .*: ($1)" /tmp/burst.vif /tmp/burst.vbd; }
watches() { xenstore-control quota $DD | sed 's/ *: */ /' | awk '/^watches/ {print $2}'; }
one_watch() { # The daemon has one watch in use: so many fewer are there when it is stopped.
    with=$(watches)
    told stop_daemon TERM
    without=$(watches)
    told start_daemon
    echo "$with watches with the daemon, $without without"
    [ $((with - without)) = 1 ]
}

# Sixteen of both fit.  Twice as many nodes as allowed do not: not all can be served, but they
# must go, and leave no harm behind; the next device is served.
story_forty() {
    told 'losetup /dev/loop6 /disks/hot.img'
    check one_watch one_watch
    burst sixteen $G 300 16 $PATIENCE
    check sixteen.served never 'initwait|connected|gone'
    burst forty $G 400 40 30
    check forty.taken_away never gone
    check daemon_survived expect $DD rss_kB daemon_stats
    check serves_after daemon_ready
    check no_vif_left expect $DD none "ls /sys/class/net | grep -E 'vif$G[.][34]' || echo none"
    told losetup -d /dev/loop6
}

# 65 vifs and 65 disks, of five guests, more than the watches that the domain may have.  Those for
# which the store refuses them a node or a watch netback and blkback give up: they never close, and
# go when the toolstack has no more patience.
story_hundred_thirty() {
    told 'losetup /dev/loop6 /disks/hot.img'
    guests=$G
    for i in 1 2 3 4; do check guest$i idle_guest many$i; guests=$guests,$(xl domid many$i); done
    burst all $guests 500 65 60
    check taken_away never gone
    check rest_given_up rest_given_up
    check daemon_survived expect $DD rss_kB daemon_stats
    check serves_after daemon_ready
    check no_vif_left expect $DD none "ls /sys/class/net | grep -E 'vif[0-9]*[.]5' || echo none"
    for i in 1 2 3 4; do xl destroy many$i; done
    told losetup -d /dev/loop6
}
