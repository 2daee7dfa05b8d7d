# setup.sh: sourced by vmrun. prepare fills the cache and sets kernel, rootimg, initrd and qemu.
# All of it is made under a lock, beside its final name, and renamed: a run never sees half of it. Names carry a hash
# of what they were made from, so that two versions of these scripts can share a cache.
# shellcheck shell=bash disable=SC2154,SC2034 # variables go both ways between vmrun and this file

# The small root filesystem: libc programs a container test may want. Their dependencies come along.
guestpackages='apparmor base-files bash bind9-dnsutils busybox-static coreutils criu findutils grep gzip iproute2 kmod mount nftables passwd procps secilc sed strace tar uidmap util-linux'
modules='virtio_mmio virtio_pci virtio_console virtio_blk 9p 9pnet_virtio ext4 crc32c_generic overlay'

hash() { sha256sum | cut -c1-12; }

# need: name the packages that are missing, or install them.
need() {
  local missing=() pair
  case $arch in arm64) set -- qemu-system-aarch64:qemu-system-arm ;; amd64) set -- qemu-system-x86_64:qemu-system-x86 ;; esac
  for pair in "$@" cpio:cpio depmod:kmod xz:xz-utils zstd:zstd lz4:lz4 mkfs.ext4:e2fsprogs setpriv:util-linux dpkg-deb:dpkg \
    /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$install" = 1 ] || die "missing programs; run: apt-get install --no-install-recommends ${missing[*]} (or vmrun --install)"
  apt-get -qq update >&2 || die "apt-get update failed"
  apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 || die "apt-get install ${missing[*]} failed"
}

# mirror LABEL VARIABLE-VALUE: the mirror this machine's apt uses for Debian's archive LABEL.
mirror() {
  [ -z "$2" ] || { echo "$2"; return; }
  apt-get indextargets --format '$(REPO_URI)|$(LABEL)' | awk -F'|' -v l="$1" '$2==l{print $1; exit}'
}

# aptdir ARCH: an apt state of our own for packages of ARCH; the machine's is only asked for its mirrors.
aptdir() {
  local d=$cache/apt-$1 key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]' main sec
  main=$(mirror Debian "${CAISSON_VM_MIRROR:-}") sec=$(mirror Debian-Security "${CAISSON_VM_SECURITY:-}")
  [ -n "$main" ] || die "apt knows no Debian mirror; set CAISSON_VM_MIRROR to one"
  rm -rf "$d"; mkdir -p "$d/lists/partial" "$d/cache/archives/partial"; : > "$d/status"
  printf "deb $key %s main\n" "$main bookworm" "$main bookworm-backports" ${sec:+"$sec bookworm-security"} > "$d/sources"
  cat > "$d/apt.conf" <<CONF
APT { Architecture "$1"; Architectures { "$1"; }; Sandbox::User "root"; Install-Recommends "false"; };
Acquire::Languages "none";
Dir { State "$d"; State::lists "$d/lists"; State::status "$d/status"; Cache "$d/cache"; };
Dir::Etc { sourcelist "$d/sources"; sourceparts "/dev/null"; main "/dev/null"; parts "/dev/null"; };
CONF
  APT_CONFIG=$d/apt.conf apt-get -qq update >&2 || die "apt-get update from $main failed"
  echo "$d"
}

# unpack ARCH SUITE DIR PACKAGES...: fetch exactly these packages and unpack them into DIR.
# With --deps as first package, their dependencies too.
unpack() {
  local d dir=$3 from=() deb; [ "$2" = bookworm ] || from=(-t "$2"); d=$(aptdir "$1") || exit; shift 3
  if [ "$1" = --deps ]; then
    shift; APT_CONFIG=$d/apt.conf apt-get -qq -y "${from[@]}" --download-only install "$@" >&2
  else
    (cd "$d/cache/archives" && APT_CONFIG=$d/apt.conf apt-get -qq "${from[@]}" download "$@" >&2)
  fi || die "fetching $* failed"
  for deb in "$d"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -xpC "$dir" --keep-directory-symlink || die "unpacking $deb failed"
  done
  rm -rf "$d"
}

# kernelname ARCH SUITE: the package behind the meta package linux-image-ARCH.
kernelname() {
  local d v; d=$(aptdir "$1") || exit
  export APT_CONFIG=$d/apt.conf
  [ "$2" = bookworm ] || set -- "$1" "$2" -t "$2" # -t bookworm would put it before bookworm-security
  v=$(apt-cache "${@:3}" policy "linux-image-$1" | awk '/Candidate:/{print $2}')
  apt-cache show "linux-image-$1=$v" | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p'
}

# elfimage FILE: the ELF kernel inside an x86 bzImage. QEMU boots it by PVH and skips the slow decompressor in the guest.
# The header (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c;
# the payload ends with its own length.
elfimage() {
  local sects off len magic filter
  num() { od -An -tu"$2" -j$(($1)) -N"$2" "$3" | tr -d ' '; }
  sects=$(num 0x1f1 1 "$1") off=$(num 0x248 4 "$1") len=$(num 0x24c 4 "$1")
  off=$(((sects + 1) * 512 + off))
  magic=$(od -An -tx1 -j$off -N3 "$1" | tr -d ' ')
  case $magic in
    fd377a) filter='xz -dc --single-stream' ;; 28b52f) filter='zstd -dc' ;;
    02214c) filter='lz4 -dc' ;; 1f8b08) filter='gzip -dc' ;;
    *) die "$1: unknown compression (magic $magic)" ;;
  esac
  (set +o pipefail; tail -c +$((off + 1)) "$1" | head -c $((len - 4)) | $filter) # tail dies of head's early end
}

makekernel() {
  local t=$kernel.new; rm -rf "$t"; mkdir -p "$t/usr"
  local name; name=$(kernelname "$arch" $suite)
  unpack "$arch" $suite "$t" "$name"
  [ -d "$t/lib" ] || ln -s usr/lib "$t/lib"
  depmod -b "$t" "$(ls "$t/lib/modules")"
  case $arch in
    arm64) mv "$t"/boot/vmlinuz-* "$t/image" ;; # is not compressed
    amd64) elfimage "$t"/boot/vmlinuz-* > "$t/image" ;;
  esac
  rm -rf "${t:?}/boot" "${t:?}/usr/share"; mv "$t" "$kernel"
}

# makeroot: unpacked packages, never configured: their scripts would have to run as programs of a foreign architecture.
makeroot() {
  local t=$rootimg.new d; rm -rf "$t"*; mkdir -p "$t/usr/bin" "$t/usr/sbin" "$t/usr/lib" "$t/usr/lib64"
  for d in bin sbin lib lib64; do ln -s usr/$d "$t/$d"; done
  unpack "$arch" bookworm "$t" --deps $guestpackages
  [ "$arch" = amd64 ] || rmdir --ignore-fail-on-non-empty "$t/usr/lib64"
  ln -s bash "$t/usr/bin/sh"
  mkdir -p "$t"/{dev,proc,sys,run,tmp,mnt,root,home/tester,lib/modules,var/tmp}
  cat > "$t/etc/passwd" <<'FILE'
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
tester:x:4000:4000::/home/tester:/bin/bash
FILE
  printf '%s\n' root:x:0: daemon:x:1: bin:x:2: tty:x:5: shadow:x:42: nogroup:x:65534: tester:x:4000: > "$t/etc/group"
  printf '%s:*:19700:0:99999:7:::\n' root daemon bin nobody tester > "$t/etc/shadow"
  echo tester:500000:65536 | tee "$t/etc/subuid" > "$t/etc/subgid"
  printf '%s\n' '127.0.0.1 localhost vm' '::1 localhost' > "$t/etc/hosts"
  printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' > "$t/etc/nsswitch.conf"
  chmod 640 "$t/etc/shadow"; chmod 1777 "$t/tmp" "$t/var/tmp"; chmod 700 "$t/root"; chown -R 4000:4000 "$t/home/tester"
  cp "$t/bin/busybox" "$rootimg.busybox"
  rm -rf "$t"/usr/share/{doc,man,locale,info,bug,lintian}
  truncate -s 4G "$t.img"
  mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1,nodiscard -d "$t" "$t.img"
  mv "$t.img" "$rootimg"; rm -rf "$t"
}

# makeinitrd: static busybox, the two guest scripts and the modules in the order they are to be loaded.
makeinitrd() {
  local t v m path name; t=$(mktemp -d "$cache/initrd.XXXXXX"); v=$(ls "$kernel/lib/modules")
  mkdir -p "$t/bin" "$t/m"; cp "$rootimg.busybox" "$t/bin/busybox"; ln -s busybox "$t/bin/sh"
  cp "$here/guest/init" "$here/guest/run" "$t/"; chmod 755 "$t/init" "$t/run"
  for m in $modules; do modprobe -d "$kernel" -S "$v" --show-depends $m 2>/dev/null || :; done |
    awk '$1=="insmod" && !seen[$2]++ {print $2}' | while read -r path; do
      name=${path##*/}; name=${name%.xz}; echo "$name" >> "$t/m/order"
      case $path in *.xz) xz -dc "$path" ;; *) cat "$path" ;; esac > "$t/m/$name"
    done
  (cd "$t" && find . | cpio -o -H newc --quiet) > "$initrd.new"
  rm -rf "$t"; mv "$initrd.new" "$initrd"
}

# makeqemu: bookworm's QEMU 7.2 starts programs in the guest at a third of the speed of the backport. The backport
# is unpacked, not installed, and runs with the libraries of the installed package.
makeqemu() {
  local t=$backport.new; rm -rf "$t"; mkdir -p "$t"
  unpack "$machine" bookworm-backports "$t" qemu-system-arm qemu-system-x86 qemu-system-common qemu-system-data seabios
  mv "$t" "$backport"
}

prepare() {
  local program; PATH=$PATH:/usr/sbin:/sbin
  need
  mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] || die "$cache: cannot write; set CAISSON_VM_CACHE to another directory"
  kernel=$cache/kernel-$arch-$suite backport=$cache/qemu-backport
  rootimg=$cache/root-$arch-$({ echo "$guestpackages"; declare -f makeroot; } | hash)
  initrd=$kernel.initrd-$({ echo "$modules"; declare -f makeinitrd; cat "$here/guest/init" "$here/guest/run"; } | hash)
  exec 7>>"$cache/lock"; flock 7
  [ -e "$kernel" ] || makekernel
  [ -e "$rootimg" ] || makeroot
  [ -e "$initrd" ] || makeinitrd
  touch -c "$rootimg" "$rootimg.busybox" "$initrd" # what was not used for a month goes
  find "$cache" -maxdepth 1 -type f \( -name 'root-*' -o -name '*.initrd-*' \) -mtime +30 -delete
  case $arch in arm64) program=qemu-system-aarch64 ;; amd64) program=qemu-system-x86_64 ;; esac
  qemu=($program)
  if [ "$($program --version | sed -n 's/.* version \([0-9]*\).*/\1/p')" -lt 8 ]; then
    [ -e "$backport" ] || makeqemu
    ! "$backport/usr/bin/$program" --version >/dev/null 2>&1 ||
      qemu=("$backport/usr/bin/$program" -L "$backport/usr/share/qemu" -L "$backport/usr/share/seabios")
  fi
  exec 7>&-
}
