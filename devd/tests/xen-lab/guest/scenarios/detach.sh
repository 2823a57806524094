# `xl network-detach` and `xl block-detach` of a running guest, with dom0 kept busy and hooks
# that cost nothing.  They wait for the event of state 6 and only then read the node: a daemon
# that is quicker than they are must let the directory linger, or they fail.

busy() { while :; do :; done & hog=$!; }
idle() { kill $hog; }

# batch KIND COUNT: so many devices are attached, then, with dom0 busy, detached one after the
# other.  $well counts the detaches that exit 0.  $late: no xl gets the processor from when it has
# asked the device to close until the directory has gone, or so many ms after it has closed.
late=
batch() {
    for i in $(seq $2); do
        case $1 in
        network) xl_hot network-attach guest mac=00:16:3e:77:03:$(printf %02x $i) bridge=labbr0 script=costs-nothing backend=driver ;;
        block) xl_hot block-attach guest format=raw,vdev=xvd$(echo $i | tr 12345678 ijklmnop),access=ro,backend=driver,script=costs-nothing,target=/dev/loop6 ;;
        esac > /tmp/attach.$i 2>&1 || { cat /tmp/attach.$i; return 1; }
    done
    case $1 in
    network) ids=$(xl network-list guest | awk '$1 ~ /^[0-9]+$/ && $3 ~ /^00:16:3e:77:03/ {print $1}') dir=vif ;;
    block) ids=$(xl block-list guest | awk '$1 >= 51840 && $1 < 51968 {print $1}') dir=vbd ;;
    esac
    for i in $ids; do is $BE/$dir/$G/$i/state 4 || return 1; done
    [ -n "$late" ] || busy
    for i in $ids; do
        if ${late:+labprobe late $late $BE/$dir/$G/$i} xl $1-detach guest $i > /tmp/detach.$i 2>&1; then well=$((well + 1)); else tail -n 2 /tmp/detach.$i; fi
    done
    [ -n "$late" ] || idle
    for i in $ids; do
        xenstore-rm /libxl/$G/device/$dir/$i 2> /dev/null # a detach that fails leaves it
        gone $BE/$dir/$G/$i || return 1
    done
}
all_exit_0() { # KIND COUNT
    well=0 tried=0
    while [ $tried -lt $2 ]; do
        now=$(($2 - tried)); [ $now -le 8 ] || now=8
        batch $1 $now || return 1
        tried=$((tried + now))
    done
    echo "$well of $tried exit 0"
    [ $well = $2 ]
}
none_exits_0() { # KIND COUNT
    all_exit_0 $1 $2
    [ $tried = $2 ] && [ $well = 0 ]
}
detaches() { # COUNT KIND...
    n=$1; shift
    told 'losetup /dev/loop6 /disks/hot.img'
    for k; do
        check $k all_exit_0 $k $n
        echo "LAB info $story$k $(tail -n 1 /tmp/out)"
    done
    told losetup -d /dev/loop6
}

# Every one of them exits 0.
story_detaches() { detaches 4 network block; }
story_hundred_network_detaches() { detaches 100 network; }
story_hundred_block_detaches() { detaches 100 block; }

# The race, and no luck in it: each xl gets no processor until 50 ms after the device has closed,
# and exits 0.  With `--linger 0`, those that get none before the directory has gone all fail.
story_no_linger() {
    late=50
    detaches 8 network block
    if [ "$DAEMON" = devd ]; then
        told 'stop_daemon TERM; start_daemon --linger 0; losetup /dev/loop6 /disks/hot.img'
        check ready daemon_ready
        for k in network block; do
            late=50
            all_exit_0 $k 8 > /tmp/out 2>&1
            echo "LAB info ${story}without.$k $(tail -n 1 /tmp/out)"
            late=5000
            check without.$k.fail none_exits_0 $k 8
            echo "LAB info ${story}without.$k.gone $(tail -n 1 /tmp/out) $(grep -m 1 -i unable /tmp/out)"
        done
        told 'stop_daemon TERM; start_daemon; losetup -d /dev/loop6'
        check ready_again daemon_ready
    fi
    late=
}
