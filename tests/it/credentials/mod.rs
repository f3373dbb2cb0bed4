//! Application Default Credentials against the local cloud: every kind, what it gives, and what it never shows.

mod executable;
mod federation;
mod kinds;
mod token;
mod universe;
mod worker;

use std::collections::HashMap;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platen::google::http::Http;
use platen::google::token::{Settings, Tokens};
use platen::local_cloud::{self, LocalCloud};
use serde_json::{Value, json};

pub(crate) const WORKER: &str = "worker@local-project.iam.gserviceaccount.com";
pub(crate) const CALLER: &str = "caller@local-project.iam.gserviceaccount.com";
pub(crate) const USER: &str = "ada@example.com";
const POOL: &str = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/pool";
const SUBJECT: &str = "build-7";
/// Planted in everything that is secret.
const CANARY: &str = "canary-that-nothing-may-show";

fn provider() -> String {
    format!("{POOL}/providers/ci")
}

fn principal() -> String {
    format!("principal:{POOL}/subject/{SUBJECT}")
}

/// A cloud with a topic and an account that nobody may act as yet.
async fn cloud() -> LocalCloud {
    let cloud = LocalCloud::start(local_cloud::Settings::default()).await.unwrap();
    cloud.create_service_account(CALLER);
    cloud.federate(&provider()).unwrap();
    cloud
}

/// What a command is told about a cloud, without any credentials.
pub(crate) fn endpoints(cloud: &LocalCloud) -> HashMap<String, String> {
    let urls = cloud.urls();
    [
        ("IAM_CREDENTIALS_ENDPOINT", urls.iam.as_str()),
        ("STS_ENDPOINT", &urls.sts),
        ("OAUTH_TOKEN_ENDPOINT", &urls.iam),
        ("PUBSUB_EMULATOR_HOST", urls.pubsub.trim_start_matches("http://")),
        // So that no test ever finds what the machine has.
        ("CLOUDSDK_CONFIG", "/nowhere"),
        ("RUST_LOG", "platen=debug"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// With the metadata server's account.
pub(crate) fn on_google(cloud: &LocalCloud) -> HashMap<String, String> {
    let mut environment = endpoints(cloud);
    let host = cloud.urls().metadata.trim_start_matches("http://");
    environment.insert("GCE_METADATA_HOST".to_owned(), host.to_owned());
    environment
}

/// A person who has logged in: whoever sends jobs is not the worker, and has other rights. The file must outlive the command.
pub(crate) fn person(cloud: &LocalCloud) -> (File, HashMap<String, String>) {
    let file = File::new(&cloud.log_in(USER));
    let mut environment = file.environment(cloud);
    environment.insert("GOOGLE_CLOUD_PROJECT".to_owned(), cloud.settings().project.clone());
    (file, environment)
}

/// A credentials file that goes with the test.
pub(crate) struct File(tempfile::NamedTempFile);

impl File {
    pub(crate) fn new(content: &Value) -> Self {
        Self::text(&content.to_string())
    }

    fn text(content: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Self(file)
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn environment(&self, cloud: &LocalCloud) -> HashMap<String, String> {
        let mut environment = endpoints(cloud);
        environment.insert("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), self.path());
        environment
    }

    fn settings(&self, cloud: &LocalCloud) -> Settings {
        Settings {
            credentials_file: Some(self.0.path().to_owned()),
            ..settings(cloud)
        }
    }

    async fn tokens(&self, cloud: &LocalCloud) -> Tokens {
        tokens(&self.settings(cloud)).await
    }
}

fn settings(cloud: &LocalCloud) -> Settings {
    Settings {
        iam_credentials_endpoint: Some(cloud.urls().iam.clone()),
        sts_endpoint: Some(cloud.urls().sts.clone()),
        ..Settings::default()
    }
}

async fn tokens(settings: &Settings) -> Tokens {
    Tokens::discover(Http::new().unwrap(), settings).await.unwrap().unwrap()
}

/// A federation file as `gcloud iam workload-identity-pools create-cred-config` writes it.
fn federation(source: &Value, account: Option<&str>) -> Value {
    let mut file = json!({
        "type": "external_account", "audience": provider(), "universe_domain": "googleapis.com",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token", "credential_source": source,
    });
    if let Some(email) = account {
        file["service_account_impersonation_url"] = json!(impersonation_url(email));
    }
    file
}

fn impersonation_url(email: &str) -> String {
    format!("https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken")
}

/// `platen` with exactly this environment.
pub(crate) async fn platen(arguments: &[&str], environment: &HashMap<String, String>) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The one line on stdout of a command that succeeded.
pub(crate) fn line(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (line, rest) = text.split_once('\n').unwrap();
    assert_eq!(rest, "", "one line and no more");
    line.to_owned()
}

/// What a JWT says.
fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// A program of the test's own.
struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self { directory }
    }

    fn command(&self) -> String {
        self.file("program")
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }
}
