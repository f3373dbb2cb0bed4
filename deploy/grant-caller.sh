#!/bin/sh
# Lets another identity call the private service. See `deploy/grant-caller.sh --help`.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/lib.sh
. "$HERE/lib.sh"

usage() {
  cat <<'TEXT'
Usage: deploy/grant-caller.sh EMAIL [--revoke] [--dry-run]

Lets EMAIL call the service: the right to invoke it, and the worker is told to accept the account. Running it again
changes nothing.

  EMAIL       of a service account, which then calls directly; or of a person. Nobody's own token is good for a service
              (it is for the OAuth client they logged in with), so a person gets the right to ask for ID tokens of the
              account SERVICE-caller, which is made for this
  --revoke    takes it away again
  --dry-run   print every command instead; needs neither gcloud nor a network
  --help      this text

  PROJECT_ID=my-project deploy/grant-caller.sh batch@my-project.iam.gserviceaccount.com

Settings are in deploy/env.sh. With INGRESS=internal calls must come from the project's own networks.
TEXT
}

email='' revoke=''
while [ $# -gt 0 ]; do
  case $1 in
    --revoke) revoke=yes ;;
    --dry-run) DRY_RUN=yes ;;
    --help | -h) usage && exit 0 ;;
    -*) refuse "unknown argument '$1'; --help says what there is" ;;
    *)
      [ -z "$email" ] || refuse "one email at a time, not '$email' and '$1'"
      email=$1
      ;;
  esac
  shift
done
[ -n "$email" ] || refuse 'whom? Name the email of a service account or of a person; --help has an example'
matches '[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]+' "$email" || refuse "'$email' is no email"

begin
STEP=grant-caller
service() { "$@" "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION"; }
if [ -z "$DRY_RUN" ] && ! service look gcloud run services describe; then
  refuse "there is no service '$SERVICE' in $REGION of $PROJECT_ID: run deploy/setup.sh first"
fi

account=$email
case $email in
  *.gserviceaccount.com) ;;
  *)
    account=$CALLER
    change=grant
    if [ -n "$revoke" ]; then
      change=revoke
    else
      look gcloud iam service-accounts describe "$CALLER" "--project=$PROJECT_ID" '--format=value(email)' ||
        run gcloud iam service-accounts create "$SERVICE-caller" "--project=$PROJECT_ID" '--display-name=Platen: whom people call as'
    fi
    # ID tokens alone; roles/iam.serviceAccountTokenCreator would also give access tokens.
    $change "user:$email" roles/iam.serviceAccountOpenIdTokenCreator 'iam service-accounts' "$CALLER" "--project=$PROJECT_ID"
    ;;
esac

if [ -z "$revoke" ]; then
  service grant "serviceAccount:$account" roles/run.invoker 'run services'
# The account that people call as stays a caller, others may use it, unless it is named itself.
elif [ "$account" != "$CALLER" ] || [ "$email" = "$CALLER" ]; then
  [ "$account" != "$PUSH" ] || refuse "$PUSH is whom Pub/Sub pushes as: without it nothing would be converted"
  service revoke "serviceAccount:$account" roles/run.invoker 'run services'
fi

if [ -n "$DRY_RUN" ]; then
  # Who may call is known only when the text is run.
  # shellcheck disable=SC2016
  printf 'callers=$(%s |\n  sed -n %s | paste -s -d , -)\n' \
    "$(service show gcloud run services get-iam-policy '--flatten=bindings[].members' '--format=csv[no-heading](bindings.role,bindings.members)')" \
    "'s/^roles\\/run\\.invoker,serviceAccount://p'"
  # shellcheck disable=SC2016 # the same
  printf '%s "--update-env-vars=^|^PUSH_SERVICE_ACCOUNT=$callers"\n' "$(service show gcloud run services update)"
  exit 0
fi
callers
service ask gcloud run services describe '--format=value(metadata.labels.platen-callers)'
if [ "$FOUND" != "$(fingerprint "$callers")" ]; then
  service run gcloud run services update "--update-env-vars=^|^PUSH_SERVICE_ACCOUNT=$callers" \
    "--update-labels=platen-callers=$(fingerprint "$callers")"
fi

project_number
if [ -n "$revoke" ] && [ "$account" = "$CALLER" ] && [ "$email" != "$CALLER" ]; then
  say "$email gets no more tokens of $CALLER; those that are out let it call $URL for up to an hour"
  say "to end them now, for everybody who calls as that account: deploy/grant-caller.sh $CALLER --revoke"
elif [ -n "$revoke" ]; then
  say "$email can no longer call $URL: tokens that it has are refused from now on"
elif [ "$account" = "$CALLER" ]; then
  say "good: platen submit gs://$INPUT_BUCKET/OBJECT --service $URL --impersonate $CALLER"
else
  say "good: $account may call; its ID tokens must be for the audience $URL"
fi
[ "$INGRESS" != internal ] || say 'the service takes calls from the project'\''s own networks alone (INGRESS=internal in deploy/env.sh)'
