#!/bin/sh
# Every setting of the deployment, in one place. Edit it here, in your copy of this source. A variable of the environment wins, for
# that run alone: what a later run does not get, it takes back.
#   PROJECT_ID=my-project REGION=us-central1 SIZE=large deploy/setup.sh
# deploy/setup.sh, grant-caller.sh, cleanup.sh and cloudbuild.yaml all read this file, so that they agree.
# shellcheck disable=SC2034 # read by the scripts that source this file

# Where. The project must exist and have billing; the number is looked up when it is not given.
PROJECT_ID=${PROJECT_ID:-${GOOGLE_CLOUD_PROJECT:-}}
PROJECT_NUMBER=${PROJECT_NUMBER:-}
REGION=${REGION:-europe-west1}
# The location of the buckets. Another one than the region costs egress.
BUCKET_LOCATION=${BUCKET_LOCATION:-$REGION}
# Some projects may not use every region for builds: https://cloud.google.com/build/docs/locations
BUILD_REGION=${BUILD_REGION:-$REGION}

# What it is called: the service, and the prefix of all that belongs to it. 6 to 22 characters.
SERVICE=${SERVICE:-platen}

# What the cleanup and the dry run need before the project is known: its name as a variable.
if [ -z "$PROJECT_ID" ] && [ -n "${UNKNOWN_PROJECT:-}" ]; then PROJECT_ID=$UNKNOWN_PROJECT; fi

# Documents come from here. One of another name that exists in the project is used, and survives the cleanup; setup.sh
# gives it uniform access and keeps the public out, which ends access lists of single objects.
INPUT_BUCKET=${INPUT_BUCKET:-$PROJECT_ID-$SERVICE-in}
# PDFs go here. Never the input bucket: each PDF would be a new document.
OUTPUT_BUCKET=${OUTPUT_BUCKET:-$PROJECT_ID-$SERVICE-out}
# The sealed configuration (passwords of documents) lies here, with its old versions for 30 days.
CONFIG_BUCKET=${CONFIG_BUCKET:-$PROJECT_ID-$SERVICE-config}
# Sources on their way to Cloud Build, kept for 7 days.
BUILD_BUCKET=${BUILD_BUCKET:-$PROJECT_ID-$SERVICE-build}

# The name of an output. With {generation} in it nothing is ever replaced, and the worker gets no right to delete.
OUTPUT_NAME=${OUTPUT_NAME:-'{dir}{stem}.{ext}'}

EVENT_TOPIC=${EVENT_TOPIC:-$SERVICE-events}
PUSH_SUBSCRIPTION=${PUSH_SUBSCRIPTION:-$SERVICE-push}
RESULT_TOPIC=${RESULT_TOPIC:-$SERVICE-results}
RESULT_SUBSCRIPTION=${RESULT_SUBSCRIPTION:-$SERVICE-results}
DEAD_LETTER_TOPIC=${DEAD_LETTER_TOPIC:-$SERVICE-dead-letter}
DEAD_LETTER_SUBSCRIPTION=${DEAD_LETTER_SUBSCRIPTION:-$SERVICE-dead-letter}

# The key that seals the configuration. Google never deletes a key ring or a key, so a name is for ever.
KEY_RING=${KEY_RING:-$SERVICE}
KEY=${KEY:-config}
# Which object the worker reads its sealed configuration from: "auto" is worker.enc in CONFIG_BUCKET as soon as it is
# there (`platen secrets seal` writes it; run setup.sh again), "none" is none.
CONFIG_OBJECT=${CONFIG_OBJECT:-auto}

# How much one instance is given: a row of deploy/sizing.tsv. Each column can be set by itself.
SIZE=${SIZE:-medium}
CPU=${CPU:-}
MEMORY=${MEMORY:-}
CONVERT_CONCURRENCY=${CONVERT_CONCURRENCY:-}
CONVERT_MEMORY=${CONVERT_MEMORY:-}
CONVERT_TIMEOUT=${CONVERT_TIMEOUT:-}
MIN_INSTANCES=${MIN_INSTANCES:-}
MAX_INSTANCES=${MAX_INSTANCES:-}

# What of an instance is paid for: "requests", the time in which it has one, is far cheaper below some ten documents a second;
# "instances", all of its life at a lower price, is for a constant load (docs/operations.md has the model).
BILLING=${BILLING:-requests}

# Seconds: the subscription's ack deadline, which is also how long a push may take (600 is Google's most), and the
# service's time-out, never shorter. The worker gets the same numbers.
ACK_DEADLINE=${ACK_DEADLINE:-600}
REQUEST_TIMEOUT=${REQUEST_TIMEOUT:-600}
# Between two deliveries of one message; then, after so many deliveries, the dead-letter topic. 20 of them with these
# pauses bridge about two hours in which Google's APIs or the service are away.
RETRY_LEAST=${RETRY_LEAST:-10s}
RETRY_MOST=${RETRY_MOST:-600s}
MAX_DELIVERY_ATTEMPTS=${MAX_DELIVERY_ATTEMPTS:-20}

# Who reaches the service at all: "internal" is Pub/Sub and the project's own networks. "all" lets `platen submit`
# call from anywhere; the right to call is asked for all the same.
INGRESS=${INGRESS:-internal}
# Fonts of your own: gs://BUCKET/PREFIX (end it with / for a folder). The worker gets the right to list and read that bucket.
FONTS=${FONTS:-}
# More variables of the worker: NAME=VALUE|NAME=VALUE. They win over those that setup.sh derives. The service has these and
# the derived ones and no others: one that is set by hand is gone when setup.sh next changes the service.
ENV_VARIABLES=${ENV_VARIABLES:-}
# What the step "service" changes of a service that is there: "all" that differs from this file, or "given" (Cloud Build):
# the image, ENV_VARIABLES, and OUTPUT_BUCKET and RESULT_TOPIC where they are not the derived ones.
SERVICE_CHANGES=${SERVICE_CHANGES:-all}

# The image. One that is given is not built.
REPOSITORY=${REPOSITORY:-$SERVICE}
TAG=${TAG:-latest}
IMAGE=${IMAGE:-}
# "yes" runs the whole test suite in Cloud Build before the first image, which takes half an hour.
BUILD_TESTS=${BUILD_TESTS:-no}

# Log-based metrics, a dashboard and alerts in Cloud Monitoring: yes or no. Who is told of an alert: full names of notification
# channels, comma-separated; without any, alerts are only shown.
MONITORING=${MONITORING:-yes}
NOTIFICATION_CHANNELS=${NOTIFICATION_CHANNELS:-}

# Rights that `platen doctor` needs to look at settings, besides those that the worker works with: yes or no.
DOCTOR=${DOCTOR:-no}
# Your own key for the data in buckets, topics and images (CMEK): projects/P/locations/L/keyRings/R/cryptoKeys/K.
# It must be in the region and is for what is made from now on.
CMEK_KEY=${CMEK_KEY:-}
# Who deploys new images beside you and Cloud Build: an email. It may change the one service, and so what runs as the worker. Another
# one does not take the right from the one before.
DEPLOYER=${DEPLOYER:-}
# A repository that is connected to Cloud Build (projects/P/locations/BUILD_REGION/connections/C/repositories/R): the
# image is then built and deployed anew on this schedule, which is how security updates of LibreOffice arrive.
REBUILD_REPOSITORY=${REBUILD_REPOSITORY:-}
REBUILD_BRANCH=${REBUILD_BRANCH:-main}
REBUILD_SCHEDULE=${REBUILD_SCHEDULE:-'0 4 * * 1'}

# How long to wait between two tries of what Google needs a while for (a new account, a new right), and how often.
RETRY_SECONDS=${RETRY_SECONDS:-10}
RETRY_TIMES=${RETRY_TIMES:-30}
# Where the last step leaves the first PDF.
FIRST_PDF=${FIRST_PDF:-out/platen-setup.pdf}
