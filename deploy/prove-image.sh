#!/bin/sh
# Proves the Dockerfile where no container engine is: runs its very steps in Debian roots made by debootstrap, packs and
# unpacks the result as a registry does, and converts documents in it as the image's user, on a read-only root with
# nothing but /tmp to write to, without network, with the sandbox required. Prints what each step adds.
#
#   deploy/prove-image.sh [--build-arg NAME=VALUE]... [DIRECTORY]
#       root needed; DIRECTORY (default: a temporary one, removed) keeps the roots, which makes the next run fast: a stage
#       whose steps and files have not changed is taken as it is, as a container engine does
#   DOCUMENTS=DIR    converts every file of DIR in it, besides, to DIRECTORY/proof/documents
#
# Interpreted: FROM, ARG, WORKDIR, COPY (with --from), RUN, ENV, USER, EXPOSE, ENTRYPOINT, CMD; anything else stops it. The
# base images are stood in for: debian:SUITE-slim by debootstrap's smallest root of that suite without what slim images
# leave out, and rust:V-slim-SUITE by the same with gcc, this machine's Rust V and a copy of its crate cache. The mirror is
# the one of this machine's apt. Nothing of this machine can be written to from inside: the toolchain is mounted read-only
# and without rustup, which would "repair" an installation that it sees through a chroot.
set -eu
cd "$(dirname "$0")/.."
say() { printf 'prove-image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
[ "$(id -u)" = 0 ] || fail 'chroot and mounts need root: run it with sudo'
command -v debootstrap >/dev/null || fail "debootstrap is missing: run 'apt-get install debootstrap'"

given=''
while [ "${1:-}" = --build-arg ]; do
  case "${2:-}" in [A-Z]*=*) ;; *) fail '--build-arg takes NAME=VALUE' ;; esac
  given="$given$2
"
  shift 2
done
if [ $# -gt 0 ]; then
  work=$(mkdir -p "$1" && cd "$1" && pwd)
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
fi
mirror=$(apt-get indextargets --format '$(SITE) $(LABEL) $(CREATED_BY)' | awk '$2 == "Debian" && $3 == "Packages" { print $1; exit }')
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE) $(CREATED_BY)' | awk '$2 == "Packages" && $1 ~ /\/debian\/?$/ { print $1; exit }')
[ -n "$mirror" ] || fail "found no Debian mirror in this machine's apt sources"
cargo_home=${CARGO_HOME:-$HOME/.cargo}

. deploy/image-root.sh

# The build context: what .dockerignore lets through, which here is a list of what it does not ignore.
context() {
  [ "$(grep -v '^#' .dockerignore | head -n 1)" = '*' ] || fail '.dockerignore no longer begins with *: teach this script'
  # shellcheck disable=SC2046 # names without spaces
  tar -cf - $(sed -n 's/^!//p' .dockerignore) | tar -xf - -C "$1"
}

current='' root='' user=0:0 entry='' arguments='' variables='' assignments='' place=/ kept=no key='' readonly=no
copy() {
  from=$context
  case "$1" in --from=*) from=$work/stage-${1#--from=}; shift ;; esac
  for target; do :; done
  case "$target" in /*) ;; *) target=$place/$target ;; esac
  while [ $# -gt 1 ]; do
    if [ -d "$from/$1" ]; then
      mkdir -p "$root$target" && cp -a "$from/$1/." "$root$target/"
    else
      case "$target" in */) mkdir -p "$root$target" ;; *) mkdir -p "$root$(dirname "$target")" ;; esac
      cp -a "$from/$1" "$root$target"
    fi
    shift
  done
}
# ["a", "b"] to a b
list() { printf '%s' "$1" | sed 's/^\[//; s/\]$//; s/[",]/ /g'; }
size() { du -skx "$1" | cut -f 1; }
# Adds a row to the table of the stage: what was added since the last one.
row() {
  now=$(size "$root")
  printf '%8.1f MB %8.1f MB  %s\n' "$(echo "$now $before" | awk '{ print ($1 - $2) / 1024 }')" \
    "$(echo "$now" | awk '{ print $1 / 1024 }')" "$(printf '%.70s' "$1")" >>"$root.sizes"
  before=$now
}

context=$work/context
rm -rf "$context" && mkdir -p "$context" && context "$context"
content=$(tar -C "$context" --sort=name --mtime=@0 --owner=0 --group=0 -cf - . | sha256sum)

# One instruction a line: comments gone, continued lines joined.
sed '/^[[:space:]]*#/d; /^[[:space:]]*$/d' Dockerfile | sed -e ':a' -e '/\\$/N; s/\\\n//; ta' >"$work/steps"
number=0
while read -r instruction rest <&3; do
  say "$instruction $rest"
  # shellcheck disable=SC2086 # arguments of an instruction are meant to split
  case "$instruction" in
    FROM)
      [ -z "$root" ] || printf '%s' "$key" >"$root.key"
      set -- $rest
      number=$((number + 1))
      current=${3:-final}
      root=$work/stage-$current place=/ user=0:0 variables='' assignments=''
      steps=$(awk -v wanted="$number" '$1 == "FROM" { stage++ } stage == wanted' "$work/steps")
      case "$steps" in *'ARG '*) steps="$steps$given" ;; esac
      key=$(printf '%s' "$key$content$steps" | sha256sum)
      if [ -d "$root" ] && [ "$(cat "$root.key" 2>/dev/null)" = "$key" ]; then
        say '  unchanged: taken as it is'
        kept=yes
      else
        kept=no
        rm -f "$root.key"
        base "$1" "$root"
        : >"$root.sizes"
        before=0
        row "FROM $1"
      fi
      ;;
    ARG)
      name=${rest%%=*}
      value=$(printf '%s' "$given" | sed -n "s/^$name=//p" | tail -n 1)
      [ -n "$value" ] || value=$(printf '%s' "${rest#"$name"}" | sed 's/^=//; s/^"//; s/"$//')
      case "$value" in *\'*) fail "no quotes in a build argument: $name" ;; esac
      assignments="$assignments$name='$value'; "
      ;;
    WORKDIR) place=$rest && mkdir -p "$root$place" ;;
    COPY)
      [ "$kept" = yes ] || { copy $rest; row "COPY $rest"; }
      ;;
    RUN)
      [ "$kept" = no ] || continue
      started=$(date +%s)
      identity=$user network='' environment=$variables directory=$place readonly=no
      inside "$root" sh -c "$assignments$rest" >"$root.log" 2>&1 || { tail -n 30 "$root.log" >&2; fail "that step failed"; }
      say "  done in $(($(date +%s) - started)) s"
      row "RUN $rest"
      ;;
    ENV) variables="$variables $rest" ;;
    USER) user=$rest ;;
    EXPOSE) ;;
    ENTRYPOINT) entry=$(list "$rest") ;;
    CMD) arguments=$(list "$rest") ;;
    *) fail "cannot interpret $instruction: teach this script" ;;
  esac
done 3<"$work/steps"
printf '%s' "$key" >"$root.key"
[ "$user" != 0:0 ] && [ -n "$entry" ] && [ -n "$arguments" ] || fail 'the last stage lacks a user of its own, an entry point or a command'

# As a registry gives it back: whole seconds alone. What was not in the layers (the devices, the resolver) stays out.
image=$work/image
rm -rf "$image" && mkdir -p "$image"
tar --format=gnu --exclude='./dev/*' --exclude=./etc/resolv.conf -C "$root" -cf "$work/image.tar" .
tar -xpf "$work/image.tar" -C "$image"
compressed=$(gzip <"$work/image.tar" | wc -c)
rm "$work/image.tar"
echo "   added       so far   step"
cat "$root.sizes"
echo 'taken out in that layer, by deploy/slim-image.sh:'
grep ' KiB  ' "$root.log" || true
! grep 'slim-image: warning' "$root.log" >&2 || fail 'deploy/slim-image.sh names what is not there any more'
echo "whole: $(size "$image" | awk '{ print int($1 / 1024) }') MB, $((compressed / 1000000)) MB compressed; the binary: $(du -m "$image/usr/local/bin/platen" | cut -f 1) MB"

# Everything below is the image alone, as its own user.
identity=$user network=--net environment="$variables SANDBOX=required" directory=/ readonly=yes
proof=$work/proof
rm -rf "$proof" && mkdir -p "$proof" "$image/in"
cp fixtures/documents/plain/invoice.docx fixtures/documents/plain/budget.xlsx fixtures/documents/plain/deck.pptx "$image/in/"
cat >"$image/in/scripts.fodt" <<'DOCUMENT'
<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument.text">
 <office:body><office:text><text:p>发票 請求書 청구서 😀</text:p></office:text></office:body>
</office:document>
DOCUMENT
chmod -R a+rX "$image/in"
# shellcheck disable=SC2086
inside "$image" $entry --version
inside "$image" sh -c '! touch /root-is-writable 2>/dev/null && ! touch /var/tmp/x 2>/dev/null' || fail 'the root can be written to: nothing below would prove anything'

# convert ROOM FILE...: into $proof/ROOM, by way of standard output, since nothing that is written inside outlives it.
convert() {
  room=$1
  shift
  mkdir -p "$proof/$room"
  inside "$image" sh -c "$entry"' convert "$@" --out /tmp/out --json >/tmp/lines 2>/tmp/errors; echo $? >/tmp/status
    tar -cf - -C /tmp status lines errors out' sh "$@" >"$proof/$room.tar" 2>"$proof/$room.log" || true
  tar -xf "$proof/$room.tar" -C "$proof/$room" 2>/dev/null || true
}
for turn in first second; do
  started=$(date +%s%N)
  convert "$turn" /in/invoice.docx
  took=$((($(date +%s%N) - started) / 1000000))
  [ "$(head -c 5 "$proof/$turn/out/invoice.pdf")" = '%PDF-' ] || { cat "$proof/$turn/errors" >&2; fail 'no first PDF'; }
  echo "$turn start: PDF $took ms after the process began"
done
convert several /in/invoice.docx /in/budget.xlsx /in/deck.pptx
cat "$proof/several/lines"
for name in invoice budget deck; do
  [ "$(head -c 5 "$proof/several/out/$name.pdf")" = '%PDF-' ] || { cat "$proof/several/errors" >&2; fail "$name.pdf is no PDF"; }
done

# The font cache holds: no font is read to list the fonts.
inside "$image" env FC_DEBUG=128 fc-list >"$proof/fonts" 2>&1
scanned=$(grep -c 'Scanning file' "$proof/fonts" || true)
[ "$scanned" = 0 ] || fail "the font cache is void: $scanned fonts were read again"
grep -q 'Liberation' "$proof/fonts" || fail 'fontconfig lists no fonts'
echo "font cache: holds for $(grep -c '^/.*: ' "$proof/fonts") fonts"

convert scripts /in/scripts.fodt
if command -v pdffonts >/dev/null; then
  pdffonts "$proof/scripts/out/scripts.pdf" | awk 'NR > 2 { sub(/^[A-Z]+\+/, "", $1); print $1 }' | sort >"$proof/scripts/fonts"
  echo "fonts of a text in Chinese, Japanese, Korean and emoji: $(tr '\n' ' ' <"$proof/scripts/fonts")"
  # expect PACKAGE NAME: installed fonts are used.
  expect() {
    if [ -e "$image/var/lib/dpkg/info/$1.list" ]; then
      grep -q "$2" "$proof/scripts/fonts" || fail "$1 is installed and not used"
      case "$assignments" in *fonts-cjk*fonts-emoji* | *fonts-emoji*fonts-cjk*)
        ! grep -q 'DejaVu\|Liberation' "$proof/scripts/fonts" || fail 'a fallback font was used beside them' ;;
      esac
    else
      case "$assignments" in *"$3"*) fail "$3 was asked for and $1 is not installed" ;; esac
    fi
  }
  expect fonts-noto-cjk CJK fonts-cjk
  # LibreOffice draws coloured emoji as a Type 3 font, which has no name.
  expect fonts-noto-color-emoji '^\[none\]$' fonts-emoji
else
  say 'pdffonts is missing (poppler-utils): which fonts were used was not looked at'
fi

if [ -n "${DOCUMENTS:-}" ]; then
  mkdir -p "$image/documents"
  cp -rL "$DOCUMENTS/." "$image/documents/" && chmod -R a+rX "$image/documents"
  set --
  for file in "$image/documents"/*; do [ ! -f "$file" ] || set -- "$@" "${file#"$image"}"; done
  convert documents "$@"
  echo "documents: $(grep -c '"status":"succeeded"' "$proof/documents/lines") of $# converted"
fi

# The image's own command starts: without its settings it must say so, with the code for wrong configuration.
status=0
# shellcheck disable=SC2086
inside "$image" $entry $arguments >"$proof/serve.log" 2>&1 || status=$?
[ "$status" = 64 ] || { cat "$proof/serve.log" >&2; fail "'$entry $arguments' without settings ended with $status, not 64"; }

# With settings its engine becomes warm and it ends when it is told to. (Ready it is with Google's keys, and there is no network.)
# shellcheck disable=SC2016 # for the shell inside
inside "$image" bash -ec '
  cd /tmp
  printf "{\"type\":\"authorized_user\",\"client_id\":\"none\",\"client_secret\":\"none\",\"refresh_token\":\"none\"}" >nobody.json
  export GOOGLE_APPLICATION_CREDENTIALS=/tmp/nobody.json GOOGLE_CLOUD_PROJECT=p INPUT_BUCKETS=in OUTPUT_BUCKET=out PORT=8080 \
    RESULT_TOPIC=projects/p/topics/r PUSH_AUTH=cloud-run-iam PUSH_AUDIENCE=https://p.example \
    PUSH_SERVICE_ACCOUNT=push@p.iam.gserviceaccount.com SIGNER_SERVICE_ACCOUNT=signer@p.iam.gserviceaccount.com
  "$@" & worker=$!
  for try in $(seq 120); do
    kill -0 $worker || exit 1
    if (exec 3<>/dev/tcp/127.0.0.1/8080 && printf "GET /health/ready HTTP/1.0\r\n\r\n" >&3 && cat <&3) 2>/dev/null | grep -q "\"warm\":true"; then
      kill $worker && wait $worker && exit 0
    fi
    sleep 0.5
  done
  exit 1' bash $entry $arguments >"$proof/warm.log" 2>&1 || { cat "$proof/warm.log" >&2; fail "'$entry $arguments' does not get its engine warm, or does not end well"; }
echo "serve: its engine is warm, and it ends when it is told to"
say 'good'
