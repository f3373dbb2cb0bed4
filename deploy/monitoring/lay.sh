#!/bin/sh
# The road into Cloud Monitoring: log-based metrics of the worker's own lines, alerts and a dashboard that look at them.
# Sourced by setup.sh and cleanup.sh after lib.sh, never run.
#
# What is laid says of which text it was made (`SERVICE-FINGERPRINT`, in a description or a label), so that a second run
# changes nothing and a changed file or setting is carried out.
# shellcheck disable=SC2154 # names that lib.sh sets

# Metrics have one namespace a project: each service has its own, as with roles (platen_deliveries).
METRIC_PREFIX=$ROLE_PREFIX
filled=${scratch:-}

# fill FILE: its text with this deployment's names goes to "$filled/NAME", and what it was made of to `stamp`.
fill() {
  name=$(basename "$1")
  stamp=$SERVICE-$(fingerprint "$(cat "$HERE/monitoring/$1")" "$SERVICE" "$PUSH_SUBSCRIPTION" "$CHANNELS")
  set -- sed -e "s|\${SERVICE}|$SERVICE|g" -e "s|\${PUSH_SUBSCRIPTION}|$PUSH_SUBSCRIPTION|g" -e "s|\${STAMP}|$stamp|g" \
    -e "s|user/platen_|user/$METRIC_PREFIX|g" -e "s|\"name\": \"platen_|\"name\": \"$METRIC_PREFIX|" "deploy/monitoring/$1"
  if [ -z "$DRY_RUN" ]; then
    "$@" >"$filled/$name"
    return 0
  fi
  # shellcheck disable=SC2016 # for the shell that runs the text
  printf '%s >"$filled/%s"\n' "$(show "$@")" "$name"
}

# with_file FLAG COMMAND...: runs it with the filled file.
with_file() {
  flag=$1
  shift
  if [ -n "$DRY_RUN" ]; then
    # shellcheck disable=SC2016 # for the shell that runs the text
    printf '%s %s="$filled/%s"\n' "$(show "$@")" "$flag" "$name"
    return 0
  fi
  # A metric that was made a moment ago is not known to alerts yet.
  patiently "$@" "$flag=$filled/$name"
}

begin_filling() {
  # shellcheck disable=SC2016 # for the shell that runs the text
  [ -z "$DRY_RUN" ] || echo 'filled=$(mktemp -d)'
}

lay_metrics() {
  begin_filling
  for file in "$HERE"/monitoring/metrics/*.json; do
    fill "metrics/$(basename "$file")"
    metric=$METRIC_PREFIX$(basename "$file" .json | sed 's/^platen_//')
    verb=create
    if look gcloud logging metrics describe "$metric" "--project=$PROJECT_ID" '--format=value(description)'; then
      case $FOUND in *"($stamp)") continue ;; esac
      verb=update
    fi
    with_file --config-from-file gcloud logging metrics "$verb" "$metric" "--project=$PROJECT_ID"
  done
}

# laid KIND LABELS [TITLE]: FOUND is a line "name|stamp|title" for each that is there, of this service or of this title.
laid() {
  ask gcloud monitoring "$1" list "--project=$PROJECT_ID" "--format=value[separator=\"|\"](name,$2.platen,displayName)"
  if [ -n "${3:-}" ]; then
    FOUND=$(printf '%s\n' "$FOUND" | awk -F '|' -v title="$3" '$3 == title' | head -n 1)
  else
    FOUND=$(printf '%s\n' "$FOUND" | grep -E "^[^|]*\|$SERVICE-[0-9]+\|") || FOUND=''
  fi
}

# lay KIND LABELS FLAG FILE [FLAG...]: creates it, or brings it up to date; what comes last goes with a creation.
lay() {
  kind=$1 labels=$2 flag=$3 template=$4
  shift 4
  fill "$template"
  title=$(sed -n "s|\${SERVICE}|$SERVICE|g; s/^  \"displayName\": \"\(.*\)\",\{0,1\}\$/\1/p" "$HERE/monitoring/$template")
  laid "$kind" "$labels" "$title"
  if [ -n "$DRY_RUN" ]; then
    printf '%s | grep -qxF %s ||\n  ' "$(show gcloud monitoring "$kind" list "--project=$PROJECT_ID" '--format=value(displayName)')" "$(show "$title")"
  fi
  case $FOUND in
    '') with_file "$flag" gcloud monitoring "$kind" create "--project=$PROJECT_ID" "$@" ;;
    *"|$stamp|"*) ;;
    *)
      id=${FOUND%%|*}
      if [ "$kind" = dashboards ]; then
        # An update names the version that it replaces.
        ask gcloud monitoring dashboards describe "$id" "--project=$PROJECT_ID" '--format=value(etag)'
        sed "1s|{|{\"etag\": \"$FOUND\",|" "$filled/$name" >"$filled/versioned"
        mv "$filled/versioned" "$filled/$name"
      elif [ -n "$CHANNELS" ]; then
        set -- "--set-notification-channels=$CHANNELS"
      fi
      with_file "$flag" gcloud monitoring "$kind" update "$id" "--project=$PROJECT_ID" "$@"
      ;;
  esac
}

lay_alerts() {
  begin_filling
  for file in "$HERE"/monitoring/alerts/*.json; do
    lay policies userLabels --policy-from-file "alerts/$(basename "$file")" ${CHANNELS:+"--notification-channels=$CHANNELS"}
  done
  lay dashboards labels --config-from-file dashboard.json
}

# The other way round: first what looks at the metrics.
lift_monitoring() {
  for kind in policies dashboards; do
    labels=labels
    [ "$kind" != policies ] || labels=userLabels
    if [ -n "$DRY_RUN" ]; then
      # shellcheck disable=SC2016 # for the shell that runs the text
      printf '%s |\n  grep -E %s | cut -d "|" -f 1 |\n  while read -r id; do %s "$id"; done\n' \
        "$(show gcloud monitoring "$kind" list "--project=$PROJECT_ID" "--format=value[separator=\"|\"](name,$labels.platen,displayName)")" \
        "$(show "^[^|]*\\|$SERVICE-[0-9]+\\|")" "$(show gcloud monitoring "$kind" delete "--project=$PROJECT_ID" --quiet)"
      continue
    fi
    laid "$kind" "$labels"
    for id in $(printf '%s\n' "$FOUND" | cut -d '|' -f 1); do
      run gcloud monitoring "$kind" delete "$id" "--project=$PROJECT_ID" --quiet
    done
  done
  for file in "$HERE"/monitoring/metrics/*.json; do
    gone 'logging metrics' "$METRIC_PREFIX$(basename "$file" .json | sed 's/^platen_//')" "--project=$PROJECT_ID"
  done
}
