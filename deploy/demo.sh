#!/bin/sh
# The README's first command: from a bare Debian 12 or 13 with Rust to a converted document.
#   deploy/demo.sh [FILE...]      default: the invoice among the fixtures; PDFs go to out/ here, or to $OUT
set -eu
CARGO=${CARGO:-cargo}
command -v "$CARGO" >/dev/null || { echo "demo: no '$CARGO' here: install Rust from https://rustup.rs" >&2; exit 1; }
out=$(realpath -m "${OUT:-out}")
# Files are named from where this is called.
for file in "$@"; do
  shift
  set -- "$@" "$(realpath -m "$file")"
done
cd "$(dirname "$0")/.."
sh deploy/as-root.sh deploy/packages.sh engine build
[ "$#" -gt 0 ] || set -- fixtures/documents/plain/invoice.docx
exec "$CARGO" run --locked -- demo "$@" --out "$out"
