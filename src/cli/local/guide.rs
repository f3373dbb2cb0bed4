//! What a person is told at the start: where everything is, and commands for another terminal.

use serde::Serialize;

use super::super::world::{CONFIG_OBJECT, DEAD_LETTERS, EVENTS, INPUT_BUCKET, KEY, OUTPUT_BUCKET, RESULTS, USER, host};
use super::control::Control;

/// Where everything is. None has a slash at its end.
#[derive(Debug, Serialize)]
pub(super) struct Urls {
    page: String,
    storage: String,
    pubsub: String,
    metadata: String,
    iam: String,
    kms: String,
    /// The whole address of the key set.
    jwks: String,
    worker: String,
}

/// The texts.
pub(super) struct Guide<'a>(&'a Control);

impl<'a> Guide<'a> {
    pub(super) fn new(control: &'a Control) -> Self {
        Self(control)
    }

    /// The URLs, as the first line of stdout has them.
    pub(super) fn urls(&self) -> Urls {
        let (world, urls) = (self.0.world(), self.0.world().cloud.urls().clone());
        Urls {
            page: self.0.page_url(),
            storage: urls.storage,
            pubsub: urls.pubsub,
            metadata: world.metadata.clone(),
            iam: urls.iam,
            kms: urls.kms,
            jwks: urls.jwks,
            worker: world.worker.url().to_owned(),
        }
    }

    /// The variables with which platen's commands, and clients of Google's, find this cloud as its owner.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let (world, urls) = (self.0.world(), self.0.world().cloud.urls());
        vec![
            ("GOOGLE_CLOUD_PROJECT", world.cloud.settings().project.clone()),
            ("GCE_METADATA_HOST", host(&world.metadata).to_owned()),
            ("STORAGE_EMULATOR_HOST", urls.storage.clone()),
            ("PUBSUB_EMULATOR_HOST", host(&urls.pubsub).to_owned()),
            ("IAM_CREDENTIALS_ENDPOINT", urls.iam.clone()),
            ("STS_ENDPOINT", urls.sts.clone()),
            ("KMS_ENDPOINT", urls.kms.clone()),
            ("OIDC_JWKS_URL", urls.jwks.clone()),
        ]
    }

    /// The guide.
    pub(super) fn text(&self) -> String {
        let (world, urls) = (self.0.world(), self.0.world().cloud.urls());
        let (page, worker, storage) = (self.0.page_url(), world.worker.url(), &urls.storage);
        let (metrics, project) = (world.worker.metrics(), &world.cloud.settings().project);
        let signer = &world.cloud.settings().signer_service_account;
        let as_worker = &world.cloud.settings().worker_service_account;
        let exports: String = self
            .variables()
            .iter()
            .map(|(name, value)| format!("export {name}={value}\n"))
            .collect();
        format!(
            r#"
Drop documents on {page} . From another terminal, as {USER}:

# who and where: for platen's commands, and Google's own clients
unset GOOGLE_APPLICATION_CREDENTIALS
{exports}
# for curl
TOKEN=$(curl -s -H 'Metadata-Flavor: Google' {metadata}/computeMetadata/v1/instance/service-accounts/default/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

# upload a document: what comes into gs://{INPUT_BUCKET} is converted into gs://{OUTPUT_BUCKET}
curl -H "Authorization: Bearer $TOKEN" --data-binary @a.docx '{storage}/upload/storage/v1/b/{INPUT_BUCKET}/o?uploadType=media&name=a.docx'
# results, with their signed URLs (data is base64), and whether a message was given up
curl -H "Authorization: Bearer $TOKEN" -d '{{"maxMessages":10}}' {pubsub}/v1/projects/{project}/subscriptions/{RESULTS}:pull

platen submit gs://{INPUT_BUCKET}/a.docx --service {worker} --to png
platen submit gs://{INPUT_BUCKET}/a.docx --topic {EVENTS} --to txt --wait {RESULTS}
platen backfill gs://{INPUT_BUCKET}/ --topic {EVENTS} --revision 2
platen sign gs://{OUTPUT_BUCKET}/a.pdf --signer {signer}
platen redrive --from {DEAD_LETTERS} --topic {EVENTS}
platen secrets seal --key {KEY} --object {CONFIG_OBJECT} config.json
# the worker's deployment, looked at with the worker's rights
env $(curl -s {page}/api/worker/environment) platen doctor --impersonate {as_worker}

# break things, and mend them: docs/local.md
curl {page}/api/state
curl {page}/api/faults -d '{{"peer": "iam", "count": 3, "effect": {{"status": 503}}}}'
curl -X DELETE {page}/api/faults
curl -X PUT {page}/api/rights -d '{{"account": "worker", "permission": "storage.objects.get", "resource": "bucket/input", "granted": false}}'
curl {page}/api/worker -d '{{"action": "kill"}}'
curl -X PUT {page}/api/worker/variables -d '{{"MAX_PAGES": "2"}}'
curl {metrics}

The worker's log is on stderr. Ctrl-C ends all of it, and what it holds is {afterwards}."#,
            pubsub = urls.pubsub,
            metadata = world.metadata,
            afterwards = if world.cloud.is_kept() { "kept" } else { "gone" },
        )
    }
}
