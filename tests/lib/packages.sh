# shellcheck shell=bash disable=SC2034
# Reference tools: which Debian package brings which program. Sourced by tests/run and demo.

# program:package
all_tools="
mkntfs:ntfs-3g ntfscp:ntfs-3g ntfs-3g:ntfs-3g
mkfs.exfat:exfatprogs mount.exfat-fuse:exfat-fuse
mkfs.fat:dosfstools mcopy:mtools
7zz:7zip
qemu-img:qemu-utils qemu-io:qemu-utils qemu-storage-daemon:qemu-utils qemu-nbd:qemu-utils
vmdkmount:libvmdk-utils vhdimount:libvhdi-utils
vmfs-fuse:vmfs-tools vmfs6-fuse:vmfs6-tools
fls:sleuthkit
fusermount3:fuse3 setfattr:attr sfdisk:fdisk sgdisk:gdisk losetup:mount
wimlib-imagex:wimtools
mke2fs:e2fsprogs mkfs.xfs:xfsprogs pvcreate:lvm2 ldmtool:ldmtool
nbdcopy:libnbd-bin shellcheck:shellcheck rsync:rsync
"
sample_tools="
mkntfs:ntfs-3g ntfscp:ntfs-3g mkfs.fat:dosfstools mcopy:mtools
qemu-img:qemu-utils qemu-io:qemu-utils wimlib-imagex:wimtools
"

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Prints the packages whose programs are missing, each once.
missing_packages() {
    local pair
    for pair in $1; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done | sort -u
}

# Installs what is missing of a list like those above, or says how to.
install_tools() {
    local packages sudo="" log
    mapfile -t packages < <(missing_packages "$1")
    [ "${#packages[@]}" -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            sudo="sudo -n"
        else
            echo "missing reference tools; as root: apt-get install --no-install-recommends ${packages[*]}" >&2
            return 1
        fi
    fi
    if ! command -v apt-get >/dev/null; then
        echo "missing reference tools, and no apt-get here to install them with: ${packages[*]}" >&2
        return 1
    fi
    echo "installing: ${packages[*]}" >&2
    log=$(mktemp)
    $sudo apt-get -qq update >"$log" 2>&1 || true
    if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -y -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "${packages[@]}" >>"$log" 2>&1; then
        # One name that this release does not have must not keep the others away.
        local package
        for package in "${packages[@]}"; do
            DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -y -o Dpkg::Use-Pty=0 \
                install --no-install-recommends "$package" >>"$log" 2>&1 ||
                echo "could not install $package (see $log)" >&2
        done
    fi
    mapfile -t packages < <(missing_packages "$1")
    [ "${#packages[@]}" -eq 0 ] || { echo "still missing: ${packages[*]}" >&2; return 1; }
    rm -f "$log"
}

# The C compiler and linker that Rust itself needs.
require_rust() {
    # shellcheck source=/dev/null
    command -v cargo >/dev/null || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
    command -v cargo >/dev/null || { echo "Rust is missing: https://rustup.rs" >&2; exit 1; }
}
