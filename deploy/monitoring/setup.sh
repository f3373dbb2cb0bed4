#!/usr/bin/env bash
# Lays the road into Cloud Monitoring: log-based metrics from the worker's summary lines, a dashboard, and alerts.
# A second run brings what is there up to date and makes nothing twice.
#
#   PROJECT             the worker's project
#   SERVICE             its Cloud Run service
#   PUSH_SUBSCRIPTION   the subscription that pushes to it
#   CHANNELS            notification channels of the alerts, comma-separated (optional; without them alerts only show)
#
# Takes roles/logging.configWriter and roles/monitoring.editor. `--dry-run` prints the commands.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${PROJECT:?the project of the worker}" "${SERVICE:?its Cloud Run service}"
: "${PUSH_SUBSCRIPTION:?the subscription that pushes to it}"
channels=${CHANNELS:-}
dry_run=
[[ "${1:-}" == --dry-run ]] && dry_run=1

# Names that go into filters and sed: what Google allows in them, and nothing else.
for name in "$SERVICE" "$PUSH_SUBSCRIPTION"; do
  [[ "$name" =~ ^[A-Za-z][A-Za-z0-9._~+%-]*$ ]] || { echo "$name is no name of a service or subscription (give it without its path)" >&2; exit 64; }
done

filled=$(mktemp -d)
trap 'rm -rf "$filled"' EXIT

# The file with its variables filled in.
fill() {
  local file=$1 out
  out="$filled/$(basename "$file")"
  sed -e "s|\${SERVICE}|$SERVICE|g" -e "s|\${PUSH_SUBSCRIPTION}|$PUSH_SUBSCRIPTION|g" "$file" >"$out"
  echo "$out"
}

change() {
  if [[ -n $dry_run ]]; then
    printf '%q ' gcloud "$@" --project="$PROJECT" && echo
  else
    gcloud "$@" --project="$PROJECT" --quiet
  fi
}

lay_metric() {
  local file name
  file=$(fill "$1")
  name=$(basename "$file" .json)
  if gcloud logging metrics describe "$name" --project="$PROJECT" >/dev/null 2>&1; then
    change logging metrics update "$name" --config-from-file="$file"
  else
    change logging metrics create "$name" --config-from-file="$file"
  fi
}

display_name() {
  sed -n 's/^  "displayName": "\(.*\)",\{0,1\}$/\1/p' "$1"
}

lay_alert() {
  local file there
  file=$(fill "$1")
  there=$(gcloud monitoring policies list --project="$PROJECT" --filter="displayName=\"$(display_name "$file")\"" --format='value(name)' --limit=1)
  if [[ -n $there ]]; then
    change monitoring policies update "$there" --policy-from-file="$file" ${channels:+--set-notification-channels="$channels"}
  else
    change monitoring policies create --policy-from-file="$file" ${channels:+--notification-channels="$channels"}
  fi
}

lay_dashboard() {
  local file there etag
  file=$(fill "$here/dashboard.json")
  there=$(gcloud monitoring dashboards list --project="$PROJECT" --filter="displayName=\"$(display_name "$file")\"" --format='value(name)' --limit=1)
  if [[ -n $there ]]; then
    # An update names the version that it replaces.
    etag=$(gcloud monitoring dashboards describe "$there" --project="$PROJECT" --format='value(etag)')
    sed -i "1s|{|{\n  \"etag\": \"$etag\",|" "$file"
    change monitoring dashboards update "$there" --config-from-file="$file"
  else
    change monitoring dashboards create --config-from-file="$file"
  fi
}

for file in "$here"/metrics/*.json; do lay_metric "$file"; done
for file in "$here"/alerts/*.json; do lay_alert "$file"; done
lay_dashboard
