//! How many calls to Google a job makes, counted on the local cloud, is what docs/operations.md says: quotas and costs are
//! reckoned from that table.

use std::collections::BTreeMap;
use std::time::Duration;

use platen::local_cloud::{Effect, Fault, LocalCloud, Peer};
use serde_json::{Value, json};

use crate::harness::{INPUT, OUTPUT, RESOURCES, World, job, notification, upload_to};

/// The calls of the table, in its words and order: which requests each is.
const CALLS: [(&str, Peer, &str, &str); 11] = [
    ("look at the source", Peer::Storage, "GET", "/storage/v1/b/input/o/"),
    (
        "fetch the source",
        Peer::Storage,
        "GET",
        "/download/storage/v1/b/input/o/",
    ),
    ("look at an output", Peer::Storage, "GET", "/storage/v1/b/output/o/"),
    (
        "look at the configuration",
        Peer::Storage,
        "GET",
        "/storage/v1/b/config/o/",
    ),
    (
        "fetch the configuration",
        Peer::Storage,
        "GET",
        "/download/storage/v1/b/config/o/",
    ),
    (
        "write an output",
        Peer::Storage,
        "POST",
        "/upload/storage/v1/b/output/o",
    ),
    ("`signBlob`", Peer::Iam, "POST", "/v1/projects/-/serviceAccounts/"),
    ("`cryptoKeys.decrypt`", Peer::Kms, "POST", "/v1/projects/"),
    (
        "`topics.publish`",
        Peer::Pubsub,
        "POST",
        "/v1/projects/local-project/topics/results:publish",
    ),
    ("metadata server", Peer::Metadata, "GET", "/"),
    ("key set", Peer::Jwks, "GET", "/"),
];
/// What belongs to none of them.
const REST: [Peer; 6] = [
    Peer::Storage,
    Peer::Pubsub,
    Peer::Iam,
    Peer::Kms,
    Peer::Metadata,
    Peer::Jwks,
];
const MANY: u32 = 1_000_000;
/// The columns, in their order.
const SITUATIONS: [&str; 5] = ["start", "one output", "three outputs", "delivered again", "ignored"];

const KEY: &str = RESOURCES[7].1;

/// Counts from now on: a rule that does nothing to its requests is used up by one with each of them.
struct Counter<'a> {
    cloud: &'a LocalCloud,
}

impl<'a> Counter<'a> {
    fn begin(cloud: &'a LocalCloud) -> Self {
        cloud.clear_faults();
        let known = CALLS.map(|(_, peer, method, path)| (peer, Some(method.to_owned()), path));
        let rest = REST.map(|peer| (peer, None, "/"));
        for (peer, method, path) in known.into_iter().chain(rest) {
            cloud.add_fault(Fault {
                peer: Some(peer),
                method,
                path_prefix: path.to_owned(),
                skip: 0,
                count: MANY,
                effect: Effect::Delay { delay_milliseconds: 0 },
            });
        }
        Self { cloud }
    }

    /// The calls of the table; there must be no others.
    async fn end(self, http: &reqwest::Client) -> Vec<u64> {
        let answer = http
            .get(format!("{}/_faults", self.cloud.urls().kms))
            .send()
            .await
            .unwrap();
        let rules: Vec<Value> = answer.json().await.unwrap();
        assert_eq!(rules.len(), CALLS.len() + REST.len());
        let mut used: Vec<u64> = rules
            .iter()
            .map(|rule| u64::from(MANY) - rule["count"].as_u64().unwrap())
            .collect();
        let others = used.split_off(CALLS.len());
        assert_eq!(
            others,
            [0; REST.len()],
            "calls that the table does not have, by {REST:?}"
        );
        self.cloud.clear_faults();
        used
    }
}

/// The table of docs/operations.md: each call's row, by its first column.
fn documented() -> BTreeMap<String, Vec<u64>> {
    let page = include_str!("../../docs/operations.md");
    let (_, section) = page.split_once("## Calls of one job").unwrap();
    let mut rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        });
    let head = rows.next().unwrap();
    assert_eq!(head[1..=SITUATIONS.len()], SITUATIONS);
    rows.skip(1)
        .map(|row| {
            let counts = row[1..=SITUATIONS.len()].iter().map(|cell| cell.parse().unwrap());
            (row[0].clone(), counts.collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_makes_the_calls_that_are_documented() {
    let cloud = crate::harness::cloud().await;
    cloud.create_bucket("config", false).unwrap();
    cloud.rotate_kms_key(KEY).unwrap();
    seal(&cloud).await;
    let http = crate::harness::client();
    upload_to(&cloud, INPUT, "folder/", Vec::new()).await;
    for name in ["one.rtf", "three.rtf"] {
        let note = std::fs::read(crate::harness::fixture("documents/plain/note.rtf")).unwrap();
        upload_to(&cloud, INPUT, name, note).await;
    }

    // Nothing but the worker calls anything while it starts.
    let counter = Counter::begin(&cloud);
    let variables = [
        ("CONFIG_OBJECT", "gs://config/worker.enc"),
        ("CONFIG_KMS_KEY", KEY),
        // Nothing is looked at by the clock meanwhile.
        ("CONFIG_RELOAD", "24h"),
    ];
    let mut environment = crate::harness::environment(&cloud);
    environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut worker = crate::harness::Worker::spawn(&environment);
    worker.ready().await;
    let mut counted = vec![counter.end(&http).await];

    let world = World {
        push: String::new(),
        http: http.clone(),
        worker,
        cloud,
    };
    let outputs = json!([{"format": "pdf"}, {"format": "png"}, {"format": "txt"}]);
    let one = json!({"source": format!("gs://{INPUT}/one.rtf")});
    let three = json!({"source": format!("gs://{INPUT}/three.rtf"), "outputs": outputs});
    let placeholder = notification("folder/", "1");
    // What a worker learns once (its token for an API) is not a job's.
    let first = json!({"source": format!("gs://{INPUT}/one.rtf"), "outputs": [{"format": "txt", "name": "first.txt"}]});
    assert_eq!(world.post(&job(&first)).await.status(), 204, "{}", world.worker.log());
    for envelope in [job(&one), job(&three), job(&one), placeholder] {
        let counter = Counter::begin(&world.cloud);
        let answer = world.post(&envelope).await;
        assert_eq!(answer.status(), 204, "{}", world.worker.log());
        counted.push(counter.end(&http).await);
    }
    assert_eq!(world.outputs().await, 5);
    assert!(world.object(OUTPUT, "one.pdf").await.is_some());

    let row = |(index, (call, ..)): (usize, &(&str, Peer, &str, &str))| {
        let counts = counted.iter().map(|counts| counts[index]).collect();
        ((*call).to_owned(), counts)
    };
    let seen: BTreeMap<String, Vec<u64>> = CALLS.iter().enumerate().map(row).collect();
    assert_eq!(documented(), seen, "documented and seen: {SITUATIONS:?}");
}

/// A configuration object without anything in it, sealed by the worker's account with the rights of who seals.
async fn seal(cloud: &LocalCloud) {
    let rights = [
        ("cloudkms.cryptoKeyVersions.useToEncrypt", "key"),
        ("storage.objects.create", "bucket/config"),
        ("storage.objects.delete", "bucket/config"),
    ];
    for (permission, resource) in rights {
        cloud.give("worker", permission, resource);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, "{}").unwrap();
    let sealing = tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["secrets", "seal", "--key", KEY, "--object", "gs://config/worker.enc"])
        .arg(&file)
        .env_clear()
        .envs(crate::harness::environment(cloud))
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), sealing)
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (permission, resource) in rights {
        cloud.take_away("worker", permission, resource);
    }
}
