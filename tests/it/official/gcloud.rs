//! `gcloud storage`, unchanged, against the local cloud: what each command did is looked up with another client.

use std::path::Path;
use std::process::{Command, Stdio};

use platen::local_cloud::LocalCloud;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{INPUT, OUTPUT, USER, client, cloud, encode, fixture, run};

const SIGNER: &str = "links@local-project.iam.gserviceaccount.com";

/// gcloud's binary with a configuration of its own, and a directory for the files of a test.
struct Gcloud {
    cloud: LocalCloud,
    directory: tempfile::TempDir,
    http: reqwest::Client,
    /// Variables besides those that all commands have.
    more: Vec<(String, String)>,
}

impl Gcloud {
    /// None, said aloud, where there is no gcloud.
    async fn find() -> Option<Self> {
        let found = Command::new("gcloud").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|found| found.success()) {
            println!("skipped: no gcloud here (cloud.google.com/sdk)");
            return None;
        }
        let cloud = cloud().await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), cloud.access_token(USER)).unwrap();
        Some(Self {
            cloud,
            directory,
            http: client(),
            more: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("gcloud");
        let urls = self.cloud.urls();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLOUDSDK_")) {
            command.env_remove(name);
        }
        command
            .arg("storage")
            .args(arguments.split(' '))
            .current_dir(self.directory.path())
            .env("CLOUDSDK_CONFIG", self.path("configuration"))
            .env("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", self.path("token"))
            .env("CLOUDSDK_CORE_PROJECT", &self.cloud.settings().project)
            .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
            .env("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1")
            .env(
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE",
                format!("{}/storage/v1/", urls.storage),
            )
            .env("CLOUDSDK_STORAGE_GS_XML_ENDPOINT_URL", &urls.storage)
            .env(
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS",
                format!("{}/", urls.iam),
            )
            .env("CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB", format!("{}/", urls.pubsub))
            .env("no_proxy", "*")
            .envs(self.more.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `gcloud storage ARGUMENTS`, which must succeed; its standard output without white space at its ends.
    async fn storage(&self, arguments: &str) -> String {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || run(&mut command).trim().to_owned())
            .await
            .unwrap()
    }

    /// The same, which must fail; what it says why.
    async fn refused(&self, arguments: &str) -> String {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What the JSON API says about a path below `/storage/v1/`; null where there is nothing.
    async fn look(&self, path: &str) -> Value {
        let url = format!("{}/storage/v1/{path}", self.cloud.urls().storage);
        let answer = self
            .http
            .get(url)
            .bearer_auth(self.cloud.access_token(USER))
            .send()
            .await
            .unwrap();
        match answer.status().as_u16() {
            200 => answer.json().await.unwrap(),
            404 => Value::Null,
            status => panic!("{path}: {status}"),
        }
    }

    async fn object(&self, bucket: &str, name: &str) -> Value {
        self.look(&format!("b/{bucket}/o/{}", encode(name))).await
    }

    /// Names of all generations in a bucket.
    async fn names(&self, bucket: &str) -> Vec<String> {
        let list = self.look(&format!("b/{bucket}/o?versions=true")).await;
        let items = list["items"].as_array().into_iter().flatten();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gcloud_handles_documents() {
    let Some(gcloud) = Gcloud::find().await else { return };
    let document = fixture("documents/plain/invoice.docx");
    let size = std::fs::metadata(&document).unwrap().len();
    let shown = document.display();
    gcloud
        .storage(&format!(
            "cp {shown} gs://input/a/é.docx --custom-metadata=who=me --content-disposition=inline --if-generation-match=0"
        ))
        .await;
    let made = gcloud.object(INPUT, "a/é.docx").await;
    assert_eq!(made["size"], size.to_string());
    assert_eq!(made["metadata"]["who"], "me");
    assert_eq!(made["contentDisposition"], "inline");
    let again = format!("cp {shown} gs://input/a/é.docx --if-generation-match=0");
    let (again, listed, described, start, hashes) = tokio::join!(
        gcloud.refused(&again),
        gcloud.storage("ls gs://input/"),
        gcloud.storage("ls -L gs://input/a/é.docx"),
        gcloud.storage("cat -r 0-1 gs://input/a/é.docx"),
        gcloud.storage("hash gs://input/a/é.docx --format=value(crc32c_hash,md5_hash)"),
    );
    assert!(again.contains("HTTPError 412"), "{again}");
    assert_eq!(listed, "gs://input/a/");
    for field in ["generation", "md5Hash", "crc32c", "etag", "contentType"] {
        let value = made[field].as_str().unwrap();
        assert!(described.contains(value), "{field}: {value}\n{described}");
    }
    assert_eq!(start, "PK");
    let both = [made["crc32c"].as_str().unwrap(), made["md5Hash"].as_str().unwrap()];
    assert_eq!(hashes.split_whitespace().collect::<Vec<_>>(), both);

    gcloud
        .storage("objects update gs://input/a/é.docx --update-custom-metadata=seen=yes")
        .await;
    let updated = gcloud.object(INPUT, "a/é.docx").await;
    assert_eq!(updated["metadata"], serde_json::json!({"who": "me", "seen": "yes"}));
    assert_eq!(
        (&updated["generation"], &updated["metageneration"]),
        (&made["generation"], &Value::from("2"))
    );

    gcloud.storage("cp gs://input/a/é.docx gs://output/copy.docx").await;
    assert_eq!(gcloud.object(OUTPUT, "copy.docx").await["md5Hash"], made["md5Hash"]);
    tokio::join!(
        gcloud.storage("mv gs://input/a/é.docx gs://input/b/moved.docx"),
        gcloud.storage("cp gs://output/copy.docx down.docx"),
    );
    assert_eq!(gcloud.names(INPUT).await, ["b/moved.docx"]);
    assert_eq!(gcloud.object(INPUT, "b/moved.docx").await["metadata"]["seen"], "yes");
    assert!(same(&document, &gcloud.path("down.docx")));

    std::fs::create_dir_all(gcloud.path("tree/below")).unwrap();
    std::fs::write(gcloud.path("tree/one"), "1").unwrap();
    std::fs::write(gcloud.path("tree/below/two"), "22").unwrap();
    gcloud.storage("rsync --recursive tree gs://output/tree").await;
    std::fs::remove_file(gcloud.path("tree/one")).unwrap();
    gcloud
        .storage("rsync --recursive --delete-unmatched-destination-objects tree gs://output/tree")
        .await;
    assert_eq!(gcloud.names(OUTPUT).await, ["copy.docx", "tree/below/two"]);
    let total = gcloud.storage("du --summarize gs://output").await;
    assert_eq!(total.split_whitespace().next().unwrap(), (size + 2).to_string());

    let hold = gcloud.refused("objects update gs://output/copy.docx --temporary-hold");
    let key = format!("cp {shown} gs://output/key --encryption-key={}=", "A".repeat(43));
    let acl = format!("cp {shown} gs://output/acl --predefined-acl=publicRead");
    let (held, _, key, acl) = tokio::join!(
        hold,
        gcloud.storage("rm gs://output/tree/**"),
        gcloud.refused(&key),
        gcloud.refused(&acl)
    );
    assert!(held.contains("cannot have temporaryHold"), "{held}");
    assert!(key.contains("cannot have encryption keys"), "{key}");
    assert!(acl.contains("Cannot insert legacy ACL"), "{acl}");
    assert_eq!(gcloud.names(OUTPUT).await, ["copy.docx"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gcloud_moves_large_files() {
    let Some(mut gcloud) = Gcloud::find().await else {
        return;
    };
    let bytes: Vec<u8> = (0_u32..5_000_000).flat_map(u32::to_le_bytes).collect();
    std::fs::write(gcloud.path("big"), &bytes).unwrap();
    // Above 8 MiB: a session. Above 150 MiB it would be several and `compose`; below that begins at 18 MiB.
    gcloud.storage("cp big gs://input/session").await;
    let session = gcloud.object(INPUT, "session").await;
    assert_eq!(session["size"], bytes.len().to_string());
    assert!(session["md5Hash"].is_string() && session["componentCount"].is_null());
    // Compressed on the way alone: in one request, and in a session.
    std::fs::write(gcloud.path("small"), &bytes[..100_000]).unwrap();
    tokio::join!(
        gcloud.storage("cp --gzip-in-flight-all big gs://output/big"),
        gcloud.storage("cp --gzip-in-flight-all small gs://output/small"),
    );
    let (big, small) = (gcloud.object(OUTPUT, "big").await, gcloud.object(OUTPUT, "small").await);
    assert_eq!(big["md5Hash"], session["md5Hash"]);
    assert_eq!(
        (&small["size"], &small["contentEncoding"]),
        (&Value::from("100000"), &Value::Null)
    );
    for direction in ["PARALLEL_COMPOSITE_UPLOAD", "SLICED_OBJECT_DOWNLOAD"] {
        for what in ["THRESHOLD", "COMPONENT_SIZE"] {
            let name = format!("CLOUDSDK_STORAGE_{direction}_{what}");
            gcloud.more.push((name, "18M".to_owned()));
        }
    }
    let (_, _) = tokio::join!(
        gcloud.storage("cp big gs://input/composed"),
        gcloud.storage("cp gs://input/session sliced"),
    );
    assert!(same(&gcloud.path("big"), &gcloud.path("sliced")));
    let composed = gcloud.object(INPUT, "composed").await;
    assert_eq!(composed["componentCount"], 2);
    assert_eq!(composed["crc32c"], session["crc32c"]);
    assert!(composed["md5Hash"].is_null(), "{composed}");
    gcloud.storage("cp gs://input/composed composed").await;
    assert!(same(&gcloud.path("big"), &gcloud.path("composed")));
    assert_eq!(gcloud.names(INPUT).await, ["composed", "session"], "parts are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn gcloud_manages_buckets() {
    let Some(gcloud) = Gcloud::find().await else { return };
    gcloud
        .storage(
            "buckets create gs://fresh --location=europe-west3 --uniform-bucket-level-access \
             --public-access-prevention --soft-delete-duration=0",
        )
        .await;
    let made = gcloud.look("b/fresh").await;
    assert_eq!(
        (&made["location"], &made["locationType"]),
        (&Value::from("EUROPE-WEST3"), &Value::from("region"))
    );
    // What it cannot do it does not claim to.
    let (refused, _) = tokio::join!(
        gcloud.refused("buckets update gs://fresh --retention-period=1d"),
        gcloud.storage("buckets update gs://fresh --versioning"),
    );
    assert!(refused.contains("cannot have retentionPolicy"), "{refused}");
    gcloud
        .storage("buckets update gs://fresh --update-labels=a=b,c=d")
        .await;
    gcloud.storage("buckets update gs://fresh --remove-labels=c").await;
    let updated = gcloud.look("b/fresh").await;
    assert_eq!(updated["versioning"]["enabled"], true);
    assert_eq!(updated["labels"], serde_json::json!({"a": "b"}));
    assert_eq!(updated["metageneration"], "4");
    let (described, listed, agent, notification) = tokio::join!(
        gcloud.storage("buckets describe gs://fresh --format=value(labels.a,location,versioning_enabled)"),
        gcloud.storage("buckets list --format=value(name)"),
        gcloud.storage("service-agent"),
        gcloud.storage(
            "buckets notifications create gs://fresh --topic=results --skip-topic-setup --event-types=OBJECT_FINALIZE"
        ),
    );
    assert_eq!(
        described.split_whitespace().collect::<Vec<_>>(),
        ["b", "EUROPE-WEST3", "True"]
    );
    assert_eq!(
        listed.split_whitespace().collect::<Vec<_>>(),
        ["fresh", "input", "output"]
    );
    assert_eq!(
        agent,
        "service-123456789012@gs-project-accounts.iam.gserviceaccount.com"
    );
    assert!(notification.contains("OBJECT_FINALIZE"), "{notification}");
    let configured = gcloud.look("b/fresh/notificationConfigs").await;
    assert_eq!(
        configured["items"][0]["topic"],
        "//pubsub.googleapis.com/projects/local-project/topics/results"
    );
    let listed = gcloud.storage("buckets notifications list gs://fresh").await;
    assert!(listed.contains("id: '1'"), "{listed}");
    std::fs::write(gcloud.path("file"), "x").unwrap();
    for _ in 0..2 {
        gcloud.storage("cp file gs://fresh/twice").await;
    }
    assert_eq!(gcloud.names("fresh").await, ["twice", "twice"]);
    gcloud
        .storage("buckets notifications delete projects/_/buckets/fresh/notificationConfigs/1")
        .await;
    assert!(gcloud.look("b/fresh/notificationConfigs").await["items"].is_null());
    assert!(gcloud.refused("buckets delete gs://fresh").await.contains("not empty"));
    gcloud.storage("rm --recursive gs://fresh").await;
    assert!(gcloud.look("b/fresh").await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn gcloud_signs_links() {
    let Some(gcloud) = Gcloud::find().await else { return };
    std::fs::write(gcloud.path("file"), "signed").unwrap();
    std::fs::write(
        gcloud.path("key"),
        gcloud.cloud.create_key_file(USER).unwrap().to_string(),
    )
    .unwrap();
    gcloud.cloud.create_service_account(SIGNER);
    gcloud.cloud.allow_token_creator(USER, SIGNER);
    gcloud.storage("cp file gs://input/file").await;
    let by_key = "sign-url gs://input/file --duration=5m --region=us --private-key-file=key --format=value(signed_url)";
    let by_iam = format!(
        "sign-url gs://input/new --http-verb=PUT --headers=content-type=text/plain --duration=5m --region=us \
         --impersonate-service-account={SIGNER} --format=value(signed_url)"
    );
    let (read, write) = tokio::join!(gcloud.storage(by_key), gcloud.storage(&by_iam));
    let answer = gcloud.http.get(&read).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (200, "signed")
    );
    let other = read.replace("/input/file", "/input/new");
    assert_eq!(gcloud.http.get(other).send().await.unwrap().status(), 403);
    for (kind, status) in [("text/html", 403), ("text/plain", 200)] {
        let put = gcloud.http.request(Method::PUT, &write).header("content-type", kind);
        assert_eq!(put.body("new").send().await.unwrap().status(), status, "{kind}");
    }
    assert_eq!(gcloud.storage("cat gs://input/new").await, "new");
}

/// Without `--skip-topic-setup`: the topic is made, and Cloud Storage's agent bound on it.
#[tokio::test(flavor = "multi_thread")]
async fn gcloud_sets_a_topic_up_for_notifications() {
    let Some(gcloud) = Gcloud::find().await else { return };
    let (made, bound) = tokio::join!(
        gcloud.storage("buckets notifications create gs://input --topic=made --format=value(topic)"),
        gcloud.storage("buckets notifications create gs://output --topic=results"),
    );
    assert!(made.contains("/topics/made"), "{made}");
    assert!(!bound.contains("error"), "{bound}");
    let wanted = platen::local_cloud::Subscription {
        name: "heard",
        topic: "made",
        ..Default::default()
    };
    let heard = gcloud.cloud.create_subscription(&wanted).unwrap();
    let document = fixture("documents/plain/invoice.docx");
    for bucket in [INPUT, OUTPUT] {
        gcloud
            .storage(&format!("cp {} gs://{bucket}/announced.docx", document.display()))
            .await;
    }
    let results = "projects/local-project/subscriptions/results";
    for subscription in [heard.as_str(), results] {
        let message = gcloud.cloud.receive(subscription, 1).await.unwrap().remove(0);
        assert_eq!(message["message"]["attributes"]["objectId"], "announced.docx");
    }
    // A second time it is there already.
    let again = gcloud
        .storage("buckets notifications create gs://input --topic=made")
        .await;
    assert!(!again.contains("error"), "{again}");
}
