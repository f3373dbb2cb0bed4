# Sourced by deploy/prove-image.sh: Debian roots in place of base images, and commands inside a root.
# shellcheck shell=sh

# inside ROOT COMMAND...: with /proc, a few devices and nothing else of this machine; what is mounted goes with it.
# From the caller: `identity`, `directory`, `network` (options of unshare), `environment` (NAME=VALUE words, without
# spaces in a value), and `readonly`: "yes" is a container engine's --read-only --tmpfs /tmp.
inside() {
  root=$1
  shift
  # shellcheck disable=SC2016,SC2086 # expanded by the inner shell; the options are meant to split
  PROVE_ROOT=$root PROVE_RUST=$(cat "$root.rust" 2>/dev/null || true) PROVE_IDENTITY=$identity PROVE_DIRECTORY=$directory \
    PROVE_ENVIRONMENT=$environment PROVE_READONLY=$readonly \
    unshare --mount --pid --fork --kill-child $network -- sh -euc '
    root=$PROVE_ROOT
    mount --make-rprivate /
    if [ "$PROVE_READONLY" = yes ]; then
      mount --bind "$root" "$root"
      mount -o remount,bind,ro,nosuid,nodev "$root"
      mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmp "$root/tmp"
    fi
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for device in null zero full random urandom; do
      : >"$root/dev/$device"
      mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir -p "$root/dev/shm"
    if [ "$PROVE_READONLY" = yes ]; then
      mount -o remount,ro "$root/dev"
    else
      mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
    fi
    path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    if [ -n "$PROVE_RUST" ]; then
      mkdir -p "$root/usr/local/rust"
      mount --bind "$PROVE_RUST" "$root/usr/local/rust"
      mount -o remount,bind,ro "$root/usr/local/rust"
      path=/usr/local/rust/bin:$path
      set -- CARGO_HOME=/usr/local/cargo "$@"
    fi
    exec chroot --userspec="$PROVE_IDENTITY" --groups= "$root" \
      env -i -C "$PROVE_DIRECTORY" PATH="$path" HOME=/nonexistent $PROVE_ENVIRONMENT "$@"
  ' sh "$@"
}

# What Debian's slim images leave out of every package, and so out of what is installed on top of them.
slim() {
  cat <<'EXCLUDES'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/groff/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/linda/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/man/*
EXCLUDES
}

# base IMAGE ROOT: a fresh root that stands for a base image. From the caller: `work`, `mirror` and `cargo_home`.
base() {
  image=$1 root=$2
  rust=''
  case "$image" in
    debian:*-slim) suite=${image#debian:} suite=${suite%-slim} ;;
    rust:*-slim-*) suite=${image##*-} rust=${image#rust:} rust=${rust%%-slim-*} ;;
    *) fail "no stand-in for the base image '$image'" ;;
  esac
  if [ ! -e "$work/$suite/.complete" ]; then
    say "debootstrap of $suite from $mirror"
    rm -rf "${work:?}/$suite"
    debootstrap --variant=minbase "$suite" "$work/$suite" "$mirror" >"$work/debootstrap.log" 2>&1 ||
      { tail -n 5 "$work/debootstrap.log" >&2; fail "debootstrap of $suite failed"; }
    touch "$work/$suite/.complete"
  fi
  rm -rf "$root" "$root.rust"
  cp -a "$work/$suite" "$root"
  rm "$root/.complete"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  # As Debian's official images: no downloaded package stays, and no documentation but licences.
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/groff "$root"/usr/share/info/* "$root"/usr/share/linda "$root"/usr/share/lintian "$root"/usr/share/man/*
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  find "$root/usr/share/doc" -type l -delete
  find "$root/usr/share/locale" -mindepth 1 -maxdepth 1 ! -name locale.alias -exec rm -rf {} +
  slim >"$root/etc/dpkg/dpkg.cfg.d/docker"
  echo 'APT::Keep-Downloaded-Packages "false"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Acquire::Languages "none";
    DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' >"$root/etc/apt/apt.conf.d/docker-clean"
  if [ -n "$rust" ]; then
    toolchain=$(readlink -f "$(rustc --print sysroot)")
    case "$("$toolchain/bin/rustc" --version)" in
      "rustc $rust."*) ;;
      *) fail "$image is wanted, and this machine's Rust is $("$toolchain/bin/rustc" --version)" ;;
    esac
    printf '%s' "$toolchain" >"$root.rust"
    mkdir -p "$root/usr/local/cargo/registry"
    for part in cache index; do
      if [ -d "$cargo_home/registry/$part" ]; then cp -a "$cargo_home/registry/$part" "$root/usr/local/cargo/registry/"; fi
    done
    identity=0:0 network='' environment='DEBIAN_FRONTEND=noninteractive' directory=/ readonly=no
    # What the official image holds besides Rust.
    inside "$root" sh -c 'apt-get -qq update && apt-get -qq install -y --no-install-recommends ca-certificates gcc libc6-dev' >"$work/base.log" 2>&1 ||
      fail "could not install gcc in the stand-in for $image: see $work/base.log"
  fi
}
