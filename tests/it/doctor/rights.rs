//! Every right of the worker tried, and each taken away in turn: one line says so, and the command in it mends it.

use platen::local_cloud::LocalCloud;
use serde_json::{Value, json};

use super::{KEY, deployed, doctor, objects, push, seal};
use crate::harness::{OUTPUT, environment, upload_to};

/// Every one of the worker's own rights is tried, nothing is left, and nobody hears of it.
#[tokio::test]
async fn all_is_well_under_exactly_the_rights_of_the_deployment() {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(&cloud, &mut variables, &json!({"environment": {"MAX_PAGES": "7"}})).await;
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let first = said.out.lines().next().unwrap();
    assert_eq!(
        first,
        format!(
            "checking as serviceAccount:{}, from metadata server at {}",
            cloud.settings().worker_service_account,
            cloud.urls().metadata
        )
    );
    let signer = &cloud.settings().signer_service_account;
    assert_eq!(
        said.lines("ok"),
        [
            "get an access token".to_owned(),
            "read gs://config/worker.enc".to_owned(),
            format!("open it with {KEY}"),
            "read documents of gs://input".to_owned(),
            "create objects in gs://output".to_owned(),
            "read objects of gs://output".to_owned(),
            "replace and remove objects in gs://output".to_owned(),
            format!("fetch through a URL signed by {signer}"),
            format!("sign URLs as {signer}"),
            "publish to projects/local-project/topics/results (asked, not done: subscribers would get it)".to_owned(),
            format!("fetch the keys of push tokens from {}", cloud.urls().jwks),
        ]
    );
    for state in ["missing", "wrong", "warning"] {
        assert!(said.lines(state).is_empty(), "{said}");
    }
    // What the worker may not see is left to an operator, with the command.
    let unseen = said.lines("unseen");
    assert!(unseen.iter().all(|line| line.starts_with("(operator) ")), "{said}");
    assert!(
        unseen[0].ends_with("gcloud storage buckets describe gs://input"),
        "{said}"
    );
    assert!(objects(&cloud, OUTPUT).await.is_empty());
    assert_eq!(
        cloud.backlog("projects/local-project/subscriptions/results").unwrap(),
        0
    );
    assert_eq!(cloud.unconditional_writes(OUTPUT).unwrap(), 0);
}

/// Which permissions the commands give, of those that the worker works with: of a custom role those that it is made
/// with, which are those of deploy/policy.json.
fn held(words: &[&str]) -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy.json");
    let policy: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let listed = |held: &Value| -> Vec<String> { serde_json::from_value(held.clone()).unwrap() };
    let role = flag(words, "role").unwrap();
    let Some(id) = role.strip_prefix("projects/local-project/roles/platen_") else {
        let known = &policy["google_roles"][role];
        assert!(known.is_array(), "{role} is none that setup.sh grants");
        return listed(known);
    };
    assert_eq!(
        &words[..5],
        ["gcloud", "iam", "roles", "create", &format!("platen_{id}")]
    );
    assert_eq!(flag(words, "project"), Some("local-project"));
    let made: Vec<String> = flag(words, "permissions")
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    assert_eq!(made, listed(&policy["roles"][id]), "{id}");
    made
}

fn flag<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(&format!("--{name}=")))
}

/// Does what commands of gcloud's would: the local cloud has the account and the resource under the names of the policy.
pub(crate) fn carry_out(cloud: &LocalCloud, commands: &str) {
    let all: Vec<&str> = commands.split(' ').collect();
    let words: Vec<&str> = commands.rsplit("; ").next().unwrap().split(' ').collect();
    let settings = cloud.settings();
    let member = flag(&words, "member").unwrap().strip_prefix("serviceAccount:").unwrap();
    let account = match member {
        member if member == settings.worker_service_account => "worker",
        member if member == settings.signer_service_account => "signer",
        member => panic!("nobody is called {member}"),
    };
    let target = words[words.iter().position(|word| *word == "add-iam-policy-binding").unwrap() + 1];
    let project = flag(&words, "project");
    let resource = match (&words[..3], target) {
        (["gcloud", "storage", "buckets"], target) => format!("bucket/{}", target.strip_prefix("gs://").unwrap()),
        (["gcloud", "pubsub", "topics"], "results") => {
            assert_eq!(project, Some("local-project"));
            "topic/results".to_owned()
        }
        (["gcloud", "iam", "service-accounts"], target) if target == settings.signer_service_account => {
            assert_eq!(project, Some("local-project"));
            "account/signer".to_owned()
        }
        (["gcloud", "kms", "keys"], "config") => {
            assert_eq!(
                [flag(&words, "keyring"), flag(&words, "location"), project],
                [Some("platen"), Some("global"), Some("local-project")]
            );
            "key".to_owned()
        }
        _ => panic!("{commands}"),
    };
    for permission in held(&all) {
        cloud.give(account, &permission, &resource);
    }
}

/// The step of setup.sh that a line names grants the role that its command grants.
fn is_of_its_step(line: &str) {
    let (said, command) = line.split_once(". By hand: ").unwrap();
    let (_, step) = said
        .split_once("PROJECT_ID=local-project deploy/setup.sh --only ")
        .unwrap();
    let role = flag(&command.split(' ').collect::<Vec<_>>(), "role").unwrap();
    let role = match role.strip_prefix("projects/local-project/roles/platen_") {
        Some(id) => format!("${{ROLE_PREFIX}}{id}\""),
        None => role.to_owned(),
    };
    let script = include_str!("../../../deploy/setup.sh");
    let (_, body) = script.split_once(&format!("\nstep_{step}() {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    assert!(body.contains(&role), "the step {step} does not grant {role}");
}

/// Takes one right away: one line says so, and the command in it mends it.
async fn without(account: &str, permission: &str, resource: &str, what: &str) {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(&cloud, &mut variables, &json!({})).await;
    assert!(cloud.take_away(account, permission, resource));
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.lines("wrong").is_empty(), "{said}");
    let missing = said.lines("missing");
    assert_eq!(missing.len(), 1, "{said}");
    assert!(missing[0].starts_with(what), "{said}");
    assert!(missing[0].contains(&format!(" lacks {permission} on ")), "{said}");
    assert!(!missing[0].contains(".."), "{said}");
    let checks = said.out.lines().count() - 1;
    assert_eq!(said.err, format!("platen: 1 of {checks} checks failed\n"));
    assert!(objects(&cloud, OUTPUT).await.is_empty(), "{said}");
    is_of_its_step(missing[0]);
    let (_, command) = missing[0].split_once("By hand: ").unwrap();
    carry_out(&cloud, command);
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
}

#[tokio::test]
async fn without_the_right_to_read_documents() {
    without(
        "worker",
        "storage.objects.get",
        "bucket/input",
        "read documents of gs://input",
    )
    .await;
}

#[tokio::test]
async fn without_the_rights_to_outputs() {
    for (permission, what) in [
        ("storage.objects.create", "create objects in gs://output"),
        ("storage.objects.get", "read objects of gs://output"),
        ("storage.objects.delete", "replace and remove objects in gs://output"),
    ] {
        without("worker", permission, "bucket/output", what).await;
    }
}

#[tokio::test]
async fn without_the_rights_behind_a_signed_url() {
    let what = "sign URLs as signer@local-project.iam.gserviceaccount.com";
    without("worker", "iam.serviceAccounts.signBlob", "account/signer", what).await;
    let what = "fetch through a URL signed by signer@local-project.iam.gserviceaccount.com";
    without("signer", "storage.objects.get", "bucket/output", what).await;
}

#[tokio::test]
async fn without_the_right_to_publish() {
    let what = "publish to projects/local-project/topics/results";
    without("worker", "pubsub.topics.publish", "topic/results", what).await;
}

#[tokio::test]
async fn without_the_rights_to_the_configuration() {
    without(
        "worker",
        "storage.objects.get",
        "bucket/config",
        "read gs://config/worker.enc",
    )
    .await;
    let what = format!("open it with {KEY}");
    without("worker", "cloudkms.cryptoKeyVersions.useToDecrypt", "key", &what).await;
}

/// Where nothing is ever replaced, the right to is not needed; fonts of a bucket need the right to list it.
#[tokio::test]
async fn what_a_configuration_does_not_need_is_not_missing() {
    let cloud = deployed(&push()).await;
    assert!(cloud.take_away("worker", "storage.objects.delete", "bucket/output"));
    let mut variables = environment(&cloud);
    variables.insert("OUTPUT_NAME".to_owned(), "{dir}{stem}-{generation}.{ext}".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("ok", "create objects in gs://output");
    said.line("ok", "fetch through a URL signed by ");
    said.line(
        "ok",
        "replace and remove objects in gs://output: not allowed, and not needed",
    );
    // Without a probe every other right is told all the same.
    for (account, permission, what) in [
        ("worker", "storage.objects.create", "create objects in "),
        ("worker", "storage.objects.get", "read objects of "),
        ("signer", "storage.objects.get", "fetch through a URL "),
    ] {
        assert!(cloud.take_away(account, permission, "bucket/output"));
        let said = doctor(&variables, &[]).await;
        assert_eq!(said.code, Some(1), "{said}");
        said.line("missing", what);
        assert_eq!(said.lines("missing").len(), 1, "{said}");
        cloud.give(account, permission, "bucket/output");
    }
    assert!(objects(&cloud, OUTPUT).await.is_empty());

    cloud.create_bucket("fonts", false).unwrap();
    upload_to(&cloud, "fonts", "ours/a.ttf", b"font".to_vec()).await;
    variables.insert("FONTS".to_owned(), "gs://fonts/ours/".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    let list = said.line("missing", "list fonts of gs://fonts/ours/: ");
    is_of_its_step(list);
    said.line("missing", "read fonts of gs://fonts/ours/: ");
    // Whoever may only list finds fonts that it cannot have.
    cloud.give("worker", "storage.objects.list", "bucket/fonts");
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    said.line("ok", "list fonts of gs://fonts/ours/");
    let read = said.line("missing", "read fonts of gs://fonts/ours/: ");
    assert!(read.contains(" lacks storage.objects.get on gs://fonts. "), "{said}");
    let (_, command) = read.split_once("By hand: ").unwrap();
    carry_out(&cloud, command);
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("ok", "read fonts of gs://fonts/ours/");
    // What is there is none.
    variables.insert("FONTS".to_owned(), "gs://fonts/other/".to_owned());
    upload_to(&cloud, "fonts", "other/a.txt", b"text".to_vec()).await;
    let said = doctor(&variables, &[]).await;
    said.line("wrong", "list fonts of gs://fonts/other/: there is none");
}

/// Where a worker runs, its memory is judged by the sum that the worker makes; anywhere else nothing is said of it.
#[tokio::test]
async fn more_jobs_than_fit_are_told_where_the_worker_runs() {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    variables.insert("CONVERT_CONCURRENCY".to_owned(), "1000".to_owned());
    let what = "memory and disk for CONVERT_CONCURRENCY jobs";
    let said = doctor(&variables, &[]).await;
    assert!(!said.out.contains(what), "{said}");
    variables.insert("CLOUD_RUN_JOB".to_owned(), "platen-doctor".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let line = said.line("warning", what);
    assert!(
        line.contains("CONVERT_CONCURRENCY allows 1000 jobs, but only "),
        "{said}"
    );
    for (name, value) in [
        ("CONVERT_CONCURRENCY", "1"),
        ("CONVERT_MEMORY", "64MiB"),
        ("MAX_OUTPUT_SIZE", "1MiB"),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    let said = doctor(&variables, &[]).await;
    said.line("ok", what);
}

/// The bucket of the configuration is looked at like the others.
#[tokio::test]
async fn the_bucket_of_the_configuration_is_looked_at() {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(&cloud, &mut variables, &json!({})).await;
    let said = doctor(&variables, &[]).await;
    let line = said.line("unseen", "(operator) access to gs://config: ");
    assert!(line.ends_with("gcloud storage buckets describe gs://config"), "{said}");
    cloud.give("worker", "storage.buckets.get", "bucket/config");
    let said = doctor(&variables, &[]).await;
    assert!(
        said.out
            .lines()
            .any(|line| line.contains("access to gs://config") && !line.starts_with("unseen")),
        "{said}"
    );
}
