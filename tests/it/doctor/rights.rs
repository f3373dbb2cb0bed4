//! Every right of the worker tried, and each taken away in turn: one line says so, and the command in it mends it.

use platen::local_cloud::LocalCloud;
use serde_json::json;

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

/// Which permissions a role of Google's holds, of those that the worker works with.
fn held(role: &str) -> &'static [&'static str] {
    match role {
        "roles/storage.objectViewer" => &["storage.objects.get", "storage.objects.list"],
        "roles/storage.objectUser" => &[
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
        ],
        "roles/iam.serviceAccountTokenCreator" => &["iam.serviceAccounts.signBlob"],
        "roles/pubsub.publisher" => &["pubsub.topics.publish"],
        "roles/cloudkms.cryptoKeyDecrypter" => &["cloudkms.cryptoKeyVersions.useToDecrypt"],
        _ => &[],
    }
}

/// Does what a command of gcloud's would: the local cloud has the account and the resource under the names of the
/// policy.
fn carry_out(cloud: &LocalCloud, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let flag = |name: &str| words.iter().find_map(|word| word.strip_prefix(&format!("--{name}=")));
    let settings = cloud.settings();
    let member = flag("member").unwrap().strip_prefix("serviceAccount:").unwrap();
    let account = match member {
        member if member == settings.worker_service_account => "worker",
        member if member == settings.signer_service_account => "signer",
        member => panic!("nobody is called {member}"),
    };
    let target = words[words.iter().position(|word| *word == "add-iam-policy-binding").unwrap() + 1];
    let resource = match (&words[..3], target) {
        (["gcloud", "storage", "buckets"], target) => format!("bucket/{}", target.strip_prefix("gs://").unwrap()),
        (["gcloud", "pubsub", "topics"], "results") => {
            assert_eq!(flag("project"), Some("local-project"));
            "topic/results".to_owned()
        }
        (["gcloud", "iam", "service-accounts"], target) if target == settings.signer_service_account => {
            "account/signer".to_owned()
        }
        (["gcloud", "kms", "keys"], "config") => {
            assert_eq!(
                [flag("keyring"), flag("location"), flag("project")],
                [Some("platen"), Some("global"), Some("local-project")]
            );
            "key".to_owned()
        }
        _ => panic!("{command}"),
    };
    for permission in held(flag("role").unwrap()) {
        cloud.give(account, permission, &resource);
    }
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
    assert!(missing[0].contains(&format!("It takes {permission}, ")), "{said}");
    let checks = said.out.lines().count() - 1;
    assert_eq!(said.err, format!("platen: 1 of {checks} checks failed\n"));
    assert!(objects(&cloud, OUTPUT).await.is_empty(), "{said}");
    let (_, command) = missing[0].split_once("this grants it: ").unwrap();
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
    said.line("missing", "list fonts of gs://fonts/ours/: ");
    cloud.give("worker", "storage.objects.list", "bucket/fonts");
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("ok", "list fonts of gs://fonts/ours/");
}
