#!/bin/sh
# Tries an image where Docker is, before it is pushed: its own binary, user and LibreOffice convert a document, and then
# `serve` becomes ready, on a root that nothing can write to and with no capability. See `deploy/smoke-image.sh --help`.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<'TEXT'
Usage: deploy/smoke-image.sh IMAGE

Converts fixtures/documents/plain/invoice.docx in the image without a network, and starts `serve` in it until
/health/ready says 200, for which it fetches Google's public keys. Needs Docker, and no account.
TEXT
}
say() { printf 'smoke-image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

case ${1:-} in
  --help | -h) usage && exit 0 ;;
  '' | -*) say 'name one image; --help says more' && exit 64 ;;
esac
[ $# = 1 ] || { say 'one image at a time' && exit 64; }
image=$1
command -v docker >/dev/null || fail 'no docker here; deploy/prove-image.sh does without'

# Below the source, because a build's own directory is what containers of the same machine can see.
work=$HERE/../target/smoke
container=''
# shellcheck disable=SC2329 # called by the trap
clean() {
  [ -z "$container" ] || docker rm --force "$container" >/dev/null 2>&1 || :
  rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir -p "$work/out" && chmod 777 "$work/out"
work=$(cd "$work" && pwd)

contained() { docker run --read-only --tmpfs /tmp --user 65532:65532 --cap-drop ALL --security-opt no-new-privileges "$@"; }

converts() {
  contained --rm --network none --env "SANDBOX=$1" --volume "$HERE/../fixtures/documents/plain:/in:ro" --volume "$work/out:/out" \
    "$image" convert /in/invoice.docx --out /out --json >"$work/line" 2>"$work/error"
}

sandbox=required
if ! converts required; then
  cat "$work/error" >&2
  # What is missing then is the kernel's, which is this machine's and not the image's.
  grep -q 'this machine cannot build the required sandbox' "$work/error" || fail "$image does not convert a document"
  say 'this machine lacks a layer of the sandbox, which is not the image'\''s fault: trying without'
  sandbox=best-effort
  converts best-effort || { cat "$work/error" >&2 && fail "$image does not convert a document"; }
fi
[ "$(head -c 5 "$work/out/invoice.pdf")" = '%PDF-' ] || fail "$image says that it converted a document, and no PDF is there"
say "a document is converted (SANDBOX=$sandbox)"

# Credentials of nobody: a start reads them and asks nobody for a token.
printf '{"type":"authorized_user","client_id":"none","client_secret":"none","refresh_token":"none"}' >"$work/nobody.json"
container=$(contained --detach --volume "$work/nobody.json:/nobody.json:ro" --env GOOGLE_APPLICATION_CREDENTIALS=/nobody.json \
  --env "SANDBOX=$sandbox" --env GOOGLE_CLOUD_PROJECT=smoke --env INPUT_BUCKETS=in --env OUTPUT_BUCKET=out \
  --env RESULT_TOPIC=projects/smoke/topics/results --env PUSH_AUTH=cloud-run-iam --env PUSH_AUDIENCE=https://smoke.example \
  --env PUSH_SERVICE_ACCOUNT=push@smoke.iam.gserviceaccount.com --env SIGNER_SERVICE_ACCOUNT=signer@smoke.iam.gserviceaccount.com \
  --env PORT=8080 "$image")
# By bash of the image, which has no other client.
# shellcheck disable=SC2016 # for that bash
ask='exec 3<>/dev/tcp/127.0.0.1/8080 && printf "GET /health/ready HTTP/1.0\r\n\r\n" >&3 && head -n 1 <&3'
tries=0
until docker exec "$container" bash -c "$ask" 2>/dev/null | grep -q ' 200 '; do
  tries=$((tries + 1))
  if [ "$tries" -ge "${SMOKE_TRIES:-60}" ] || [ "$(docker inspect --format '{{.State.Running}}' "$container")" != true ]; then
    docker logs "$container" >&2
    fail "'serve' in $image does not become ready"
  fi
  sleep "${SMOKE_SECONDS:-1}"
done
say 'serve is ready'
