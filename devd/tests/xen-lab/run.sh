#!/bin/bash
# Boots Xen in QEMU (software emulation) with a PV dom0, a PV driver domain and a
# PV guest, and checks a backend daemon in the driver domain.  See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
export LAB_CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/devd-xen-lab}
mkdir -p "$LAB_CACHE"
cache=$(cd "$LAB_CACHE" && pwd)
newest() { ls -d "$@" 2> /dev/null | grep -v common | sort -V | tail -n 1; }
xen_gz=${LAB_XEN:-$(newest /boot/xen-*-amd64.gz || true)}
xen_bin=${LAB_XEN_BIN:-$(newest /usr/lib/xen-*/bin || true)}

daemon=devd daemon_args= scripts=stub cycles=30 burst=10 dump=0 limit=600 patience= log=
qdisk=0 p9=0 scenarios= pile=0
usage() {
    sed -n 's/^# \{0,1\}//; 2,3p' "$0"
    cat <<'U'
usage: run.sh [options]
  --daemon devd|xl|PATH                                                     (devd)
                       devd: this project's, built here, static; xl: Xen's own
                       `xl devd -F`; PATH: a program that stays in the foreground
  --daemon-args ARGS   more arguments for it (xl: options before `devd`)
  --scripts stub|real|fast|none                                             (stub)
                       hotplug scripts: the small ones of hotplug/, those of
                       /etc/xen/scripts (bash), or, for the attach/detach cycles
                       only, hotplug/costs-nothing.c; none: the
                       driver domain has no scripts, and no tool that a script needs
  --cycles N           attach/detach cycles per kind, 0: none               (30)
  --burst N            devices at once in the burst part                    (10)
  --qdisk              disks served by a real QEMU that the daemon starts
  --p9                 a 9pfs share, served by a QEMU that the daemon starts
  --scenarios [LIST]   what goes wrong in real life; LIST: core, all, or the names
                       of stories, as in vbd3,kexec (all); with a QEMU in the image
  --patience S         how long a check waits for what must come, S seconds
                       (120; for a daemon that is not devd, 20)
  --pile N             attach N devices of each kind, one behind the other, and keep
                       them all: how long do the 1st, the 50th, the last take?  With
                       --scripts real then the same with `xl devd`
  --dump               print the xenstore trace, permissions, every cycle
  --limit S            give up after S seconds                              (600)
  --log FILE           keep the whole console there  (default: in the cache)
U
    exit "$1"
}
while [ $# -gt 0 ]; do
    case $1 in
    --daemon) daemon=$2; shift ;;
    --daemon-args) daemon_args=$2; shift ;;
    --scripts) scripts=$2; shift ;;
    --cycles) cycles=$2; shift ;;
    --burst) burst=$2; shift ;;
    --qdisk) qdisk=1 ;;
    --p9) p9=1 ;;
    --scenarios)
        case ${2:-} in ''|-*) scenarios=all ;; *) scenarios=$2; shift ;; esac ;;
    --pile) pile=$2; shift ;;
    --dump) dump=1 ;;
    --patience) patience=$2; shift ;;
    --limit) limit=$2; shift ;;
    --log) log=$2; shift ;;
    -h|--help) usage 0 ;;
    *) echo "run.sh: unknown option $1" >&2; usage 2 ;;
    esac
    shift
done

[ -z "$scenarios" ] || [ "$scripts" = stub ] || { echo "run.sh: --scenarios needs --scripts stub" >&2; exit 2; }
[ -n "$xen_gz" ] && [ -n "$xen_bin" ] || { echo "run.sh: no Xen (Debian: xen-hypervisor-4.17-amd64 xen-utils-4.17)" >&2; exit 2; }

[ -n "$patience" ] || { [ "$daemon" = devd ] && patience=120 || patience=20; }
name=$daemon
work=$(mktemp -d "$cache/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=${log:-$cache/last.log}
now() { date +%s.%N; }
took() { awk "BEGIN{printf \"%.2f\", $(now) - $1}"; }

# ---- the parts ----
t_start=$(now)
"$here/prepare.sh"
qemu_lib=$cache/qemu/usr/lib/x86_64-linux-gnu:$cache/qemu/lib/x86_64-linux-gnu
qemu_bin=
if [ $qdisk = 1 ] || [ $p9 = 1 ] || [ -n "$scenarios" ]; then
    qemu_bin=${LAB_QEMU:-$cache/qemu/usr/libexec/xen-qemu-system-i386}
fi
kver=$(basename "$cache"/kernel/lib/modules/*)
gunzip -c "$xen_gz" > "$work/xen"
cc -O2 -Wall -o "$work/labprobe" "$here/probe.c" -lxenstore
if [ "$daemon" = devd ]; then
    daemon=$("$top/dist/build" static)
    # Programs start slowly here: upstream's scripts start a hundred for a disk, and stories hold
    # hooks up while they look at something else.
    case $scripts,$scenarios in
    real,*) daemon_args="--hook-timeout 300 $daemon_args" ;;
    *,?*) daemon_args="--hook-timeout 90 $daemon_args" ;;
    esac
    daemon_args="--foreground --script-dir /etc/xen/scripts $daemon_args"
fi

# ---- images ----
# new_root DIR: an empty tree with merged /usr and busybox.
new_root() {
    mkdir -p "$1"/usr/{bin,sbin,lib,lib64,local/bin} "$1"/{etc,lab,var,tmp,root}
    local d; for d in bin sbin lib lib64; do ln -s usr/$d "$1/$d"; done
    put "$1" "$(command -v busybox)" /usr/bin/busybox
    ln -s busybox "$1/usr/bin/sh"
    # libxl and libxenstore cancel threads: glibc loads this one at run time.
    put "$1" "$(ldconfig -p | sed -n 's/.*libgcc_s.so.1 (libc6,x86-64) => //p' | head -n 1)"
}
# put ROOT FILE [PLACE]: copy a program and the libraries it needs.
put() {
    local lib place
    install -D -m 755 "$2" "$1/${3:-$2}"
    for lib in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do
        place=$1${lib#"$cache/qemu"}
        [ -e "$place" ] || install -D -m 755 "$(readlink -f "$lib")" "$place"
    done
}
modules() { # ROOT MODULE...
    local root=$1 m f d; shift
    for m in "$@"; do
        m=${m//_/-}
        f=$(find "$cache/kernel/lib/modules" -name "$m.ko" -o -name "${m//-/_}.ko" | head -n 1)
        [ -n "$f" ] || continue # built in
        d=$root/${f#"$cache/kernel/"}
        [ ! -e "$d" ] || continue
        install -D -m 644 "$f" "$d"
        modules "$root" $(modinfo -F depends "$f" | tr ',' ' ')
    done
}
pack() { # ROOT FILE
    [ ! -d "$1/lib/modules" ] || depmod -b "$1" "$kver" 2>/dev/null
    (cd "$1" && find . | cpio -o -H newc --quiet) > "$2"
}
scripts_into() { # ROOT
    mkdir -p "$1/etc/xen/scripts"
    if [ "$scripts" = none ]; then
        rmdir "$1/etc/xen/scripts"
        touch "$1/lab/bare"
        return
    fi
    if [ "$scripts" = real ] || [ -n "$scenarios" ]; then
        cp -a /etc/xen/scripts/. "$1/etc/xen/scripts/"
        put "$1" /bin/bash /usr/bin/bash
        put "$1" "$(command -v flock)" /usr/bin/flock
    fi
    if [ "$scripts" != real ]; then
        [ -z "$scenarios" ] || mv "$1/etc/xen/scripts/block" "$1/etc/xen/scripts/upstream-block"
        install -m 755 "$here"/hotplug/{block,vif-bridge,vif-fails-twice} "$1/etc/xen/scripts/"
        local kind
        for kind in vif block; do
            install -m 755 "$here/hotplug/slow" "$1/etc/xen/scripts/$kind-slow"
            install -m 755 "$here/hotplug/hang" "$1/etc/xen/scripts/$kind-hang"
        done
    fi
    cc -O2 -Wall -static -o "$1/etc/xen/scripts/costs-nothing" "$here/hotplug/costs-nothing.c" -lxenstore -lxentoolcore
}

g=$work/guest
new_root "$g"
for f in xenstore-read xenstore-write xenstore-watch xenstore-rm xenstore-ls xenstore-list xenstore-exists; do
    put "$g" "$(command -v $f)" /usr/bin/$f
done
install -m 755 "$here"/guest/{common,driver,guest}.sh "$g/lab/"
modules "$g" xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs bridge loop xen-netback xen-blkback xen-netfront xen-blkfront
[ $p9 = 0 ] && [ -z "$scenarios" ] || modules "$g" 9pnet_xen 9p
[ -z "$scenarios" ] || modules "$g" tun
scripts_into "$g"
if [ "$daemon" = xl ]; then
    put "$g" "$xen_bin/xl" /usr/sbin/xl
    touch "$g/etc/xen/xl.conf"
    echo "exec /usr/sbin/xl $daemon_args \"\$@\" devd -F" > "$work/start"
else
    put "$g" "$daemon" /usr/sbin/lab-daemon
    echo "exec /usr/sbin/lab-daemon $daemon_args \"\$@\"" > "$work/start"
fi
{ echo '#!/bin/sh'; cat "$work/start"; } > "$g/lab/start-daemon"
chmod 755 "$g/lab/start-daemon"
if [ "$pile" != 0 ] && [ "$scripts" = real ] && [ "$daemon" != xl ]; then
    put "$g" "$xen_bin/xl" /usr/sbin/xl
    touch "$g/etc/xen/xl.conf"
    printf '#!/bin/sh\nexec /usr/sbin/xl devd -F\n' > "$g/lab/start-xl"
    chmod 755 "$g/lab/start-xl"
fi
pack "$g" "$work/guest.img"

d=$work/dom0
new_root "$d"
mkdir -p "$d/img"
mv "$work/guest.img" "$d/img/guest.img"
if [ -n "$qemu_bin" ]; then
    # A second archive: dom0 puts it behind the first for the driver domain only.
    q=$work/qemu
    mkdir -p "$q"/usr/{bin,lib,lib64} "$q/disks"
    ln -s usr/lib "$q/lib"; ln -s usr/lib64 "$q/lib64"
    # The path is the one compiled into xl; devd finds it there too.
    LD_LIBRARY_PATH=$qemu_lib put "$q" "$qemu_bin" /usr/libexec/xen-qemu-system-i386
    # What QEMU serves: the same kind of file as in guest/driver.sh, once in qcow2.
    printf 'LAB-DISK-qcow2-MAGIC\n' > "$work/raw"
    truncate -s 16M "$work/raw"
    "$cache/qemu/run" qemu-img convert -f raw -O qcow2 "$work/raw" "$q/disks/q.qcow2"
    (cd "$q" && find . -type f) | while read -r f; do [ ! -e "$g/$f" ] || rm "$q/$f"; done
    pack "$q" "$d/img/qemu.img"
fi
cp "$cache/kernel/vmlinux" "$d/img/vmlinux"
for f in xenstored xen-init-dom0 xenconsoled xl; do put "$d" "$xen_bin/$f" "/usr/sbin/$f"; done
for f in xenstore-read xenstore-write xenstore-watch xenstore-rm xenstore-ls xenstore-list; do
    put "$d" "$(command -v $f)" /usr/bin/$f
done
put "$d" "$xen_bin/xenstore-control" /usr/bin/xenstore-control
put "$d" "$work/labprobe" /usr/bin/labprobe
mkdir -p "$d/etc/xen" "$d/usr/lib/$(basename "$(dirname "$xen_bin")")"
echo 'autoballoon="off"' > "$d/etc/xen/xl.conf"
install -m 755 "$here"/guest/{common,dom0,qdisk,p9}.sh "$d/lab/"
if [ -n "$scenarios" ]; then
    cp -r "$here/guest/scenarios" "$d/lab/"
    put "$d" "$xen_bin/libxl-save-helper"
    # A PV kernel that is never run: a guest that only has to be there needs no more.
    cc -nostdlib -static -no-pie -Wl,-n,--build-id=none -Wl,-Ttext=0x200000 -Wl,--section-start=.note.Xen=0x202000 \
        -o "$d/img/idle" "$here/guest/idle.S"
fi
cat > "$d/lab/config" <<C
CYCLES=$cycles
SANITY=${LAB_SANITY:-15}
BURST=$burst
SCRIPTS=$scripts
DAEMON=$name
PATIENCE=$patience
DUMP=$dump
PILE=$pile
PILE_KINDS="${LAB_PILE_KINDS:-vif vbd_dev vbd_file}"
QDISK=$qdisk
P9=$p9
SCENARIOS=$scenarios
QEMU=${qemu_bin:+1}
DRIVER_MB=${LAB_DRIVER_MB:-$([ -n "$qemu_bin" ] && echo 512 || echo 256)}
GUEST_MB=${LAB_GUEST_MB:-256}
C
modules "$d" xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs loop
pack "$d" "$work/dom0.img"
echo "LAB host images $(took "$t_start")"

# ---- run ----
# QEMU 7.2's software CPU needs two features off.  smap: it faults on IRET from ring 3
# to ring 3, and a PV kernel runs in ring 3.  avx (and xsave, which carries it): programs
# in the guests get random segmentation faults.
t_boot=$(now)
exec {console}> >(sed -u 's,\r,,g' | tee "$log" |
    grep --line-buffered -aE '^(LAB|TRACE|XS|LEFT|probe) |DAEMON|panic|Oops|crashed')
filter=$!
timeout "$limit" "$cache/qemu/run" qemu-system-x86_64 \
    -L "$cache/qemu/usr/share/qemu" -L "$cache/qemu/usr/share/seabios" -machine pc -accel "${LAB_ACCEL:-tcg,thread=multi}" \
    -cpu "${LAB_CPU:-max,-smap,-xsave,-avx,-avx2}" -m "${LAB_MB:-3072}" -smp "${LAB_SMP:-2}" \
    -nographic -no-reboot -nic none -kernel "$work/xen" \
    -append "dom0_mem=1G,max:1G dom0_max_vcpus=1 console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning ${LAB_XEN_ARGS:-}" \
    -initrd "$cache/kernel/vmlinux console=hvc0 loglevel=4 panic=1 rdinit=/lab/dom0.sh,$work/dom0.img" \
    < /dev/null >&"$console" 2>&1 &
qemu=$!
trap 'kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
wait "$qemu" || true
exec {console}>&-
wait "$filter" || true
echo "LAB host qemu $(took "$t_boot")"
echo "LAB host total $(took "$t_start")"
if grep -aq '^LAB done' "$log" && ! grep -aq '^LAB FAIL' "$log"; then
    echo "LAB result ok"
else
    echo "LAB result FAIL (console: $log)"
    exit 1
fi
