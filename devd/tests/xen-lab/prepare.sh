#!/bin/bash
# Fetches what the lab needs and the machine need not have installed, a kernel and
# QEMU, and unpacks it into LAB_CACHE.  Quick when it is there already.
#
# Why unpacked, and why always, even where apt would install it: the lab wants QEMU 7.2
# and no other (its software CPU is the one the features switched off in run.sh belong to),
# while a machine may have a newer one, or a qemu-utils from backports, beside which apt
# refuses the 7.2 packages.  Downgrading somebody's QEMU for a test is no option, and one
# way that works everywhere is tested more than two.
set -euo pipefail
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/devd-xen-lab}
qemu_release=7.2
kernel_pkg=${LAB_KERNEL_PKG:-}

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
say() { echo "prepare.sh: $*" >&2; }
# As root apt would drop to a user who cannot write here, and say so at length.
apt_get() { apt-get -qq -o APT::Sandbox::User=root "$@"; }

# ---- kernel: Debian's ordinary one (the cloud flavour cannot be dom0) ----
kernel() {
    local dir=$cache/kernel.new
    if [ -z "$kernel_pkg" ]; then
        kernel_pkg=$(apt-cache depends linux-image-amd64 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1-unsigned/p' | head -n 1)
    fi
    [ -n "$kernel_pkg" ] || { say "apt knows no linux-image-amd64"; exit 1; }
    say "unpacking $kernel_pkg"
    rm -rf "$cache/kernel" "$dir"
    mkdir -p "$dir/dl"
    (cd "$dir/dl" && apt_get download "$kernel_pkg") >&2
    dpkg -x "$dir"/dl/*.deb "$dir"
    rm -r "$dir/dl"
    # Unpacked here once: emulated CPUs would take seconds for it at every boot.
    python3 - "$dir"/boot/vmlinuz-* "$dir/vmlinux" <<'P'
import subprocess, sys
data = open(sys.argv[1], 'rb').read()
for magic, tool in ((b'\xfd7zXZ\0', 'xz'), (b'\x02!L\x18', 'lz4'), (b'\x28\xb5\x2f\xfd', 'zstd'), (b'\x1f\x8b\x08', 'gzip')):
    at = data.find(magic)
    while at >= 0:
        out = subprocess.run([tool, '-dc'], input=data[at:], capture_output=True).stdout
        if out[:4] == b'\x7fELF':
            open(sys.argv[2], 'wb').write(out)
            sys.exit(0)
        at = data.find(magic, at + 1)
sys.exit('no ELF kernel found in ' + sys.argv[1])
P
    mv "$dir" "$cache/kernel"
}

# ---- QEMU: the emulator, and the one that serves disks in the driver domain ----
qemu_runs() {
    [ -x "$cache/qemu/usr/libexec/xen-qemu-system-i386" ] &&
        "$cache/qemu/run" qemu-system-x86_64 -accel help 2> /dev/null | grep -qx tcg &&
        "$cache/qemu/run" qemu-img --version > /dev/null 2>&1
}
qemu() {
    local dir=$cache/qemu.new version want
    version=$(apt-cache madison qemu-system-x86 | awk -F' *[|] *' -v r="1:$qemu_release" 'index($2, r) == 1 {print $2}' | sort -V | tail -n 1)
    [ -n "$version" ] || { say "apt knows no qemu-system-x86 $qemu_release (Debian 12 has it)"; exit 1; }
    say "unpacking QEMU $version"
    rm -rf "$cache/qemu" "$dir"
    mkdir -p "$dir/dl"
    # Which packages are missing?  Ask apt, and let it believe that no QEMU is installed.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/^Package: (qemu|seabios|ipxe)/' /var/lib/dpkg/status > "$dir/status"
    want=$(apt_get -s -o Dir::State::status="$dir/status" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        install --no-install-recommends qemu-system-{x86,common,xen}="$version" qemu-utils="$version" |
        sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\?(\([^ ]*\) .*/\1=\3/p')
    (cd "$dir/dl" && apt_get download $want) >&2
    for deb in "$dir"/dl/*.deb; do dpkg -x "$deb" "$dir"; done
    rm -r "$dir/dl" "$dir/status"
    cat > "$dir/run" <<'R'
#!/bin/sh
# run PROGRAM ARGS...: a program of this tree, with the libraries of this tree.
here=${0%/*}
lib=lib/x86_64-linux-gnu
export LD_LIBRARY_PATH="$here/usr/$lib:$here/$lib" QEMU_MODULE_DIR="$here/usr/$lib/qemu"
p=$here/usr/bin/$1
shift
exec "$p" "$@"
R
    chmod 755 "$dir/run"
    mv "$dir" "$cache/qemu"
    qemu_runs || { say "QEMU does not run:"; "$cache/qemu/run" qemu-system-x86_64 -accel help >&2; exit 1; }
}

# A process for each part: the first attempt may fail for old package lists.
part() {
    "$0" "$1" && return
    say "trying again with fresh package lists"
    if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
    "$0" "$1"
}
case ${1:-} in
kernel) kernel; exit ;;
qemu) qemu; exit ;;
esac
exec 9> "$cache/lock" # two labs may start at once
flock 9
[ -s "$cache/kernel/vmlinux" ] || part kernel
qemu_runs || part qemu
