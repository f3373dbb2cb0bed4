#!/bin/sh
# From an empty project to a PDF that is downloaded through its signed URL. See `deploy/setup.sh --help`.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/lib.sh
. "$HERE/lib.sh"

usage() {
  cat <<'TEXT'
Usage: deploy/setup.sh [--dry-run] [--only STEP]

Sets up Platen in a Google Cloud project, step by step, and ends with a document uploaded and its PDF downloaded through
its signed URL. What is there already is left alone, so that running it again changes nothing, goes on after a failure,
and carries a changed setting out.

  --dry-run      print every command instead, as a shell script; needs neither gcloud nor a network
  --only STEP    one step alone
  --help         this text

Settings are in deploy/env.sh. One that is given in the environment holds for that run: a later run without it takes it back.

  PROJECT_ID=my-project deploy/setup.sh
  PROJECT_ID=my-project REGION=us-central1 SIZE=large deploy/setup.sh --dry-run

Steps: apis roles accounts repository buckets secrets topics grants metrics image service invoker push notification
rebuild first-document alerts

You need to be the project's owner, or to have the admin roles of these services; billing must be on.
TEXT
}

STEPS='apis roles accounts repository buckets secrets topics grants metrics image service invoker push notification rebuild first-document alerts'
only=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY_RUN=yes ;;
    --only)
      [ $# -gt 1 ] || refuse '--only needs the name of a step; --help lists them'
      only=$2
      shift
      ;;
    --only=*) only=${1#--only=} ;;
    --help | -h) usage && exit 0 ;;
    *) refuse "unknown argument '$1'; --help says what there is" ;;
  esac
  shift
done
case " $STEPS " in *" ${only:-apis} "*) ;; *) refuse "unknown step '$only'; --help lists them" ;; esac

# --- steps ----------------------------------------------------------------------------------------------------------

step_apis() {
  wanted='run.googleapis.com pubsub.googleapis.com storage.googleapis.com iam.googleapis.com iamcredentials.googleapis.com
    cloudkms.googleapis.com artifactregistry.googleapis.com cloudbuild.googleapis.com logging.googleapis.com
    cloudresourcemanager.googleapis.com'
  [ -z "$REBUILD_REPOSITORY" ] || wanted="$wanted cloudscheduler.googleapis.com"
  [ "$MONITORING" = no ] || wanted="$wanted monitoring.googleapis.com"
  # shellcheck disable=SC2086 # several words
  enable_apis $wanted
}

# custom_role ID TITLE PERMISSIONS: a role with exactly these, where Google's smallest is wider.
custom_role() {
  id=$ROLE_PREFIX$1 title=$2 permissions=$3
  if ! look gcloud iam roles describe "$id" "--project=$PROJECT_ID" '--format=value[separator="|"](deleted,includedPermissions)'; then
    run gcloud iam roles create "$id" "--project=$PROJECT_ID" "--title=$title" "--permissions=$permissions" --stage=GA
    return 0
  fi
  # A role that was deleted keeps its id for 37 days, and can be had back for the first 7.
  case $FOUND in
    True*) run gcloud iam roles undelete "$id" "--project=$PROJECT_ID" ;;
  esac
  has=$(printf '%s' "${FOUND#*|}" | tr ';' '\n' | sort)
  if [ "$has" != "$(printf '%s' "$permissions" | tr ',' '\n' | sort)" ]; then
    run gcloud iam roles update "$id" "--project=$PROJECT_ID" "--permissions=$permissions"
  fi
}

step_roles() {
  # roles/storage.objectViewer also lists: whoever gets hold of a token could enumerate every document.
  custom_role object_reader 'Platen: read objects by name' storage.objects.get
  # roles/storage.objectUser also lists and updates. To replace an older PDF of the same source Google asks for delete.
  case $OUTPUT_NAME in
    *'{generation}'*) custom_role object_writer 'Platen: write new objects' storage.objects.create,storage.objects.get ;;
    *) custom_role object_writer 'Platen: write and replace objects' storage.objects.create,storage.objects.delete,storage.objects.get ;;
  esac
  # roles/iam.serviceAccountTokenCreator also makes access tokens: whoever signs as an account could be it altogether.
  custom_role url_signer 'Platen: sign as an account' iam.serviceAccounts.signBlob
  if [ "$DOCTOR" = yes ]; then
    custom_role inspector 'Platen: look at settings (platen doctor)' pubsub.subscriptions.get,pubsub.topics.get,storage.buckets.get
  fi
  if [ -n "$FONTS" ]; then
    # The worker looks for font files below a prefix. roles/storage.objectViewer reads folders' policies besides.
    custom_role font_reader 'Platen: list and read fonts' storage.objects.get,storage.objects.list
  fi
  if [ -n "$REBUILD_REPOSITORY" ]; then
    # roles/cloudbuild.builds.editor also cancels builds and reads their logs.
    custom_role build_starter 'Platen: start the rebuild' cloudbuild.builds.create
  fi
}

# account ID WHAT
account() {
  look gcloud iam service-accounts describe "$1@$PROJECT_ID.iam.gserviceaccount.com" "--project=$PROJECT_ID" '--format=value(email)' ||
    run gcloud iam service-accounts create "$1" "--project=$PROJECT_ID" "--display-name=$2"
}

# One account for each thing that is done, and no key for any.
step_accounts() {
  account "$SERVICE" 'Platen: the worker'
  account "$SERVICE-push" 'Platen: whose token a push carries'
  account "$SERVICE-signer" 'Platen: in whose name URLs are signed'
  account "$SERVICE-build" 'Platen: builds and deploys images'
  [ -z "$REBUILD_REPOSITORY" ] || account "$SERVICE-rebuild" 'Platen: starts the rebuild'
}

step_repository() {
  set --
  if [ -n "$CMEK_KEY" ]; then
    # The agent that encrypts the images, which Google makes when it is first asked for.
    encrypter artifactregistry.googleapis.com "$REGISTRY_AGENT"
    set -- "--kms-key=$CMEK_KEY"
  fi
  look gcloud artifacts repositories describe "$REPOSITORY" "--project=$PROJECT_ID" "--location=$REGION" '--format=value(name)' ||
    run gcloud artifacts repositories create "$REPOSITORY" "--project=$PROJECT_ID" "--location=$REGION" \
      --repository-format=docker "--description=Images of Platen" "$@"
  # Cloud Build pushes to this repository and to no other.
  grant "serviceAccount:$BUILDER" roles/artifactregistry.writer 'artifacts repositories' "$REPOSITORY" \
    "--project=$PROJECT_ID" "--location=$REGION"
}

# encrypter API AGENT: one of Google's agents uses the operator's own key; the worker never needs it for data at rest.
encrypter() {
  key_members
  if printf '%s\n' "$FOUND" | grep -qxF "roles/cloudkms.cryptoKeyEncrypterDecrypter,serviceAccount:$2,"; then return 0; fi
  [ "$1" = storage.googleapis.com ] || run gcloud beta services identity create "--service=$1" "--project=$PROJECT_ID"
  cmek_key grant "serviceAccount:$2" roles/cloudkms.cryptoKeyEncrypterDecrypter 'kms keys'
}
key_members() { cmek_key members 'kms keys'; }
# cmek_key COMMAND...: with the parts of CMEK_KEY as gcloud wants them.
cmek_key() {
  path=${CMEK_KEY#projects/}
  key_project=${path%%/*}
  path=${path#*/locations/}
  key_location=${path%%/*}
  path=${path#*/keyRings/}
  "$@" "${path#*/cryptoKeys/}" "--keyring=${path%%/*}" "--location=$key_location" "--project=$key_project"
}

# bucket NAME FLAGS...: uniform access and no public access, whatever anybody does to an object later. The flags are for
# a new bucket; one that is there is only locked down. What setup.sh made is labelled, so that cleanup.sh leaves others.
bucket() {
  name=$1
  shift
  if [ -n "$CMEK_KEY" ]; then set -- "$@" "--default-encryption-key=$CMEK_KEY"; fi
  if ! look gcloud storage buckets describe "gs://$name" \
    '--format=value[separator="|"](projectNumber,iamConfiguration.uniformBucketLevelAccess.enabled,iamConfiguration.publicAccessPrevention,labels.platen)' --raw; then
    set -- gcloud storage buckets create "gs://$name" "--project=$PROJECT_ID" "--location=$BUCKET_LOCATION" \
      --uniform-bucket-level-access --public-access-prevention "$@"
    if [ -n "$DRY_RUN" ]; then
      printf '{ %s &&\n  %s; }\n' "$(show "$@")" "$(show gcloud storage buckets update "gs://$name" "--update-labels=platen=$SERVICE")"
      return 0
    fi
    run "$@"
    run gcloud storage buckets update "gs://$name" "--update-labels=platen=$SERVICE"
    return 0
  fi
  case $FOUND in
    "$PROJECT_NUMBER|"*"|") # A run that ended between the two commands above made it: the name is setup.sh's own.
      case $name in "$PROJECT_ID-$SERVICE-"*) run gcloud storage buckets update "gs://$name" "--update-labels=platen=$SERVICE" ;; esac
      ;;
  esac
  case $FOUND in
    "$PROJECT_NUMBER|True|enforced|"*) ;;
    "$PROJECT_NUMBER|"*) run gcloud storage buckets update "gs://$name" --uniform-bucket-level-access --public-access-prevention ;;
    *)
      failed "gs://$name belongs to another project (number ${FOUND%%|*}): names of buckets are the whole world's, choose another one in deploy/env.sh" \
        gcloud storage buckets describe "gs://$name"
      ;;
  esac
}

step_buckets() {
  # Makes Cloud Storage's own account as well, which must exist before anything can be granted to it.
  ask gcloud storage service-agent "--project=$PROJECT_ID"
  if [ -n "$DRY_RUN" ]; then show gcloud storage service-agent "--project=$PROJECT_ID" && echo; fi
  if [ -n "$CMEK_KEY" ]; then encrypter storage.googleapis.com "$STORAGE_AGENT"; fi
  # Deleted documents can be had back for Google's seven days.
  bucket "$INPUT_BUCKET"
  # A PDF can be made again, and one that is deleted should be gone: no soft delete.
  bucket "$OUTPUT_BUCKET" --soft-delete-duration=0
  # Every version, so that a configuration sealed by mistake can be taken back; old ones go after 30 days.
  bucket "$CONFIG_BUCKET" "--lifecycle-file=deploy/lifecycle-config.json"
  ask gcloud storage buckets describe "gs://$CONFIG_BUCKET" '--format=value(versioning.enabled)' --raw
  if [ "$FOUND" != True ]; then run gcloud storage buckets update "gs://$CONFIG_BUCKET" --versioning; fi
  bucket "$BUILD_BUCKET" "--lifecycle-file=deploy/lifecycle-build.json" --soft-delete-duration=0
}

# The key that seals the passwords of documents. The worker opens with it and cannot seal.
step_secrets() {
  look gcloud kms keyrings describe "$KEY_RING" "--project=$PROJECT_ID" "--location=$REGION" '--format=value(name)' ||
    run gcloud kms keyrings create "$KEY_RING" "--project=$PROJECT_ID" "--location=$REGION"
  look gcloud kms keys describe "$KEY" "--project=$PROJECT_ID" "--location=$REGION" "--keyring=$KEY_RING" '--format=value(name)' ||
    run gcloud kms keys create "$KEY" "--project=$PROJECT_ID" "--location=$REGION" "--keyring=$KEY_RING" --purpose=encryption
  grant "serviceAccount:$WORKER" roles/cloudkms.cryptoKeyDecrypter 'kms keys' "$KEY" \
    "--project=$PROJECT_ID" "--location=$REGION" "--keyring=$KEY_RING"
  grant "serviceAccount:$WORKER" "$ROLES${ROLE_PREFIX}object_reader" 'storage buckets' "gs://$CONFIG_BUCKET"
}

# topic ID
topic() {
  set -- "$1" "--project=$PROJECT_ID"
  look gcloud pubsub topics describe "$@" '--format=value(name)' || {
    if [ -n "$CMEK_KEY" ]; then set -- "$@" "--topic-encryption-key=$CMEK_KEY"; fi
    patiently gcloud pubsub topics create "$@"
  }
}

# pull_subscription ID TOPIC. Without --expiration-period Google deletes one that nobody has read for 31 days.
pull_subscription() {
  look gcloud pubsub subscriptions describe "$1" "--project=$PROJECT_ID" '--format=value(name)' ||
    run gcloud pubsub subscriptions create "$1" "--project=$PROJECT_ID" "--topic=$2" \
      --ack-deadline=60 --message-retention-duration=7d --expiration-period=never
}

step_topics() {
  # Pub/Sub's own account, which makes the token of a push. Its service role lets it do so in projects since April 2021;
  # older ones need this grant, which is for the push account alone. roles/iam.serviceAccountTokenCreator, as Google's
  # pages have it, would also let it sign and make access tokens.
  members 'iam service-accounts' "$PUSH" "--project=$PROJECT_ID"
  if ! printf '%s\n' "$FOUND" | grep -qF ",serviceAccount:$PUBSUB_AGENT,"; then
    run gcloud beta services identity create --service=pubsub.googleapis.com "--project=$PROJECT_ID"
  fi
  grant "serviceAccount:$PUBSUB_AGENT" roles/iam.serviceAccountOpenIdTokenCreator 'iam service-accounts' "$PUSH" "--project=$PROJECT_ID"
  if [ -n "$CMEK_KEY" ]; then encrypter pubsub.googleapis.com "$PUBSUB_AGENT"; fi
  topic "$EVENT_TOPIC"
  topic "$RESULT_TOPIC"
  topic "$DEAD_LETTER_TOPIC"
  # A topic forgets what no subscription holds: both are made before the first message.
  pull_subscription "$RESULT_SUBSCRIPTION" "$RESULT_TOPIC"
  pull_subscription "$DEAD_LETTER_SUBSCRIPTION" "$DEAD_LETTER_TOPIC"
  # Pub/Sub itself forwards what was delivered too often, and then acknowledges it (step "push").
  grant "serviceAccount:$PUBSUB_AGENT" roles/pubsub.publisher 'pubsub topics' "$DEAD_LETTER_TOPIC" "--project=$PROJECT_ID"
  # Cloud Storage announces uploads.
  grant "serviceAccount:$STORAGE_AGENT" roles/pubsub.publisher 'pubsub topics' "$EVENT_TOPIC" "--project=$PROJECT_ID"
}

# inspected GROUP RESOURCE...: what only doctor looks at, as long as it is wanted.
inspected() {
  if [ "$DOCTOR" = yes ]; then
    grant "serviceAccount:$WORKER" "$ROLES${ROLE_PREFIX}inspector" "$@"
  elif [ -z "$DRY_RUN" ]; then
    revoke "serviceAccount:$WORKER" "$ROLES${ROLE_PREFIX}inspector" "$@"
  fi
}

# What the worker and the signer may do. Each on the one resource, none on the project.
step_grants() {
  worker=serviceAccount:$WORKER
  # Fetch the generation that a message names.
  grant "$worker" "$ROLES${ROLE_PREFIX}object_reader" 'storage buckets' "gs://$INPUT_BUCKET"
  # Store the PDF, look at what is there, replace an older one.
  grant "$worker" "$ROLES${ROLE_PREFIX}object_writer" 'storage buckets' "gs://$OUTPUT_BUCKET"
  # A signed URL can do what its signer can: read PDFs.
  grant "serviceAccount:$SIGNER" "$ROLES${ROLE_PREFIX}object_reader" 'storage buckets' "gs://$OUTPUT_BUCKET"
  # Sign as that account, and not be it.
  grant "$worker" "$ROLES${ROLE_PREFIX}url_signer" 'iam service-accounts' "$SIGNER" "--project=$PROJECT_ID"
  # Publish the result; pubsub.topics.publish is all that the role holds.
  grant "$worker" roles/pubsub.publisher 'pubsub topics' "$RESULT_TOPIC" "--project=$PROJECT_ID"
  if [ -n "$FONTS" ]; then
    # Its own fonts. The bucket is yours: it is neither made nor changed.
    bucket=${FONTS#gs://}
    grant "$worker" "$ROLES${ROLE_PREFIX}font_reader" 'storage buckets' "gs://${bucket%%/*}"
  fi
  # A build takes its sources from here ...
  grant "serviceAccount:$BUILDER" "$ROLES${ROLE_PREFIX}object_reader" 'storage buckets' "gs://$BUILD_BUCKET"
  # ... deploys services that run as the worker, and as nobody else ...
  grant "serviceAccount:$BUILDER" roles/iam.serviceAccountUser 'iam service-accounts' "$WORKER" "--project=$PROJECT_ID"
  # ... and writes its log: the one right of a build that Google grants on projects alone.
  grant "serviceAccount:$BUILDER" roles/logging.logWriter projects "$PROJECT_ID"
  for name in "$INPUT_BUCKET" "$OUTPUT_BUCKET" "$CONFIG_BUCKET"; do inspected 'storage buckets' "gs://$name"; done
  for name in "$EVENT_TOPIC" "$RESULT_TOPIC" "$DEAD_LETTER_TOPIC"; do inspected 'pubsub topics' "$name" "--project=$PROJECT_ID"; done
  if [ -n "$DEPLOYER" ]; then
    grant "$(member_of "$DEPLOYER")" roles/iam.serviceAccountUser 'iam service-accounts' "$WORKER" "--project=$PROJECT_ID"
    grant "$(member_of "$DEPLOYER")" roles/artifactregistry.reader 'artifacts repositories' "$REPOSITORY" \
      "--project=$PROJECT_ID" "--location=$REGION"
  fi
}

step_image() {
  [ "$IMAGE" = "$BUILT_IMAGE" ] || return 0
  look gcloud artifacts docker images describe "$IMAGE" "--project=$PROJECT_ID" '--format=value(image_summary.digest)' ||
    patiently gcloud builds submit . "--project=$PROJECT_ID" "--region=$BUILD_REGION" --config=cloudbuild.yaml \
      "--service-account=projects/$PROJECT_ID/serviceAccounts/$BUILDER" "--gcs-source-staging-dir=gs://$BUILD_BUCKET/source" \
      "--substitutions=$(substitutions no "$BUILD_TESTS")"
}
# substitutions DEPLOY TESTS: of cloudbuild.yaml.
substitutions() {
  printf '^|^_SERVICE_NAME=%s|_REGION=%s|_IMAGE=%s|_TAG=%s|_OUTPUT_BUCKET=%s|_RESULT_TOPIC=%s|_DEPLOY=%s|_TESTS=%s' \
    "$SERVICE" "$REGION" "${BUILT_IMAGE%:*}" "$TAG" "$OUTPUT_BUCKET" "$RESULT_TOPIC" "$1" "$2"
}

# The service is deployed anew when what it should be differs from what it was made as, which its label remembers; asked for by
# itself, also when somebody has changed it since.
step_service() {
  has='' image=$IMAGE callers=$PUSH
  if [ -z "$DRY_RUN" ] && look gcloud run services describe "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION" \
    '--format=value[separator="|"](metadata.labels.platen-settings,metadata.labels.platen-callers,spec.template.spec.containers[0].image)'; then
    has=$FOUND
    # A service keeps the image that it has, which Cloud Build may have deployed since, unless one is named.
    [ "$IMAGE" != "$BUILT_IMAGE" ] || image=${has##*|}
    if [ "$SERVICE_CHANGES" = given ]; then
      given_to_service
      return 0
    fi
    callers
  fi
  # By digest, so that a tag that moves changes nothing by itself.
  if [ "$image" = "$BUILT_IMAGE" ]; then
    ask gcloud artifacts docker images describe "$BUILT_IMAGE" "--project=$PROJECT_ID" '--format=value(image_summary.digest)'
    [ -z "$FOUND" ] || image=${BUILT_IMAGE%:*}@$FOUND
  fi
  sealed_configuration
  # --no-allow-unauthenticated, and callers proven by Cloud Run, which then removes the token's signature: cloud-run-iam.
  # gen2: the first generation has no Landlock, and the sandbox is required. --concurrency is the number of slots: a push
  # more would be answered 429, which slows the whole subscription down and counts as a delivery. --cpu-throttling: a
  # worker has answered only when all is done, so that it needs no processor between two requests.
  if [ "$BILLING" = requests ]; then throttling=--cpu-throttling; else throttling=--no-cpu-throttling; fi
  set -- "--service-account=$WORKER" --no-allow-unauthenticated "--ingress=$INGRESS" \
    --execution-environment=gen2 "--cpu=$CPU" "--memory=$MEMORY" "--concurrency=$CONVERT_CONCURRENCY" \
    "--timeout=$REQUEST_TIMEOUT" "--min-instances=$MIN_INSTANCES" "--max-instances=$MAX_INSTANCES" \
    "$throttling" --cpu-boost \
    --startup-probe=httpGet.path=/health/ready,periodSeconds=2,failureThreshold=60 \
    --liveness-probe=httpGet.path=/health/live,periodSeconds=30,failureThreshold=3 \
    "--set-env-vars=^|^$(variables cloud-run-iam "$URL" | paste -s -d '|' -)"
  # The callers have a label of their own, because grant-caller.sh changes them alone.
  labels=platen-settings=$(printf '%s\n' "$@" | sed 's/PUSH_SERVICE_ACCOUNT=[^|]*|//' | cksum | cut -d ' ' -f 1)
  if [ "$has" = "${labels#*=}|$(fingerprint "$callers")|$image" ] && [ "$only" != service ]; then return 0; fi
  patiently gcloud run deploy "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION" "--image=$image" "$@" \
    "--labels=$labels,platen-callers=$(fingerprint "$callers")"
}
# given_to_service: what a build names, and nothing else. A build knows neither what its operator gave setup.sh in the environment
# nor who may call.
given_to_service() {
  given=$(
    printf '%s' "$ENV_VARIABLES" | tr '|' '\n'
    echo
    [ "$OUTPUT_BUCKET" = "$PROJECT_ID-$SERVICE-out" ] || echo "OUTPUT_BUCKET=$OUTPUT_BUCKET"
    [ "$RESULT_TOPIC" = "$SERVICE-results" ] || echo "RESULT_TOPIC=projects/$PROJECT_ID/topics/$RESULT_TOPIC"
  )
  given=$(printf '%s\n' "$given" | awk -F = 'NF && !seen[$1]++' | paste -s -d '|' -)
  set -- gcloud run services update "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION" "--image=$image"
  [ -z "$given" ] || set -- "$@" "--update-env-vars=^|^$given"
  run "$@"
}

step_invoker() {
  service() { "$@" 'run services' "$SERVICE" "--project=$PROJECT_ID" "--region=$REGION"; }
  # Pub/Sub's pushes may call this service, and no other of the project.
  service grant "serviceAccount:$PUSH" roles/run.invoker
  # Cloud Build changes this service; it cannot make another, nor open this one to the world.
  service grant "serviceAccount:$BUILDER" roles/run.developer
  if [ -n "$DEPLOYER" ]; then service grant "$(member_of "$DEPLOYER")" roles/run.developer; fi
}

step_push() {
  to="--push-endpoint=$URL --push-auth-service-account=$PUSH --push-auth-token-audience=$URL"
  set -- "--ack-deadline=$ACK_DEADLINE" "--min-retry-delay=$RETRY_LEAST" "--max-retry-delay=$RETRY_MOST" \
    "--dead-letter-topic=projects/$PROJECT_ID/topics/$DEAD_LETTER_TOPIC" "--max-delivery-attempts=$MAX_DELIVERY_ATTEMPTS" \
    --message-retention-duration=7d --expiration-period=never
  # shellcheck disable=SC2086 # three words
  fingerprint=$(fingerprint $to "$@")
  if ! look gcloud pubsub subscriptions describe "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID" \
    '--format=value[separator="|"](labels.platen-settings,labels.platen-push)'; then
    # shellcheck disable=SC2086
    patiently gcloud pubsub subscriptions create "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID" "--topic=$EVENT_TOPIC" \
      $to "$@" "--labels=platen-settings=$fingerprint,platen-push=cloud-run"
  # Asked for by itself, it is carried out: what was changed by hand has left the label as it was.
  elif [ "$only" = push ]; then
    # shellcheck disable=SC2086
    run gcloud pubsub subscriptions update "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID" $to "$@" \
      "--update-labels=platen-settings=$fingerprint,platen-push=cloud-run"
  elif [ "${FOUND%%|*}" != "$fingerprint" ]; then
    # Where deploy/gke/setup.sh has sent the pushes they stay.
    case $FOUND in *'|gke') to='' ;; esac
    # shellcheck disable=SC2086
    run gcloud pubsub subscriptions update "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID" $to "$@" \
      "--update-labels=platen-settings=$fingerprint"
  fi
  # Acknowledges what it has put on the dead-letter topic.
  grant "serviceAccount:$PUBSUB_AGENT" roles/pubsub.subscriber 'pubsub subscriptions' "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID"
  inspected 'pubsub subscriptions' "$PUSH_SUBSCRIPTION" "--project=$PROJECT_ID"
}

# From here on every upload is a job. Last, so that nothing is pushed to what is not there.
step_notification() {
  topic=projects/$PROJECT_ID/topics/$EVENT_TOPIC
  ask gcloud storage buckets notifications list "gs://$INPUT_BUCKET" '--format=value[separator="|"]("Notification Configuration".id,"Notification Configuration".topic)'
  case $FOUND in
    *"|//pubsub.googleapis.com/$topic"*) return 0 ;;
  esac
  patiently gcloud storage buckets notifications create "gs://$INPUT_BUCKET" "--topic=$topic" \
    --event-types=OBJECT_FINALIZE --payload-format=json
}

step_rebuild() {
  [ -n "$REBUILD_REPOSITORY" ] || return 0
  trigger=$SERVICE-rebuild
  # Neither has labels: the description remembers the settings. A trigger's repository cannot be changed, so that it is made anew.
  set -- "--repository=$REBUILD_REPOSITORY" "--branch=$REBUILD_BRANCH" --build-config=cloudbuild.yaml \
    "--service-account=projects/$PROJECT_ID/serviceAccounts/$BUILDER" "--substitutions=$(substitutions image yes)"
  description="Platen: the rebuild ($(fingerprint "$@"))"
  there=''
  if look gcloud builds triggers describe "$trigger" "--project=$PROJECT_ID" "--region=$BUILD_REGION" '--format=value(description)'; then there=yes; fi
  if [ "$there" = yes ] && [ "$FOUND" != "$description" ]; then
    run gcloud builds triggers delete "$trigger" "--project=$PROJECT_ID" "--region=$BUILD_REGION" --quiet
    there=''
  fi
  [ "$there" = yes ] ||
    run gcloud builds triggers create manual "--name=$trigger" "--project=$PROJECT_ID" "--region=$BUILD_REGION" "$@" "--description=$description"
  # A trigger has no policy of its own: Google grants the right to start one on projects alone.
  grant "serviceAccount:$REBUILDER" "$ROLES${ROLE_PREFIX}build_starter" projects "$PROJECT_ID"
  # Whoever starts a build needs the right to use its account.
  grant "serviceAccount:$REBUILDER" roles/iam.serviceAccountUser 'iam service-accounts' "$BUILDER" "--project=$PROJECT_ID"
  set -- "--schedule=$REBUILD_SCHEDULE" --time-zone=Etc/UTC --http-method=POST \
    "--uri=https://cloudbuild.googleapis.com/v1/projects/$PROJECT_ID/locations/$BUILD_REGION/triggers/$trigger:run" \
    --message-body='{}' "--oauth-service-account-email=$REBUILDER"
  description="Platen: starts the rebuild ($(fingerprint "$@"))"
  if ! look gcloud scheduler jobs describe "$trigger" "--project=$PROJECT_ID" "--location=$REGION" '--format=value(description)'; then
    run gcloud scheduler jobs create http "$trigger" "--project=$PROJECT_ID" "--location=$REGION" "$@" "--description=$description"
  elif [ "$FOUND" != "$description" ]; then
    run gcloud scheduler jobs update http "$trigger" "--project=$PROJECT_ID" "--location=$REGION" "$@" "--description=$description"
  fi
}

# The proof: a document in, its PDF out, through the link in the result message.
step_first_document() {
  document=gs://$INPUT_BUCKET/platen-setup/invoice.docx
  if [ -z "$DRY_RUN" ] && [ -z "$only" ] && look gcloud storage objects describe "$document" '--format=value(metadata.proven)' --raw && [ "$FOUND" = yes ]; then
    return 0
  fi
  run gcloud storage cp fixtures/documents/plain/invoice.docx "$document"
  set -- gcloud pubsub subscriptions pull "$RESULT_SUBSCRIPTION" "--project=$PROJECT_ID" --limit=10 \
    '--format=value[separator="|"](ackId,message.attributes.sourceObject,message.attributes.sourceGeneration,message.attributes.status,message.data.decode(base64))'
  if [ -n "$DRY_RUN" ]; then
    # shellcheck disable=SC2016 # for the shell that runs the text
    printf 'url=$(%s |\n  sed -n %s | head -n 1)\n%s %s\n' "$(show "$@")" "'s/.*\"signedUrl\":\"\\([^\"]*\\)\".*/\\1/p'" \
      'printf '\''url = "%s"\n'\'' "$url" | curl --fail --silent --show-error --create-dirs --config - --output' "$(show "$FIRST_PDF")"
    run gcloud storage objects update "$document" --update-custom-metadata=proven=yes
    return 0
  fi
  ask gcloud storage objects describe "$document" '--format=value(generation)' --raw
  generation=$FOUND
  say "waiting for the result of $document on $RESULT_SUBSCRIPTION"
  tries=0 result=''
  while [ -z "$result" ]; do
    tries=$((tries + 1))
    [ "$tries" -le "$RETRY_TIMES" ] ||
      failed "no result came; this shows what the worker says: gcloud run services logs read $SERVICE --project=$PROJECT_ID --region=$REGION" "$@"
    [ "$tries" = 1 ] || sleep "$RETRY_SECONDS"
    ask "$@"
    # Ours are acknowledged, also those of earlier runs; everybody else's are given back at once.
    result=$(printf '%s\n' "$FOUND" | grep -F "|platen-setup/invoice.docx|$generation|" | head -n 1) || result=''
    ours=$(printf '%s\n' "$FOUND" | awk -F '|' '$2 == "platen-setup/invoice.docx" { print $1 }' | paste -s -d , -)
    others=$(printf '%s\n' "$FOUND" | awk -F '|' 'NF && $2 != "platen-setup/invoice.docx" { print $1 }' | paste -s -d , -)
    if [ -n "$ours" ]; then
      run gcloud pubsub subscriptions ack "$RESULT_SUBSCRIPTION" "--project=$PROJECT_ID" "--ack-ids=$ours"
    fi
    if [ -n "$others" ]; then
      run gcloud pubsub subscriptions modify-message-ack-deadline "$RESULT_SUBSCRIPTION" "--project=$PROJECT_ID" "--ack-ids=$others" --ack-deadline=0
    fi
  done
  url=$(printf '%s\n' "$result" | sed -n 's/.*"signedUrl":"\([^"]*\)".*/\1/p')
  if [ -z "$url" ]; then
    failed "the result has no signed URL: $(printf '%s\n' "$result" | sed -n 's/.*"error":\({[^}]*}\).*/\1/p')" "$@"
  fi
  # The link is a secret: it goes through a pipe, where no list of processes shows it.
  printf 'url = "%s"\n' "$url" | curl --fail --silent --show-error --create-dirs --config - --output "$FIRST_PDF" 2>"$scratch/error" ||
    failed "the signed URL does not answer: $(head -n 1 "$scratch/error")" curl --output "$FIRST_PDF" URL
  [ "$(head -c 5 "$FIRST_PDF")" = '%PDF-' ] || failed 'what the signed URL gives is no PDF' curl --output "$FIRST_PDF" URL
  run gcloud storage objects update "$document" --update-custom-metadata=proven=yes
  say "good: $FIRST_PDF is the first PDF, downloaded through its signed URL"
}

# What the worker's lines say, as numbers. Long before the alerts, which Google takes only once it knows the metrics.
step_metrics() {
  [ "$MONITORING" = yes ] || return 0
  for file in "$HERE"/monitoring/metrics/*.json; do
    filled "$file"
    name=$ROLE_PREFIX$(basename "$file" .json)
    if ! look gcloud logging metrics describe "$name" "--project=$PROJECT_ID" '--format=value(description)'; then
      run_with "$filled" gcloud logging metrics create "$name" "--project=$PROJECT_ID" --config-from-file=-
      continue
    fi
    case $FOUND in
      *"($print)") ;;
      *) run_with "$filled" gcloud logging metrics update "$name" "--project=$PROJECT_ID" --config-from-file=- ;;
    esac
  done
}

# The dashboard and the alerts. Last, because Google may take minutes until it knows a new metric.
step_alerts() {
  [ "$MONITORING" = yes ] || return 0
  for channel in $(printf '%s' "$NOTIFICATION_CHANNELS" | tr , ' '); do
    if [ -n "$DRY_RUN" ]; then break; fi
    ask gcloud beta monitoring channels describe "$channel" "--project=$PROJECT_ID" '--format=value(name)'
  done
  filled "$HERE/monitoring/dashboard.json"
  if ! listed gcloud monitoring dashboards list "--project=$PROJECT_ID" "--filter=displayName=\"$(titled)\"" '--format=value[separator="|"](name,etag,labels)'; then
    run_with "$filled" gcloud monitoring dashboards create "--project=$PROJECT_ID" --config-from-file=-
  else
    case $FOUND in
      *"settings-$print"*) ;;
      *)
        name=${FOUND%%|*} etag=${FOUND#*|}
        # An update names the version that it replaces.
        filled=$(printf '%s\n' "$filled" | sed "1s|{|{\"etag\": \"${etag%%|*}\",|")
        run_with "$filled" gcloud monitoring dashboards update "$name" "--project=$PROJECT_ID" --config-from-file=-
        ;;
    esac
  fi
  for file in "$HERE"/monitoring/alerts/*.json; do
    filled "$file" "$NOTIFICATION_CHANNELS"
    if ! listed gcloud alpha monitoring policies list "--project=$PROJECT_ID" "--filter=displayName=\"$(titled)\"" '--format=value[separator="|"](name,userLabels.platen-settings)'; then
      set -- gcloud alpha monitoring policies create "--project=$PROJECT_ID" --policy-from-file=-
      [ -z "$NOTIFICATION_CHANNELS" ] || set -- "$@" "--notification-channels=$NOTIFICATION_CHANNELS"
      run_with "$filled" "$@"
    elif [ "${FOUND#*|}" != "$print" ]; then
      set -- gcloud alpha monitoring policies update "${FOUND%%|*}" "--project=$PROJECT_ID" --policy-from-file=-
      [ -z "$NOTIFICATION_CHANNELS" ] || set -- "$@" "--set-notification-channels=$NOTIFICATION_CHANNELS"
      run_with "$filled" "$@"
    fi
  done
}

# --- the run --------------------------------------------------------------------------------------------------------

begin
[ -n "$DRY_RUN" ] || command -v curl >/dev/null || refuse 'no curl here, which downloads the first PDF: install it'
project_number
# The build, the document and the lifecycles are named from the root of the source.
cd "$HERE/.."
for step in $STEPS; do
  if [ -n "$only" ] && [ "$only" != "$step" ]; then continue; fi
  STEP=$step
  if [ -n "$DRY_RUN" ]; then printf '\n# %s\n' "$step"; fi
  "step_$(printf '%s' "$step" | tr - _)"
done
if [ -z "$DRY_RUN" ] && [ -z "$only" ]; then
  say "all is there: put a document in gs://$INPUT_BUCKET, results come on $RESULT_SUBSCRIPTION, the service is $URL"
fi
