#!/bin/sh
# Removes from the image what no conversion opens, and prints what each line gave. Runs in the layer that installs the
# packages: removed in a later one, nothing would get smaller. For the image alone: on a machine it would harm LibreOffice.
#
# Not here, though a desktop is all that they seem to be for: the palettes (drawings name them), the other user interface
# files (the engine's self-test fails without), share/template/common/internal (the page of html), the import filters,
# and the licences below /usr/share/doc. Before a line is added: deploy/prove-image.sh with DOCUMENTS, once with it and
# once without, and compare the PDFs.
set -eu
[ "${1:-}" = --image ] || { echo "slim-image: this takes files out of LibreOffice: only the Dockerfile calls it" >&2; exit 64; }
office=/usr/lib/libreoffice/share
libraries=/usr/lib/$(uname -m)-linux-gnu

# gone WHAT PATH...: a path that is not there is said, and no more: a list that a new version of Debian's packages has made
# untrue costs some megabytes, and a build that ends costs the security updates for whose sake it runs. deploy/prove-image.sh fails then.
gone() {
  what=$1
  shift
  [ $# -gt 0 ] || set -- "all"
  for path in "$@"; do
    shift
    if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" "$path"; else echo "slim-image: warning: $path ($what) is not there" >&2; fi
  done
  [ $# -gt 0 ] || return 0
  printf '%6d KiB  %s\n' "$(du -ck "$@" | tail -n 1 | cut -f 1)" "$what"
  rm -rf "$@"
}

# shellcheck disable=SC2046 # names without spaces
gone 'tool bars in tabs' $(find "$office/config/soffice.cfg" -name 'notebookbar*')
gone "dialogs of the program's settings" "$office/config/soffice.cfg/cui"
gone 'gallery of clip art' "$office"/gallery/*
# shellcheck disable=SC2046
gone 'templates and wizards' "$office/wizards" "$office/template/en-US" "$office/template/wizard" \
  $(find "$office/template/common" -mindepth 1 -maxdepth 1 ! -name internal)
gone 'texts of Basic libraries' "$office"/basic/*/*.xba "$office"/basic/*/*.xdl
gone 'icons as SVG and for dark screens' /usr/share/libreoffice/share/config/images_*_svg.zip \
  /usr/share/libreoffice/share/config/images_*_dark.zip "$office"/config/images_*_svg.zip "$office"/config/images_*_dark.zip
gone 'solvers of Calc' "$office"/../program/libsolverlo.so "$libraries"/lapack "$libraries"/blas "$libraries"/libgfortran.so.* \
  "$libraries"/libC[bg]*.so.* "$libraries"/libClp*.so.* "$libraries"/libCoin*.so.* "$libraries"/libOsi*.so.*
# A keyring is what a document must never reach, and LibreOffice runs these four times in each start.
gone 'GnuPG' /usr/bin/gpg /usr/bin/gpg-agent /usr/bin/gpg-connect-agent /usr/bin/gpgconf /usr/bin/gpgsm \
  /usr/bin/dirmngr /usr/bin/dirmngr-client /usr/lib/gnupg
gone 'icons of desktops' /usr/share/icons
gone "apt's lists and logs" /var/lib/apt/lists /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
  /var/cache/debconf/templates.dat-old
mkdir -p /var/lib/apt/lists/partial
