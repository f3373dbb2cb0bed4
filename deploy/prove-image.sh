#!/bin/sh
# Proves the Dockerfile where no container engine is: runs its very steps in Debian roots made by debootstrap, then the
# built binary as the image's user, without network.
#
#   deploy/prove-image.sh [DIRECTORY]     root needed; DIRECTORY (default: a temporary one, removed) keeps the roots,
#                                         which makes the next run fast
#
# Interpreted: FROM, WORKDIR, COPY (with --from), RUN, ENV, USER, EXPOSE, ENTRYPOINT, CMD; anything else stops it. The
# base images are stood in for: debian:SUITE-slim by debootstrap's smallest root of that suite, and rust:V-slim-SUITE by
# the same with gcc, this machine's Rust V and a copy of its crate cache. The mirror is the one of this machine's apt.
# Nothing of this machine can be written to from inside: the toolchain is mounted read-only and without rustup, which
# would "repair" an installation that it sees through a chroot.
set -eu
cd "$(dirname "$0")/.."
say() { printf 'prove-image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
[ "$(id -u)" = 0 ] || fail 'chroot and mounts need root: run it with sudo'
command -v debootstrap >/dev/null || fail "debootstrap is missing: run 'apt-get install debootstrap'"

if [ $# -gt 0 ]; then
  work=$(mkdir -p "$1" && cd "$1" && pwd)
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mirror=$(apt-get indextargets --format '$(SITE) $(LABEL) $(CREATED_BY)' | awk '$2 == "Debian" && $3 == "Packages" { print $1; exit }')
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE) $(CREATED_BY)' | awk '$2 == "Packages" && $1 ~ /\/debian\/?$/ { print $1; exit }')
[ -n "$mirror" ] || fail "found no Debian mirror in this machine's apt sources"
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# inside ROOT COMMAND...: with /proc, a few devices and nothing else of this machine; what is mounted goes with it.
# `identity`, `network`, `environment` (NAME=VALUE lines) and `directory` come from the caller.
inside() {
  root=$1
  shift
  # shellcheck disable=SC2016,SC2086 # expanded by the inner shell; the options are meant to split
  PROVE_ROOT=$root PROVE_RUST=$(cat "$root/.rust" 2>/dev/null || true) PROVE_IDENTITY=$identity PROVE_DIRECTORY=$directory \
    PROVE_ENVIRONMENT=$environment \
    unshare --mount --pid --fork --kill-child $network -- sh -euc '
    root=$PROVE_ROOT
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for device in null zero full random urandom; do
      : >"$root/dev/$device"
      mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir -p "$root/dev/shm"
    mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
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

# A fresh root that stands for a base image.
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
  rm -rf "$root"
  cp -a "$work/$suite" "$root"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  # As Debian's official images: no downloaded package stays.
  rm -f "$root"/var/cache/apt/archives/*.deb
  echo 'APT::Keep-Downloaded-Packages "false"; DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' \
    >"$root/etc/apt/apt.conf.d/docker-clean"
  if [ -n "$rust" ]; then
    toolchain=$(readlink -f "$(rustc --print sysroot)")
    case "$("$toolchain/bin/rustc" --version)" in
      "rustc $rust."*) ;;
      *) fail "$image is wanted, and this machine's Rust is $("$toolchain/bin/rustc" --version)" ;;
    esac
    printf '%s' "$toolchain" >"$root/.rust"
    mkdir -p "$root/usr/local/cargo/registry"
    for part in cache index; do
      if [ -d "$cargo_home/registry/$part" ]; then cp -a "$cargo_home/registry/$part" "$root/usr/local/cargo/registry/"; fi
    done
    identity=0:0 network='' environment='DEBIAN_FRONTEND=noninteractive' directory=/
    # What the official image holds besides Rust.
    inside "$root" sh -c 'apt-get -qq update && apt-get -qq install -y --no-install-recommends ca-certificates gcc libc6-dev' >"$work/base.log" 2>&1 ||
      fail "could not install gcc in the stand-in for $image: see $work/base.log"
  fi
}

# The build context: what .dockerignore lets through, which here is a list of what it does not ignore.
context() {
  [ "$(grep -v '^#' .dockerignore | head -n 1)" = '*' ] || fail '.dockerignore no longer begins with *: teach this script'
  # shellcheck disable=SC2046 # names without spaces
  tar -cf - $(sed -n 's/^!//p' .dockerignore) | tar -xf - -C "$1"
}

stages='' current='' root='' user=0:0 entry='' arguments='' variables='' place=/
copy() {
  from=$context
  case "$1" in --from=*) from=$work/stage-${1#--from=}; shift ;; esac
  target=$2
  case "$target" in /*) ;; *) target=$place/$target ;; esac
  mkdir -p "$root$(dirname "$target/x" | sed 's|/x$||')"
  if [ -d "$from/$1" ]; then
    mkdir -p "$root$target" && cp -a "$from/$1/." "$root$target/"
  else
    rmdir "$root$target" 2>/dev/null || true
    mkdir -p "$root$(dirname "$target")" && cp -a "$from/$1" "$root$target"
  fi
}
# ["a", "b"] to a b
list() { printf '%s' "$1" | sed 's/^\[//; s/\]$//; s/[",]/ /g'; }

context=$work/context
rm -rf "$context" && mkdir -p "$context" && context "$context"

# One instruction a line: comments gone, continued lines joined.
sed '/^[[:space:]]*#/d; /^[[:space:]]*$/d' Dockerfile | sed -e ':a' -e '/\\$/N; s/\\\n//; ta' >"$work/steps"
while read -r instruction rest <&3; do
  say "$instruction $rest"
  # shellcheck disable=SC2086 # arguments of an instruction are meant to split
  case "$instruction" in
    FROM)
      set -- $rest
      current=${3:-final}
      root=$work/stage-$current place=/ user=0:0 variables=''
      base "$1" "$root"
      stages="$stages $current"
      ;;
    WORKDIR) place=$rest && mkdir -p "$root$place" ;;
    COPY) copy $rest ;;
    RUN)
      started=$(date +%s)
      identity=$user network='' environment=$variables directory=$place
      inside "$root" sh -c "$rest" >"$work/run.log" 2>&1 || { tail -n 30 "$work/run.log" >&2; fail "that step failed"; }
      say "  done in $(($(date +%s) - started)) s"
      ;;
    ENV) variables="$variables $rest" ;;
    USER) user=$rest ;;
    EXPOSE) ;;
    ENTRYPOINT) entry=$(list "$rest") ;;
    CMD) arguments=$(list "$rest") ;;
    *) fail "cannot interpret $instruction: teach this script" ;;
  esac
done 3<"$work/steps"
[ "$user" != 0:0 ] && [ -n "$entry" ] && [ -n "$arguments" ] || fail 'the last stage lacks a user of its own, an entry point or a command'

say "as $user, without network, with the sandbox required:"
mkdir -p "$root/in" "$root/out" && chmod 777 "$root/out"
cp fixtures/documents/plain/invoice.docx fixtures/documents/plain/budget.xlsx fixtures/documents/plain/deck.pptx "$root/in/"
identity=$user network=--net environment="$variables SANDBOX=required" directory=/
# shellcheck disable=SC2086
inside "$root" $entry --version
# shellcheck disable=SC2086
inside "$root" $entry convert /in/invoice.docx /in/budget.xlsx /in/deck.pptx --out /out --json
for name in invoice budget deck; do
  [ "$(head -c 5 "$root/out/$name.pdf")" = '%PDF-' ] || fail "$name.pdf is no PDF"
done
# The image's own command starts: without its settings it must say so, with the code for wrong configuration.
status=0
# shellcheck disable=SC2086
inside "$root" $entry $arguments >"$work/serve.log" 2>&1 || status=$?
[ "$status" = 64 ] || { cat "$work/serve.log" >&2; fail "'$entry $arguments' without settings ended with $status, not 64"; }
say "good: image of $(du -sm --exclude=proc --exclude=dev "$root" | cut -f1) MB, binary of $(du -m "$root/usr/local/bin/platen" | cut -f1) MB"
