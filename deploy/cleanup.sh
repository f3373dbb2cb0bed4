#!/bin/sh
# Removes what setup.sh made. See `deploy/cleanup.sh --help`.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/lib.sh
. "$HERE/lib.sh"

usage() {
  cat <<'TEXT'
Usage: deploy/cleanup.sh [--yes] [--delete-documents] [--dry-run]

Removes what deploy/setup.sh made in the project, and every right that it granted. Looks before it removes, so that it
can be run again after a failure.

  --yes                do not ask whether to begin
  --delete-documents   do not ask before a bucket that holds documents: delete it with all that is in it
  --dry-run            print every command instead, as a shell script that leaves documents where they are unless it is
                       run with DELETE_DOCUMENTS=yes; needs neither gcloud nor a network
  --help               this text

A bucket that was there before setup.sh is kept, and only loses the rights. What Google does not delete is named at the
end. Settings are in deploy/env.sh: give the same ones as to setup.sh.

  PROJECT_ID=my-project deploy/cleanup.sh
TEXT
}

yes='' delete_documents=''
while [ $# -gt 0 ]; do
  case $1 in
    --yes) yes=yes ;;
    --delete-documents) delete_documents=yes ;;
    --dry-run) DRY_RUN=yes ;;
    --help | -h) usage && exit 0 ;;
    *) refuse "unknown argument '$1'; --help says what there is" ;;
  esac
  shift
done

# confirmed QUESTION WORD: whether that word is typed. Where nobody can type, it is not.
confirmed() {
  printf '%s: %s Type %s to go on: ' "$program" "$1" "$2" >&2
  read -r answer || answer=''
  [ -t 0 ] || echo >&2
  [ "$answer" = "$2" ]
}

# enabled API: what an API that is off would hold is not there, and asking it is an error.
enabled() { [ -n "$DRY_RUN" ] || printf '%s\n' "$apis" | grep -qxF "$1.googleapis.com"; }

# gone GROUP RESOURCE...: deletes what is there.
gone() {
  group=$1
  shift
  if [ -n "$DRY_RUN" ]; then
    # shellcheck disable=SC2086 # a group of commands is several words
    printf '! %s >/dev/null 2>&1 ||\n  ' "$(show gcloud $group describe "$@")"
  else
    # shellcheck disable=SC2086
    look gcloud $group describe "$@" '--format=value(name)' || return 0
  fi
  # shellcheck disable=SC2086
  run gcloud $group delete "$@" --quiet
}

# untitled GROUP FILE: deletes what was made of that file of deploy/monitoring, which only its title names.
untitled() {
  group=$1
  filled "$2"
  # shellcheck disable=SC2086 # a group of commands is several words
  set -- gcloud $group list "$project" "--filter=displayName=\"$(titled)\"" '--format=value(name)'
  if [ -n "$DRY_RUN" ]; then
    # shellcheck disable=SC2016 # for the shell that runs the text
    printf 'name=$(%s)\n[ -z "$name" ] || gcloud %s delete "$name" %s --quiet\n' "$(show "$@")" "$group" "$(show "$project")"
  elif listed "$@"; then
    # shellcheck disable=SC2086
    run gcloud $group delete "$FOUND" "$project" --quiet
  fi
}

# rights_on_bucket: those that setup.sh grants on it, for a text that cannot look.
rights_on_bucket() {
  case $bucket in
    "$BUILD_BUCKET") echo "$BUILDER object_reader" ;;
    "$OUTPUT_BUCKET") printf '%s object_writer\n%s object_reader\n' "$WORKER" "$SIGNER" ;;
    *) echo "$WORKER object_reader" ;;
  esac
  case $bucket in "$INPUT_BUCKET" | "$OUTPUT_BUCKET" | "$CONFIG_BUCKET") [ "$DOCTOR" = no ] || echo "$WORKER inspector" ;; esac
}

remove_bucket() {
  bucket=$1
  shift
  if [ -n "$DRY_RUN" ]; then
    # A bucket that setup.sh did not make has no such label. The script would ask; its text wants a variable.
    # shellcheck disable=SC2016 # for the shell that runs the text
    printf 'if [ "$(%s)" = %s ]' "$(show gcloud storage buckets describe "gs://$bucket" '--format=value(labels.platen)' --raw)" "$SERVICE"
    # shellcheck disable=SC2016 # the same
    [ "$bucket" = "$BUILD_BUCKET" ] || printf ' && [ "${DELETE_DOCUMENTS:-}" = yes ]'
    printf '; then\n  '
    run gcloud storage rm "gs://$bucket" --recursive
    echo 'else'
    rights_on_bucket | while read -r account role; do
      printf '  %s 2>/dev/null || :\n' "$(revoke "serviceAccount:$account" "$ROLES$ROLE_PREFIX$role" 'storage buckets' "gs://$bucket")"
    done
    echo 'fi'
    return 0
  fi
  look gcloud storage buckets describe "gs://$bucket" '--format=value(labels.platen)' --raw || return 0
  if [ "$FOUND" = "$SERVICE" ]; then
    # The document of setup.sh's own is nobody's.
    look gcloud storage objects list "gs://$bucket" --limit=20 '--format=value(name)' || FOUND=''
    documents=$(printf '%s\n' "$FOUND" | grep -v '^platen-setup/' | grep -c .) || documents=0
    if [ "$documents" = 0 ] || [ "$bucket" = "$BUILD_BUCKET" ] || [ -n "$delete_documents" ] ||
      confirmed "gs://$bucket holds documents, which would be deleted." "$bucket"; then
      run gcloud storage rm "gs://$bucket" --recursive
      return 0
    fi
    kept="$kept
  gs://$bucket, which holds documents (deploy/cleanup.sh --delete-documents removes it)"
  else
    kept="$kept
  gs://$bucket, which was there before setup.sh"
  fi
  for account in "$WORKER" "$SIGNER" "$BUILDER"; do
    for role in object_reader object_writer inspector; do
      revoke "serviceAccount:$account" "$ROLES$ROLE_PREFIX$role" 'storage buckets' "gs://$bucket"
    done
  done
}

begin
STEP=cleanup
if [ -n "$DRY_RUN" ]; then
  echo '# Buckets that hold documents go with DELETE_DOCUMENTS=yes in the environment; without it they stay and lose the rights.'
fi
if [ -z "$DRY_RUN" ] && [ -z "$yes" ]; then
  confirmed "This removes Platen's service '$SERVICE' and all that belongs to it from project $PROJECT_ID." "$PROJECT_ID" ||
    refuse 'nothing is removed (--yes does not ask)'
fi
project_number
kept='' apis=''
ask gcloud services list --enabled "--project=$PROJECT_ID" '--format=value(config.name)'
apis=$FOUND
project=--project=$PROJECT_ID

STEP=rebuild
if enabled cloudscheduler; then gone 'scheduler jobs' "$SERVICE-rebuild" "$project" "--location=$REGION"; fi
if enabled cloudbuild; then gone 'builds triggers' "$SERVICE-rebuild" "$project" "--region=$BUILD_REGION"; fi

# First what brings new work.
STEP=notification
if [ -n "$DRY_RUN" ]; then
  # shellcheck disable=SC2016 # for the shell that runs the text
  printf 'for id in $(%s 2>/dev/null |\n  awk -F "|" -v topic="//pubsub.googleapis.com/"%s '\''$2 == topic { print $1 }'\''); do\n  %s"$id"\ndone\n' \
    "$(show gcloud storage buckets notifications list "gs://$INPUT_BUCKET" \
      '--format=value[separator="|"]("Notification Configuration".id,"Notification Configuration".topic)')" \
    "$(show "projects/$PROJECT_ID/topics/$EVENT_TOPIC")" \
    "$(show gcloud storage buckets notifications delete "projects/_/buckets/$INPUT_BUCKET/notificationConfigs/")"
elif look gcloud storage buckets describe "gs://$INPUT_BUCKET" '--format=value(name)' --raw; then
  ask gcloud storage buckets notifications list "gs://$INPUT_BUCKET" \
    '--format=value[separator="|"]("Notification Configuration".id,"Notification Configuration".topic)'
  for id in $(printf '%s\n' "$FOUND" | awk -F '|' -v topic="//pubsub.googleapis.com/projects/$PROJECT_ID/topics/$EVENT_TOPIC" '$2 == topic { print $1 }'); do
    run gcloud storage buckets notifications delete "projects/_/buckets/$INPUT_BUCKET/notificationConfigs/$id"
  done
fi

# Alerts before the metrics that they look at.
STEP=monitoring
if enabled monitoring; then
  for file in "$HERE"/monitoring/alerts/*.json; do untitled 'alpha monitoring policies' "$file"; done
  untitled 'monitoring dashboards' "$HERE/monitoring/dashboard.json"
fi
if enabled logging; then
  for file in "$HERE"/monitoring/metrics/*.json; do gone 'logging metrics' "$ROLE_PREFIX$(basename "$file" .json)" "$project"; done
fi

STEP=subscriptions
if enabled pubsub; then
  for name in "$PUSH_SUBSCRIPTION" "$RESULT_SUBSCRIPTION" "$DEAD_LETTER_SUBSCRIPTION"; do
    gone 'pubsub subscriptions' "$name" "$project"
  done
fi
STEP=service
if enabled run; then gone 'run services' "$SERVICE" "$project" "--region=$REGION"; fi
STEP=topics
if enabled pubsub; then
  for name in "$EVENT_TOPIC" "$RESULT_TOPIC" "$DEAD_LETTER_TOPIC"; do gone 'pubsub topics' "$name" "$project"; done
fi

# The last rights on what stays; a right of an account that is gone would be left as "deleted:serviceAccount:...".
STEP=secrets
if enabled cloudkms; then
  if [ -n "$DRY_RUN" ] || look gcloud kms keys describe "$KEY" "$project" "--location=$REGION" "--keyring=$KEY_RING" '--format=value(name)'; then
    revoke "serviceAccount:$WORKER" roles/cloudkms.cryptoKeyDecrypter 'kms keys' "$KEY" "$project" "--location=$REGION" "--keyring=$KEY_RING"
    kept="$kept
  the key $KEY_NAME and its ring: Google never deletes them. A version costs a few cents a month until it is destroyed,
    after which nothing that it sealed can be read again: gcloud kms keys versions destroy 1 --key=$KEY --keyring=$KEY_RING --location=$REGION $project"
  fi
fi
STEP=project
revoke "serviceAccount:$BUILDER" roles/logging.logWriter projects "$PROJECT_ID"
if [ -z "$DRY_RUN" ] || [ -n "$REBUILD_REPOSITORY" ]; then
  revoke "serviceAccount:$REBUILDER" "$ROLES${ROLE_PREFIX}build_starter" projects "$PROJECT_ID"
fi

STEP=buckets
for name in "$INPUT_BUCKET" "$OUTPUT_BUCKET" "$CONFIG_BUCKET" "$BUILD_BUCKET"; do remove_bucket "$name"; done
if [ -n "$FONTS" ]; then
  bucket=${FONTS#gs://}
  [ -z "$DRY_RUN" ] && ! look gcloud storage buckets describe "gs://${bucket%%/*}" '--format=value(name)' --raw ||
    revoke "serviceAccount:$WORKER" "$ROLES${ROLE_PREFIX}font_reader" 'storage buckets' "gs://${bucket%%/*}"
fi
STEP=repository
if enabled artifactregistry; then gone 'artifacts repositories' "$REPOSITORY" "$project" "--location=$REGION"; fi
STEP=accounts
if enabled iam; then
  for account in "$WORKER" "$PUSH" "$SIGNER" "$BUILDER" "$REBUILDER" "$CALLER"; do
    gone 'iam service-accounts' "$account" "$project"
  done
  STEP=roles
  for role in object_reader object_writer url_signer inspector font_reader build_starter; do
    # Google keeps a deleted role for 7 days, and describes it meanwhile.
    if [ -z "$DRY_RUN" ] && look gcloud iam roles describe "$ROLE_PREFIX$role" "$project" '--format=value(deleted)' && [ "$FOUND" = True ]; then
      continue
    fi
    gone 'iam roles' "$ROLE_PREFIX$role" "$project"
  done
fi

[ -z "$DRY_RUN" ] || exit 0
[ -z "$CMEK_KEY" ] || kept="$kept
  $CMEK_KEY, with the rights of Google's agents on it: other data of the project may need them"
say "done. Kept:$kept
  the APIs that setup.sh enabled: others may use them (gcloud services disable)
  deleted roles, which Google forgets after some weeks, and objects in soft delete, after 7 days"
