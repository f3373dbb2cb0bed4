#!/bin/sh
# From a bare Debian 12 or 13 with Rust to the page of `platen local` in a browser.
#   deploy/local.sh [OPTION...]      options are those of `platen local`; without --port the page is on 8080
set -eu
CARGO=${CARGO:-cargo}
command -v "$CARGO" >/dev/null || { echo "local: no '$CARGO' here: install Rust from https://rustup.rs" >&2; exit 1; }
cd "$(dirname "$0")/.."
sh deploy/as-root.sh deploy/packages.sh engine build
case " $* " in *' --port'*) ;; *) set -- --port 8080 "$@" ;; esac
exec "$CARGO" run --locked -- local "$@"
