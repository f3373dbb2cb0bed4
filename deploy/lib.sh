#!/bin/sh
# What setup.sh, grant-caller.sh and cleanup.sh have in common: names derived from env.sh, looking before doing, the
# dry run, and what is said when a command fails. Sourced, never run.
#
# POSIX sh and not bash: the same text runs in Cloud Shell, on a bare Debian, in the image of Cloud Build and on a Mac
# with its bash of 2007, and nothing here needs an array: commands travel as "$@".
# shellcheck disable=SC2034 # names that only the sourcing scripts read

program=$(basename "$0")
say() { printf '%s: %s\n' "$program" "$*" >&2; }
# 64: wrong usage or configuration, as the worker's own.
refuse() { say "$*"; exit 64; }

# Stand for what a dry run cannot know; `show` prints them as variables of the shell that will run the text.
NUMBER_LATER=%PROJECT_NUMBER%
PROJECT_LATER=%PROJECT_ID%

DRY_RUN=${DRY_RUN:-}
STEP=''

# --- settings -----------------------------------------------------------------------------------------------------

# column N: of the row of sizing.tsv that SIZE names.
column() { awk -F '\t' -v size="$SIZE" -v n="$1" '$1 == size { print $n }' "$HERE/sizing.tsv"; }

matches() { printf '%s\n' "$2" | grep -Eqx "$1" && [ "$(printf '%s\n' "$2" | wc -l)" -eq 1 ]; }

problems=''
# check NAME VALUE PATTERN HINT
check() {
  matches "$3" "$2" && return 0
  problems="$problems
  $1='$2': $4"
}

# Reads env.sh, fills in what it leaves open, and refuses what cannot work, all problems at once.
settings() {
  if [ -n "$DRY_RUN" ]; then
    UNKNOWN_PROJECT=$PROJECT_LATER
  elif [ -z "${PROJECT_ID:-}${GOOGLE_CLOUD_PROJECT:-}" ] && command -v gcloud >/dev/null; then
    PROJECT_ID=$(gcloud config get-value project 2>/dev/null) || PROJECT_ID=''
  fi
  # shellcheck source=deploy/env.sh
  . "$HERE/env.sh"

  CPU=${CPU:-$(column 2)}
  MEMORY=${MEMORY:-$(column 3)}
  CONVERT_CONCURRENCY=${CONVERT_CONCURRENCY:-$(column 4)}
  CONVERT_MEMORY=${CONVERT_MEMORY:-$(column 5)}
  CONVERT_TIMEOUT=${CONVERT_TIMEOUT:-$(column 6)}
  MIN_INSTANCES=${MIN_INSTANCES:-$(column 7)}
  MAX_INSTANCES=${MAX_INSTANCES:-$(column 8)}

  if [ "$PROJECT_ID" != "$PROJECT_LATER" ]; then
    check PROJECT_ID "$PROJECT_ID" '[a-z][a-z0-9-]{4,28}[a-z0-9]' \
      'wanted is the id of a project: 6 to 30 small letters, digits and hyphens (gcloud projects list)'
  fi
  check PROJECT_NUMBER "$PROJECT_NUMBER" '([0-9]+)?' 'wanted are digits'
  check SERVICE "$SERVICE" '[a-z][a-z0-9-]{4,20}[a-z0-9]' \
    'wanted are 6 to 22 small letters, digits and hyphens, because accounts are named SERVICE and SERVICE-rebuild'
  value='' # set by eval below
  for name in REGION BUILD_REGION BUCKET_LOCATION; do
    eval "value=\$$name"
    check "$name" "$value" '[a-zA-Z0-9-]+' 'wanted is a location such as europe-west1'
  done
  for name in INPUT_BUCKET OUTPUT_BUCKET CONFIG_BUCKET BUILD_BUCKET; do
    eval "value=\$$name"
    # Derived from the project's id, which is checked above.
    case $value in "$PROJECT_ID-$SERVICE-"*) continue ;; esac
    check "$name" "$value" '[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]' \
      'wanted is the name of a bucket, without gs://: 3 to 63 small letters, digits, hyphens, dots'
  done
  for name in EVENT_TOPIC PUSH_SUBSCRIPTION RESULT_TOPIC RESULT_SUBSCRIPTION DEAD_LETTER_TOPIC DEAD_LETTER_SUBSCRIPTION; do
    eval "value=\$$name"
    check "$name" "$value" '[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}' 'wanted is an id alone: 3 to 255 letters, digits, hyphens'
  done
  for name in KEY_RING KEY; do
    eval "value=\$$name"
    check "$name" "$value" '[a-zA-Z0-9_-]{1,63}' 'wanted are letters, digits, hyphens'
  done
  check REPOSITORY "$REPOSITORY" '[a-z]([a-z0-9-]*[a-z0-9])?' 'wanted are small letters, digits and hyphens'
  check TAG "$TAG" '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}' 'wanted is the tag of an image'
  check SIZE "$SIZE" "$(awk -F '\t' '!/^#/ { printf "%s%s", sep, $1; sep = "|" }' "$HERE/sizing.tsv")" \
    'wanted is a row of deploy/sizing.tsv'
  check ACK_DEADLINE "$ACK_DEADLINE" '[1-9][0-9]|[1-5][0-9]{2}|600' 'wanted are seconds, 10 to 600'
  check REQUEST_TIMEOUT "$REQUEST_TIMEOUT" '[1-9][0-9]{1,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600' 'wanted are seconds, up to 3600'
  for name in RETRY_LEAST RETRY_MOST; do
    eval "value=\$$name"
    check "$name" "$value" '[1-5]?[0-9]{1,2}s|600s' 'wanted are seconds, up to 600s'
  done
  # Of an unknown size there are none.
  if [ -n "$(column 1)" ]; then
    check CPU "$CPU" '[0-9]+(\.[0-9]+)?|[0-9]+m' 'wanted is a number of processors'
    check MEMORY "$MEMORY" '[0-9]+(\.[0-9]+)?(Mi|Gi|M|G)' 'wanted is a size as Cloud Run writes it, such as 4Gi'
    check CONVERT_CONCURRENCY "$CONVERT_CONCURRENCY" '[1-9][0-9]*' 'wanted is a number of conversions'
    check CONVERT_MEMORY "$CONVERT_MEMORY" '[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB)' 'wanted is a size as the worker writes it, such as 1GiB'
    check CONVERT_TIMEOUT "$CONVERT_TIMEOUT" '[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)' 'wanted is a duration such as 120s'
    check MIN_INSTANCES "$MIN_INSTANCES" '[0-9]+' 'wanted is a number'
    check MAX_INSTANCES "$MAX_INSTANCES" '[1-9][0-9]*' 'wanted is a number, 1 at least'
  fi
  check RETRY_SECONDS "$RETRY_SECONDS" '[0-9]+' 'wanted are seconds'
  check RETRY_TIMES "$RETRY_TIMES" '[1-9][0-9]*' 'wanted is a number, 1 at least'
  check IMAGE "$IMAGE" '([a-z0-9][A-Za-z0-9._/:@-]*)?' 'wanted is an image, such as REGION-docker.pkg.dev/P/R/NAME@sha256:...'
  check REBUILD_REPOSITORY "$REBUILD_REPOSITORY" '(projects/[^/ ]+/locations/[^/ ]+/connections/[^/ ]+/repositories/[^/ ]+)?' \
    'wanted is projects/P/locations/L/connections/C/repositories/R'
  check REBUILD_BRANCH "$REBUILD_BRANCH" '[A-Za-z0-9._/*^$-]+' 'wanted is the name of a branch'
  check MAX_DELIVERY_ATTEMPTS "$MAX_DELIVERY_ATTEMPTS" '[5-9]|[1-9][0-9]|100' 'wanted is a number from 5 to 100'
  check INGRESS "$INGRESS" 'internal|internal-and-cloud-load-balancing|all' "wanted is internal, internal-and-cloud-load-balancing or all"
  for name in DOCTOR BUILD_TESTS MONITORING; do
    eval "value=\$$name"
    check "$name" "$value" 'yes|no' 'wanted is yes or no'
  done
  check SERVICE_CHANGES "$SERVICE_CHANGES" 'all|given' 'wanted is all or given'
  check BILLING "$BILLING" 'requests|instances' 'wanted is requests or instances'
  check FONTS "$FONTS" '(gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^|]*)?)?' 'wanted is gs://BUCKET/PREFIX'
  check CMEK_KEY "$CMEK_KEY" '(projects/[^/ ]+/locations/[^/ ]+/keyRings/[^/ ]+/cryptoKeys/[^/ ]+)?' \
    'wanted is the full name of a key: projects/P/locations/L/keyRings/R/cryptoKeys/K'
  check NOTIFICATION_CHANNELS "$NOTIFICATION_CHANNELS" '(projects/[^/ ,]+/notificationChannels/[0-9]+(,projects/[^/ ,]+/notificationChannels/[0-9]+)*)?' \
    'wanted are full names, comma-separated: projects/P/notificationChannels/N (gcloud beta monitoring channels list)'
  check DEPLOYER "$DEPLOYER" '([^@ :]+@[^@ ]+)?' 'wanted is an email'
  check CONFIG_OBJECT "$CONFIG_OBJECT" 'auto|none|gs://[^/ |]+/[^|]+' 'wanted is auto, none or gs://BUCKET/OBJECT'
  check ENV_VARIABLES "$ENV_VARIABLES" '([A-Z_]+=[^|]*(\|[A-Z_]+=[^|]*)*)?' 'wanted is NAME=VALUE|NAME=VALUE'
  check OUTPUT_NAME "$OUTPUT_NAME" '[^|]+' 'wanted is a template without |'
  if [ "$INPUT_BUCKET" = "$OUTPUT_BUCKET" ]; then
    problems="$problems
  INPUT_BUCKET and OUTPUT_BUCKET are the same: each PDF would be a new document"
  fi
  if [ "${REQUEST_TIMEOUT:-0}" -lt "${ACK_DEADLINE:-0}" ] 2>/dev/null; then
    problems="$problems
  REQUEST_TIMEOUT=$REQUEST_TIMEOUT is shorter than ACK_DEADLINE=$ACK_DEADLINE: Cloud Run would end a job that Pub/Sub still waits for"
  fi
  # What the worker would refuse, said before anything is built.
  [ -n "$problems" ] || fits
  [ -z "$problems" ] || refuse "settings that cannot work (deploy/env.sh explains each):$problems"

  WORKER=$SERVICE@$PROJECT_ID.iam.gserviceaccount.com
  PUSH=$SERVICE-push@$PROJECT_ID.iam.gserviceaccount.com
  SIGNER=$SERVICE-signer@$PROJECT_ID.iam.gserviceaccount.com
  BUILDER=$SERVICE-build@$PROJECT_ID.iam.gserviceaccount.com
  REBUILDER=$SERVICE-rebuild@$PROJECT_ID.iam.gserviceaccount.com
  CALLER=$SERVICE-caller@$PROJECT_ID.iam.gserviceaccount.com
  ROLES=projects/$PROJECT_ID/roles/
  # Ids of roles hold no hyphen.
  ROLE_PREFIX=$(printf '%s' "$SERVICE" | tr - _)_
  KEY_NAME=projects/$PROJECT_ID/locations/$REGION/keyRings/$KEY_RING/cryptoKeys/$KEY
  BUILT_IMAGE=$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/$SERVICE:$TAG
  IMAGE=${IMAGE:-$BUILT_IMAGE}
}

# given NAME DEFAULT: a variable of the worker that only ENV_VARIABLES sets.
given() { printf '%s' "$ENV_VARIABLES" | tr '|' '\n' | awk -F = -v name="$1" -v value="$2" '$1 == name { value = $2 } END { print value }'; }

# fits: whether the numbers go together, by the sums of src/config/time.rs and src/pipeline/budget.rs: what the worker would refuse, and
# a second job for which there would never be room.
fits() {
  problems=$(awk -v output="$(given MAX_OUTPUT_SIZE 500MiB)" -v memory="$MEMORY" -v slots="$CONVERT_CONCURRENCY" -v each="$CONVERT_MEMORY" -v timeout="$CONVERT_TIMEOUT" \
    -v deadline="$ACK_DEADLINE" -v least="$MIN_INSTANCES" -v most="$MAX_INSTANCES" '
    function unit(text) { sub(/^[0-9.]+ ?/, "", text); return text }
    function least_of(a, b) { return a < b ? a : b }
    BEGIN {
      in_mebibytes["Gi"] = 1024; in_mebibytes["Mi"] = 1; in_mebibytes["G"] = 953.7; in_mebibytes["M"] = 0.9537
      in_mebibytes["GiB"] = 1024; in_mebibytes["MiB"] = 1; in_mebibytes["KiB"] = 1 / 1024; in_mebibytes["B"] = 1 / 1048576
      in_seconds["ms"] = 0.001; in_seconds["s"] = 1; in_seconds["m"] = 60; in_seconds["h"] = 3600; in_seconds["d"] = 86400
      has = (memory + 0) * in_mebibytes[unit(memory)]
      # A single job is always taken, also where the most that it may take does not fit.
      job = (each + 0) * in_mebibytes[unit(each)]
      files = 256 + 2 * (output + 0) * in_mebibytes[unit(output)]
      needs = 740 + (slots == 1 ? job : slots * (job + 220 + files))
      if (needs > has)
        printf "\n  MEMORY=%s is too little for CONVERT_CONCURRENCY=%s: with CONVERT_MEMORY=%s and MAX_OUTPUT_SIZE=%s it takes %.0fMi", memory, slots, each, output, needs
      longest = deadline - least_of(15, deadline / 8) - least_of(28, deadline / 8) - 2
      if ((timeout + 0) * in_seconds[unit(timeout)] > longest)
        printf "\n  CONVERT_TIMEOUT=%s does not fit in ACK_DEADLINE=%s: %.1f s of it are left for a conversion", timeout, deadline, longest
      if (least + 0 > most + 0)
        printf "\n  MIN_INSTANCES=%s is more than MAX_INSTANCES=%s", least, most
    }')
}

# The number names Google's agents and the service's address.
project_number() {
  if [ -z "$PROJECT_NUMBER" ]; then
    if [ -n "$DRY_RUN" ]; then
      PROJECT_NUMBER=$NUMBER_LATER
      if [ "$PROJECT_ID" = "$PROJECT_LATER" ]; then
        # shellcheck disable=SC2016 # for the shell that runs the text
        echo ': "${PROJECT_ID:?set it to the id of your project}"'
      fi
      # shellcheck disable=SC2016 # the same
      printf 'PROJECT_NUMBER=$(%s)\n' "$(show gcloud projects describe "$PROJECT_ID" '--format=value(projectNumber)')"
    elif look gcloud projects describe "$PROJECT_ID" '--format=value(projectNumber)'; then
      PROJECT_NUMBER=$FOUND
    else
      failed "there is no project '$PROJECT_ID', or you may not see it" gcloud projects describe "$PROJECT_ID"
    fi
  fi
  PUBSUB_AGENT=service-$PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com
  STORAGE_AGENT=service-$PROJECT_NUMBER@gs-project-accounts.iam.gserviceaccount.com
  REGISTRY_AGENT=service-$PROJECT_NUMBER@gcp-sa-artifactregistry.iam.gserviceaccount.com
  # Known before the service exists, and so the audience of the very first push.
  URL=https://$SERVICE-$PROJECT_NUMBER.$REGION.run.app
}

# --- commands -----------------------------------------------------------------------------------------------------

# A command as a shell reads it back.
show() {
  shown=''
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+^-]*) word=\'$(printf '%s' "$word" | sed "s/'/'\\\\''/g; s/%\(PROJECT_[A-Z]*\)%/'\"\$\1\"'/g")\' ;;
      *%PROJECT_*) word=$(printf '%s' "$word" | sed 's/%\(PROJECT_[A-Z]*\)%/"$\1"/g') ;;
    esac
    shown="$shown${shown:+ }$word"
  done
  printf '%s' "$shown"
}

# failed WHY COMMAND...: the end of a run.
failed() {
  why=$1
  shift
  say "step '$STEP' failed: $why"
  say "the command was: $(show "$@")"
  say "what is done stays done: mend the cause and run $program again, it goes on from here"
  exit 1
}

quietly() { printf '%s' "$1" | sed 's/^ERROR: //' | head -n 5; }

# look COMMAND...: whether what it describes is there; then FOUND is what it says of it. Any other failure ends the run:
# "may not see it" must never be taken for "is not there".
look() {
  if [ -n "$DRY_RUN" ]; then
    FOUND=''
    printf '%s >/dev/null 2>&1 ||\n  ' "$(show "$@")"
    return 1
  fi
  tries=0
  while :; do
    if FOUND=$("$@" 2>"$scratch/error"); then return 0; fi
    # An API that was enabled a moment ago is not known everywhere yet.
    grep -Eiq 'SERVICE_DISABLED|has not been used in project' "$scratch/error" || break
    tries=$((tries + 1))
    [ "$tries" -lt "$RETRY_TIMES" ] || failed "$(quietly "$(cat "$scratch/error")")" "$@"
    sleep "$RETRY_SECONDS"
  done
  if grep -Eiq 'NOT_FOUND|not found|cannot find|does not exist|matched no objects' "$scratch/error"; then
    FOUND=''
    return 1
  fi
  failed "$(quietly "$(cat "$scratch/error")")" "$@"
}

# ask COMMAND...: the same of what must be there; in a dry run nothing is asked and nothing printed.
ask() {
  FOUND=''
  if [ -n "$DRY_RUN" ]; then return 0; fi
  look "$@" || failed "$(quietly "$(cat "$scratch/error")")" "$@"
}

# run COMMAND...: does it, and says so.
run() {
  if [ -n "$DRY_RUN" ]; then
    printf '%s\n' "$(show "$@")"
    return 0
  fi
  say "$(show "$@")"
  "$@" >"$scratch/output" 2>"$scratch/error" || failed "$(quietly "$(cat "$scratch/error")")" "$@"
}

# run_with TEXT COMMAND...: the same, with that text on its standard input. What looks at a new metric is tried for a quarter of an
# hour with the settings of env.sh: Google's own refusal speaks of ten minutes.
run_with() {
  text=$1
  shift
  if [ -n "$DRY_RUN" ]; then
    printf '%s <<'\''JSON'\''\n%s\nJSON\n' "$(show "$@")" "$text"
    return 0
  fi
  insist 'cannot find metric' $((RETRY_TIMES * 3)) "$text" "$@"
}

# insist PATTERN TIMES TEXT COMMAND...: does it, with that text on its standard input, so often while its error has the pattern.
insist() {
  passing=$1 most=$2 text=$3
  shift 3
  say "$(show "$@")"
  tries=0
  until printf '%s' "$text" | "$@" >"$scratch/output" 2>"$scratch/error"; do
    tries=$((tries + 1))
    if [ "$tries" -ge "$most" ] || ! grep -Eiq "$passing" "$scratch/error"; then
      failed "$(quietly "$(cat "$scratch/error")")" "$@"
    fi
    [ "$tries" != 1 ] || say 'not known everywhere yet, trying again'
    sleep "$RETRY_SECONDS"
  done
}

# listed COMMAND...: FOUND is the line of the one thing that a list finds; fails where it finds none.
listed() {
  if [ -n "$DRY_RUN" ]; then
    FOUND=''
    printf '[ -n "$(%s)" ] ||\n  ' "$(show "$@")"
    return 1
  fi
  ask "$@"
  FOUND=$(printf '%s\n' "$FOUND" | head -n 1)
  [ -n "$FOUND" ]
}

# filled FILE [SETTING]: sets `filled` to a file of deploy/monitoring with its variables filled in, and `print` to its fingerprint, which
# is in the text, too: what is there already is compared by it.
filled() {
  filled=$(sed -e "s|\${SERVICE}|$SERVICE|g" -e "s|\${METRICS}|$ROLE_PREFIX|g" -e "s|\${PUSH_SUBSCRIPTION}|$PUSH_SUBSCRIPTION|g" "$1")
  print=$(fingerprint "$filled" "${2:-}")
  filled=$(printf '%s' "$filled" | sed -e "s|\${SETTINGS}|$print|g")
}

# titled: what the console calls it.
titled() { printf '%s\n' "$filled" | sed -n 's/^  "displayName": "\(.*\)",\{0,1\}$/\1/p'; }

# patiently COMMAND...: the same, for what needs an account or a right that Google may not know everywhere yet.
patiently() {
  if [ -n "$DRY_RUN" ]; then
    run "$@"
    return 0
  fi
  insist 'not exist|NOT_FOUND|not found|permission|forbidden|403' "$RETRY_TIMES" '' "$@"
}

# members GROUP RESOURCE...: FOUND is a line "role,member,condition" for each member of each binding.
members() {
  group=$1
  shift
  # shellcheck disable=SC2086 # a group of commands is several words
  ask gcloud $group get-iam-policy "$@" '--flatten=bindings[].members' \
    '--format=csv[no-heading](bindings.role,bindings.members,bindings.condition.title)'
}

# grant MEMBER ROLE GROUP RESOURCE...: a binding, unless it is there.
grant() {
  member=$1 role=$2 group=$3
  shift 3
  members "$group" "$@"
  if printf '%s\n' "$FOUND" | grep -qxF "$role,$member,"; then return 0; fi
  # Without it gcloud asks, where another binding of the policy has a condition; Pub/Sub's commands do not know it.
  case $group in pubsub*) ;; *) set -- "$@" --condition=None ;; esac
  # shellcheck disable=SC2086
  patiently gcloud $group add-iam-policy-binding "$@" "--member=$member" "--role=$role"
}

# revoke MEMBER ROLE GROUP RESOURCE...: the other way round.
revoke() {
  member=$1 role=$2 group=$3
  shift 3
  members "$group" "$@"
  if [ -z "$DRY_RUN" ] && ! printf '%s\n' "$FOUND" | grep -qxF "$role,$member,"; then return 0; fi
  case $group in pubsub*) ;; *) set -- "$@" --condition=None ;; esac
  # shellcheck disable=SC2086
  run gcloud $group remove-iam-policy-binding "$@" "--member=$member" "--role=$role"
}

# Who may call is one list, the service's own: whoever has run.invoker on it gets past Cloud Run, and the worker, which
# checks the token's email as well, is told the same accounts. Sets `callers`, the push account first.
callers() {
  callers=$PUSH
  members 'run services' "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION"
  for caller in $(printf '%s\n' "$FOUND" | sed -n 's/^roles\/run\.invoker,serviceAccount:\([^,]*\),$/\1/p' | sort); do
    [ "$caller" = "$PUSH" ] || callers=$callers,$caller
  done
}

# Sets `config_object`: where the worker reads its sealed configuration, if anywhere.
sealed_configuration() {
  config_object=''
  case $CONFIG_OBJECT in
    none) ;;
    auto)
      if [ -z "$DRY_RUN" ] && look gcloud storage objects describe "gs://$CONFIG_BUCKET/worker.enc" '--format=value(name)'; then
        config_object=gs://$CONFIG_BUCKET/worker.enc
      fi
      ;;
    *) config_object=$CONFIG_OBJECT ;;
  esac
}

# variables PUSH_AUTH AUDIENCE: the worker's, one a line, on Cloud Run and on Kubernetes; those of ENV_VARIABLES win.
variables() {
  {
    printf '%s' "$ENV_VARIABLES" | tr '|' '\n'
    echo
    echo "OUTPUT_BUCKET=$OUTPUT_BUCKET"
    printf 'OUTPUT_NAME=%s\n' "$OUTPUT_NAME"
    echo "RESULT_TOPIC=projects/$PROJECT_ID/topics/$RESULT_TOPIC"
    echo "PUSH_AUTH=$1"
    echo "PUSH_AUDIENCE=$2"
    echo "PUSH_SERVICE_ACCOUNT=$callers"
    echo "SIGNER_SERVICE_ACCOUNT=$SIGNER"
    echo "INPUT_BUCKETS=$INPUT_BUCKET"
    echo "CONVERT_CONCURRENCY=$CONVERT_CONCURRENCY"
    echo "CONVERT_MEMORY=$CONVERT_MEMORY"
    echo "CONVERT_TIMEOUT=$CONVERT_TIMEOUT"
    echo "ACK_DEADLINE=${ACK_DEADLINE}s"
    echo "MAX_DELIVERY_ATTEMPTS=$MAX_DELIVERY_ATTEMPTS"
    echo "SANDBOX=required"
    if [ -n "$FONTS" ]; then printf 'FONTS=%s\n' "$FONTS"; fi
    if [ -n "$config_object" ]; then
      printf 'CONFIG_OBJECT=%s\n' "$config_object"
      echo "CONFIG_KMS_KEY=$KEY_NAME"
    fi
  } | awk -F = 'NF && !seen[$1]++'
}

# enable_apis API...: those of them that are not on.
enable_apis() {
  ask gcloud services list --enabled "--project=$PROJECT_ID" '--format=value(config.name)'
  missing=''
  for api in "$@"; do
    printf '%s\n' "$FOUND" | grep -qxF "$api" || missing="$missing $api"
  done
  # shellcheck disable=SC2086 # several words
  [ -z "$missing" ] || run gcloud services enable $missing "--project=$PROJECT_ID"
}

# fingerprint WORD...: what a label remembers of settings.
fingerprint() { printf '%s\n' "$@" | cksum | cut -d ' ' -f 1; }

# member_of EMAIL: as policies write it.
member_of() {
  case $1 in
    *.gserviceaccount.com) printf 'serviceAccount:%s' "$1" ;;
    *) printf 'user:%s' "$1" ;;
  esac
}

# begin: what every script does first.
begin() {
  settings
  if [ -n "$DRY_RUN" ]; then return 0; fi
  command -v gcloud >/dev/null || refuse 'no gcloud here: https://cloud.google.com/sdk/docs/install (or use Cloud Shell)'
  # A question would wait for ever where nobody sees it.
  export CLOUDSDK_CORE_DISABLE_PROMPTS=1
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
