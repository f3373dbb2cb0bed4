#!/bin/sh
# Runs the worker on Google Kubernetes Engine. See `deploy/gke/setup.sh --help`.
set -eu
HERE=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$HERE/lib.sh"

usage() {
  cat <<'TEXT'
Usage: deploy/gke/setup.sh HOST [--dry-run]

Runs the worker on the cluster that kubectl points to, in place of Cloud Run, and sends the pushes there. Run
deploy/setup.sh first: it makes accounts, buckets, topics and the image. HOST is a name of yours, such as
platen.example.com; this says which address its DNS record must have.

  --dry-run   print every command instead; needs neither gcloud, kubectl nor a network
  --help      this text

Run it again after a change of settings, after a build and after grant-caller.sh: pods are replaced when their image or
a variable differs, and without a difference nothing is.

The cluster needs Kubernetes 1.30, Workload Identity, the Gateway API and managed collection of metrics: an Autopilot
cluster has them, a Standard one takes, one after the other,
  gcloud container clusters update CLUSTER --workload-pool=PROJECT_ID.svc.id.goog
  gcloud container clusters update CLUSTER --gateway-api=standard
  gcloud container clusters update CLUSTER --enable-managed-prometheus
MONITORING=no does without the last. Settings are in deploy/env.sh.
TEXT
}

host=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY_RUN=yes ;;
    --help | -h) usage && exit 0 ;;
    -*) refuse "unknown argument '$1'; --help says what there is" ;;
    *)
      [ -z "$host" ] || refuse "one host at a time, not '$host' and '$1'"
      host=$1
      ;;
  esac
  shift
done
matches '[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+' "$host" ||
  refuse "'$host' is no host name; wanted is one of yours, such as platen.example.com"

# by_digest: IMAGE by its digest in place of its tag. A tag that has moved is no change to Kubernetes, which would neither replace
# pods nor start the next one with the same image as the others.
by_digest() {
  case $IMAGE in
    *@sha256:*) return 0 ;;
    *-docker.pkg.dev/*) ;;
    *) refuse "IMAGE='$IMAGE': only Artifact Registry can be asked what a tag stands for; name the image as NAME@sha256:..." ;;
  esac
  case ${IMAGE##*/} in *:*) name=${IMAGE%:*} ;; *) name=$IMAGE ;; esac
  set -- gcloud artifacts docker images describe "$IMAGE" "--project=$PROJECT_ID" '--format=value(image_summary.digest)'
  if [ -n "$DRY_RUN" ]; then
    # Another of the names that show prints as variables of the shell that will run the text.
    FOUND=%PROJECT_DIGEST%
    # shellcheck disable=SC2016 # for that shell
    printf 'PROJECT_DIGEST=$(%s)\n' "$(show "$@")"
  elif ! look "$@"; then
    failed 'there is no such image: deploy/setup.sh builds it' "$@"
  fi
  IMAGE=$name@$FOUND
}

# Sets `callers`: who may call is said by the policy of the service on Cloud Run, while there is one.
who_may_call() {
  callers=$PUSH
  if [ -n "$DRY_RUN" ]; then return 0; fi
  if look gcloud run services describe "$SERVICE" "$project" "--region=$REGION" '--format=value(name)'; then
    callers
    return 0
  fi
  say "no service on Cloud Run says who may call: that is Pub/Sub alone, or ENV_VARIABLES='PUSH_SERVICE_ACCOUNT=$PUSH,ANOTHER'"
}

# The worker's variables, one a line: those of Cloud Run with what differs here.
pod_variables() {
  {
    # No platform in front verifies the token: the worker does, signature and all.
    variables oidc "https://$host"
    echo "GOOGLE_CLOUD_PROJECT=$PROJECT_ID"
    echo 'LOG_FORMAT=json'
    echo 'TMPDIR=/tmp'
    echo 'METRICS_PORT=9090'
  } | awk -F = '!seen[$1]++'
}

# rendered FILE: with its ${...} filled in.
rendered() {
  file=deploy/gke/$1 text=''
  for name in host SERVICE WORKER IMAGE CPU MEMORY REQUEST_TIMEOUT MIN_REPLICAS MAX_INSTANCES METRICS_PORT SETTINGS VARIABLES; do
    eval "value=\$$name"
    # As the right side of sed's s takes it: these three are escaped, and so is each end of a line but the last.
    value=$(printf '%s\n' "$value" | sed 's/[\\&|]/\\&/g; $!s/$/\\/')
    text="${text}s|\${$name}|$value|g
"
  done
  if [ -n "$DRY_RUN" ]; then
    show sed "$text" "$file"
  else
    sed "$text" "$file"
  fi
}

apply() {
  if [ -n "$DRY_RUN" ]; then
    printf '%s | kubectl apply --filename -\n' "$(rendered "$1")"
    return 0
  fi
  rendered "$1" >"$scratch/manifest.yaml"
  run kubectl apply --filename "$scratch/manifest.yaml"
}

begin
# Two at least, so that there is one while a node is replaced.
[ "$MAX_INSTANCES" -ge 2 ] || refuse "MAX_INSTANCES=$MAX_INSTANCES: on Kubernetes there are two pods at least"
MIN_REPLICAS=2
[ "$MIN_INSTANCES" -le 2 ] || MIN_REPLICAS=$MIN_INSTANCES
[ -n "$DRY_RUN" ] || command -v kubectl >/dev/null || refuse 'no kubectl here: gcloud components install kubectl'
project_number
cd "$HERE/.."
project=--project=$PROJECT_ID

STEP=apis
enable_apis certificatemanager.googleapis.com compute.googleapis.com container.googleapis.com

STEP=image
by_digest

# Pods of the namespace's own account may be the worker, and no other pod of the cluster may.
STEP=identity
grant "serviceAccount:$PROJECT_ID.svc.id.goog[platen/platen]" roles/iam.workloadIdentityUser 'iam service-accounts' "$WORKER" "$project"

STEP=certificate
look gcloud compute addresses describe "$SERVICE" --global "$project" '--format=value(name)' ||
  run gcloud compute addresses create "$SERVICE" --global "$project"
look gcloud certificate-manager certificates describe "$SERVICE" "$project" '--format=value(name)' ||
  run gcloud certificate-manager certificates create "$SERVICE" "--domains=$host" "$project"
look gcloud certificate-manager maps describe "$SERVICE" "$project" '--format=value(name)' ||
  run gcloud certificate-manager maps create "$SERVICE" "$project"
look gcloud certificate-manager maps entries describe "$SERVICE" "--map=$SERVICE" "$project" '--format=value(name)' ||
  run gcloud certificate-manager maps entries create "$SERVICE" "--map=$SERVICE" "--certificates=$SERVICE" "--hostname=$host" "$project"

STEP=manifests
who_may_call
sealed_configuration
# As lines of YAML: every value is a text, in single quotes.
VARIABLES=$(pod_variables | sed "s/'/''/g; s/^\([^=]*\)=\(.*\)\$/  \1: '\2'/")
# Pods read their variables when they start: a changed setting is a changed pod.
SETTINGS=$(fingerprint "$VARIABLES")
METRICS_PORT=$(pod_variables | sed -n 's/^METRICS_PORT=//p')
matches '[1-9][0-9]{0,4}' "$METRICS_PORT" || refuse "METRICS_PORT='$METRICS_PORT' in ENV_VARIABLES: wanted is a port"
apply platen.yaml
[ "$MONITORING" = no ] || apply monitoring.yaml
apply gateway.yaml

# From now on Pub/Sub pushes there, with a token for that audience.
STEP=push
ask gcloud pubsub subscriptions describe "$PUSH_SUBSCRIPTION" "$project" \
  '--format=value[separator="|"](pushConfig.pushEndpoint,pushConfig.oidcToken.audience,pushConfig.oidcToken.serviceAccountEmail)'
[ "$FOUND" = "https://$host/|https://$host|$PUSH" ] ||
  run gcloud pubsub subscriptions update "$PUSH_SUBSCRIPTION" "$project" "--push-endpoint=https://$host/" \
    "--push-auth-service-account=$PUSH" "--push-auth-token-audience=https://$host" --update-labels=platen-push=gke

[ -z "$DRY_RUN" ] || exit 0
ask gcloud compute addresses describe "$SERVICE" --global "$project" '--format=value(address)'
say "good, once $host has an A record with $FOUND and the certificate is active (up to an hour):"
say "  gcloud certificate-manager certificates describe $SERVICE $project --format='value(managed.state)'"
say "whether the pods are replaced: kubectl rollout status deployment/platen --namespace platen"
say "Cloud Run's service has no pushes now. It stays the list of who may call (grant-caller.sh); deploy/gke/README.md says what ends with it"
