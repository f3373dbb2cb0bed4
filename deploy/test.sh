#!/bin/sh
# The README's second command, and what CI runs: installs what is missing, then every check that guards a change, one
# lane each. A lane that this machine cannot run is named with its reason; one that fails does not stop the others.
# Non-zero when any failed.
set -u
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
command -v "$CARGO" >/dev/null || { echo "test: no '$CARGO' here: install Rust from https://rustup.rs" >&2; exit 1; }
sh deploy/as-root.sh deploy/packages.sh engine build test || exit 1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0 failed=0 skipped=0

note() { printf '  %-8s %-22s %s\n' "$1" "$2" "$3" >>"$logs/summary"; }

skip() {
  printf '\n== %s: skipped, %s\n' "$1" "$2"
  skipped=$((skipped + 1))
  note skipped "$1" "$2"
}

# run NAME COMMAND...: shows the output and keeps it; the status is the command's.
run() {
  name=$1
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  started=$(date +%s)
  { "$@" 2>&1; echo $? >"$logs/status"; } | tee "$logs/$name.log"
  took="$(($(date +%s) - started)) s"
  return "$(cat "$logs/status")"
}

# lane NAME COMMAND...: one check.
lane() {
  if run "$@"; then
    passed=$((passed + 1))
    note passed "$name" "$took"
  else
    failed=$((failed + 1))
    note FAILED "$name" "$took"
  fi
}

if "$CARGO" fmt --version >/dev/null 2>&1; then
  lane format "$CARGO" fmt --check
else
  skip format 'no rustfmt: rustup component add rustfmt'
fi
if "$CARGO" clippy --version >/dev/null 2>&1; then
  lane lint "$CARGO" clippy --locked --all-targets -- -D warnings
  lane lint-as-in-the-image "$CARGO" clippy --locked --all-targets --no-default-features -- -D warnings
  lane lint-all-features "$CARGO" clippy --locked --all-targets --all-features -- -D warnings
else
  skip lint 'no clippy: rustup component add clippy'
  skip lint-as-in-the-image 'no clippy: rustup component add clippy'
  skip lint-all-features 'no clippy: rustup component add clippy'
fi

# Each test counts by itself. --show-output, because a test says there what it left out.
sum() { sed -n 's/^test result: .* \([0-9][0-9]*\) '"$1"';.*/\1/p' "$logs/tests.log" | awk '{ sum += $1 } END { print sum + 0 }'; }
run tests "$CARGO" test --locked --no-fail-fast --features failpoints -- --show-output
status=$?
good=$(sum passed) bad=$(sum failed) ignored=$(sum ignored)
# A failure that no test owns: something does not compile, or a test binary died.
if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
note "$([ "$bad" = 0 ] && echo passed || echo FAILED)" tests "$took: $good passed, $bad failed, $ignored ignored"
passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + ignored))

# Failpoints (src/failpoint.rs) are in the binary that the tests have built, and in no other: the demo builds what a
# release builds, and a release with them does not compile.
binary=${CARGO_TARGET_DIR:-target}/debug/platen
points="PLATEN_FAILPOINTS $(grep -rhoE 'failpoint!\("[a-z_.]+"' src | cut -d'"' -f2 | sort -u)"
failpoints() {
  for point in $points; do
    if grep -aqF "$point" "$binary"; then found=yes; else found=no; fi
    [ "$found" = "$1" ] || { echo "$binary: $point: $found"; return 1; }
  done
}
lane failpoints-in-tests failpoints yes

demo() {
  "$CARGO" run --locked --quiet -- demo fixtures/documents/plain/invoice.docx --out "$logs/demo" &&
    pdfinfo "$logs/demo/invoice.pdf" | grep '^Pages: *1$'
}
lane demo demo

no_failpoints() {
  failpoints no || return 1
  said=$("$CARGO" rustc --locked --quiet --lib --features failpoints -- -C debug-assertions=off 2>&1) && return 1
  echo "$said" | grep -F 'for builds with debug assertions alone'
}
lane no-failpoints no_failpoints

# These run inside the tests, which look for them by themselves; here is said whether they were there.
jar=${PUBSUB_EMULATOR_JAR:-}
for place in /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk /opt/google-cloud-sdk "${HOME:-/root}/google-cloud-sdk"; do
  for found in "$place"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*.jar; do
    if [ -z "$jar" ] && [ -f "$found" ]; then jar=$found; fi
  done
done
if [ ! -f "$jar" ]; then
  skip pubsub-emulator "no jar of Google's emulator: set PUBSUB_EMULATOR_JAR or install google-cloud-cli-pubsub-emulator"
elif ! command -v java >/dev/null; then
  skip pubsub-emulator "no java to run $jar"
else
  note 'in tests' pubsub-emulator "$jar"
fi
if [ -n "${STORAGE_TESTBENCH_URL:-}" ]; then
  note 'in tests' storage-testbench "$STORAGE_TESTBENCH_URL"
elif grep -q "skipped: Google's storage testbench" "$logs/tests.log" 2>/dev/null; then
  skip storage-testbench 'pip could not install it (github.com/googleapis/storage-testbench): STORAGE_TESTBENCH_URL says where one runs'
else
  note 'in tests' storage-testbench 'installed by pip into target/tmp'
fi
if command -v gcloud >/dev/null; then
  note 'in tests' gcloud "$(command -v gcloud)"
else
  skip gcloud 'no gcloud to run against the local cloud (cloud.google.com/sdk)'
fi
if command -v chromium >/dev/null; then
  note 'in tests' browser "$(command -v chromium)"
else
  skip browser "no chromium to open the page of platen local in: deploy/packages.sh browser"
fi
shared=${PLATEN_SHARED:-../shared}
if [ -d "$shared/documents" ]; then
  note 'in tests' shared-documents "$shared"
else
  skip shared-documents "no directory $shared/documents"
fi

# Minutes of a release build and 300 MB of packages: asked for, never by itself.
if [ "${IMAGE_PROOF:-no}" != yes ]; then
  skip image-proof 'takes 15 minutes: set IMAGE_PROOF=yes (root, debootstrap and a Debian mirror)'
elif [ "$(id -u)" != 0 ]; then
  skip image-proof 'chroot and mounts need root'
elif ! command -v debootstrap >/dev/null; then
  skip image-proof "no debootstrap: 'apt-get install debootstrap'"
else
  lane image-proof sh deploy/prove-image.sh --build-arg 'EXTRA_FONTS=fonts-cjk fonts-emoji'
fi

printf '\n== summary\n'
cat "$logs/summary"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
