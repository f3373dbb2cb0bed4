#!/bin/sh
# Installs the Debian packages that Platen needs. The README's two commands, the image and CI all come through here,
# so that there is one list.
#
#   deploy/packages.sh engine         what a running worker needs: LibreOffice 25.2, fonts, jemalloc
#   deploy/packages.sh build          what compiling the engine's C++ shim needs besides (headers, g++)
#   deploy/packages.sh test           what the tests read PDFs with, and stock LibreOffice's command to compare against
#   deploy/packages.sh browser        Chromium, in which the tests use the page of `platen local` (300 MB)
#   deploy/packages.sh bench          what unoserver needs, which the benchmark compares the engine with
#   deploy/packages.sh fonts-cjk      Noto's fonts for Chinese, Japanese and Korean (90 MB)
#   deploy/packages.sh fonts-emoji    Noto's coloured emoji (10 MB)
#   deploy/packages.sh engine build   several at once
#
# Debian 13 has LibreOffice 25.2. Debian 12 has it in bookworm-backports, which is added with the mirror that this
# machine's own sources name. Safe to run again: with everything there it does nothing and needs no network.
set -eu

say() { printf 'packages: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# LibreOffice without its window system, the dialogs Writer needs even when hidden, metric-compatible fonts, and an
# allocator that makes conversions 10 to 30 % faster. Java and Python are left out on purpose: nothing of a
# document may reach them. (gpg comes with LibreOffice's dependencies; deploy/slim-image.sh takes it out of the image.) Math draws the equations of every kind of document, which are blank without it; the database
# drivers read dBase files. Hyphenation and thesaurus data are left out because stock's container images do, too.
ENGINE='libreoffice-core-nogui libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui
  libreoffice-draw-nogui libreoffice-math-nogui libreoffice-base-drivers libreoffice-uiconfig-writer
  fontconfig fonts-liberation fonts-crosextra-carlito fonts-crosextra-caladea fonts-dejavu-core
  libjemalloc2 ca-certificates'
BUILD='libreofficekit-dev libreoffice-dev g++ gcc libc6-dev make pkg-config'
TEST='poppler-utils qpdf curl'
BROWSER='chromium'
BENCH='python3-uno python3-venv'
FONTS_CJK='fonts-noto-cjk'
FONTS_EMOJI='fonts-noto-color-emoji'

wanted=''
for group in "$@"; do
  case "$group" in
    engine) wanted="$wanted $ENGINE" ;;
    build) wanted="$wanted $BUILD" ;;
    test) wanted="$wanted $TEST" ;;
    browser) wanted="$wanted $BROWSER" ;;
    bench) wanted="$wanted $BENCH" ;;
    fonts-cjk) wanted="$wanted $FONTS_CJK" ;;
    fonts-emoji) wanted="$wanted $FONTS_EMOJI" ;;
    *) fail "no group '$group': use engine, build, test, browser, bench, fonts-cjk or fonts-emoji" ;;
  esac
done
[ -n "$wanted" ] || fail 'name at least one group: engine, build, test, browser, bench, fonts-cjk or fonts-emoji'

command -v apt-get >/dev/null || fail 'this is not a Debian system (no apt-get): install LibreOffice 25.2 and the packages listed in this script by your own means'

installed() {
  # shellcheck disable=SC2086 # the list is meant to split
  for package in $wanted; do
    dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$package" 2>/dev/null | grep -q '^installed' || return 1
  done
  case " $wanted " in
    *libreoffice-core-nogui*) dpkg-query -W -f='${Version}\n' libreoffice-core-nogui | grep -q '^[0-9]*:25\.2\.' || return 1 ;;
  esac
}
if installed; then exit 0; fi

[ "$(id -u)" = 0 ] || fail "installing packages needs root: run 'sudo deploy/packages.sh $*'"
export DEBIAN_FRONTEND=noninteractive

release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
from=''
if [ "$release" = bookworm ]; then
  # The mirror of the machine's own bookworm entry, in either of apt's two formats; the key is Debian's.
  list=/etc/apt/sources.list.d/platen-backports.sources
  if ! apt-cache policy 2>/dev/null | grep -q 'n=bookworm-backports'; then
    mirror=$(awk '
      FNR == 1 { uri = ""; suites = "" }
      /^URIs:/ { uri = $2 }
      /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == "bookworm") suites = "yes" }
      /^[[:space:]]*$/ { if (uri != "" && suites != "") { print uri; exit } uri = ""; suites = "" }
      /^deb[[:space:]]/ { i = 2; if ($i ~ /^\[/) { while ($i !~ /\]$/) i++; i++ } if ($(i + 1) == "bookworm") { print $i; exit } }
      END { if (uri != "" && suites != "") print uri }
    ' $(ls /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null) | head -n 1)
    [ -n "$mirror" ] || fail 'found no bookworm mirror in /etc/apt: add bookworm-backports yourself and run this again'
    say "adding bookworm-backports of this machine's mirror in $list"
    cat >"$list" <<SOURCE
Types: deb
URIs: $mirror
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
  fi
  from='-t bookworm-backports'
elif [ "$release" != trixie ]; then
  say "not tried on '$release': LibreOffice 25.2 is wanted, Debian 12 and 13 have it"
fi

# To standard error: what comes after has its own output.
apt-get -qq update >&2
# shellcheck disable=SC2086 # both lists are meant to split
apt-get -qq install -y --no-install-recommends $from $wanted >&2
installed || fail "apt installed another LibreOffice than 25.2 ($(dpkg-query -W -f='${Version}' libreoffice-core-nogui 2>/dev/null)): see 'apt-cache policy libreoffice-core-nogui'"
# Without a font cache every start reads every font. The cache holds its directories' times to the nanosecond and is void
# when they differ, and an image's layers keep whole seconds: so the directories get such times before it is made.
if command -v fc-cache >/dev/null; then
  mkdir -p /usr/local/share/fonts
  find /usr/share/fonts /usr/local/share/fonts -type d -exec touch --date="@$(date +%s)" {} +
  fc-cache --system-only --force
fi
