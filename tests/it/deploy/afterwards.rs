//! What comes after a setup: letting others call, and cleaning up.

use std::collections::{BTreeMap, BTreeSet};

use super::gcloud::Gcloud;
use super::policy::bindings;
use super::{left, resources, set_up};

#[test]
fn cleanup_removes_all_but_what_google_keeps() {
    let gcloud = set_up(&[]);
    let ended = gcloud.script("cleanup.sh", &["--yes"], &[]).good();
    let (kept, granted) = left(&gcloud);
    assert_eq!(granted, BTreeSet::new());
    let image = "image/europe-west1-docker.pkg.dev/my-project/platen/platen:latest";
    let expected = [image, "key/platen/config", "keyring/platen"];
    let deleted = |name: &String| name.starts_with("role/");
    assert_eq!(
        kept.iter().filter(|name| !deleted(name)).collect::<Vec<_>>(),
        expected,
        "images go with their repository"
    );
    gcloud.with(|cloud| {
        for (name, role) in cloud.resources.iter().filter(|(name, _)| deleted(name)) {
            assert_eq!(role["deleted"], "True", "{name}");
        }
        // What Google does by itself.
        cloud.resources.remove(image);
    });
    assert!(ended.err.contains("keyRings/platen/cryptoKeys/config"), "{}", ended.err);
    gcloud.changes();
    gcloud.script("cleanup.sh", &["--yes"], &[]).good();
    assert_eq!(gcloud.changes(), [""; 0], "a second run finds nothing to do");
    // And the same project can be set up again: deleted roles are had back.
    gcloud.script("setup.sh", &[], &[]).good();
    assert_eq!(left(&gcloud), (resources(), bindings(&[])));
}

#[test]
fn cleanup_asks_before_documents_go() {
    let gcloud = set_up(&[]);
    let document = "object/my-project-platen-out/reports/q3.pdf".to_owned();
    gcloud.with(|cloud| cloud.resources.insert(document.clone(), BTreeMap::new()));
    let refused = gcloud.script("cleanup.sh", &[], &[]);
    assert_eq!(refused.code, Some(64), "{}", refused.err);
    assert!(left(&gcloud).0.contains("service/platen"));
    // Nobody is there to type the bucket's name.
    let ended = gcloud.script("cleanup.sh", &["--yes"], &[]).good();
    let (kept, granted) = left(&gcloud);
    assert!(kept.contains(&document) && kept.contains("bucket/my-project-platen-out"));
    assert!(
        ended.err.contains("gs://my-project-platen-out, which holds documents"),
        "{}",
        ended.err
    );
    assert_eq!(granted, BTreeSet::new(), "nobody keeps a right on it");
    gcloud
        .script("cleanup.sh", &["--yes", "--delete-documents"], &[])
        .good();
    assert!(!left(&gcloud).0.contains(&document));
}

#[test]
fn a_bucket_that_was_there_is_locked_down_and_kept() {
    let gcloud = Gcloud::start();
    gcloud.with(|cloud| {
        cloud
            .resources
            .insert("bucket/my-documents".to_owned(), BTreeMap::new())
    });
    let settings = [("INPUT_BUCKET", "my-documents")];
    gcloud.script("setup.sh", &[], &settings).good();
    gcloud.with(|cloud| {
        assert_eq!(
            cloud.resources["bucket/my-documents"]["public-access-prevention"],
            "True"
        );
    });
    let ended = gcloud
        .script("cleanup.sh", &["--yes", "--delete-documents"], &settings)
        .good();
    let (kept, granted) = left(&gcloud);
    assert!(kept.contains("bucket/my-documents"), "{}", ended.err);
    assert_eq!(granted, BTreeSet::new());
    gcloud.with(|cloud| {
        let left: Vec<&String> = cloud.resources["bucket/my-documents"].keys().collect();
        assert!(!left.iter().any(|key| key.starts_with("notification-")), "{left:?}");
    });
}

#[test]
fn a_caller_is_let_in_by_google_and_by_the_worker() {
    let gcloud = set_up(&[]);
    let caller = "batch@elsewhere.iam.gserviceaccount.com";
    gcloud.changes();
    gcloud.script("grant-caller.sh", &[caller], &[]).good();
    let mut expected = bindings(&[]);
    let invoker = |email: &str| {
        (
            "service/platen".to_owned(),
            "roles/run.invoker".to_owned(),
            format!("serviceAccount:{email}"),
        )
    };
    expected.insert(invoker(caller));
    assert_eq!(left(&gcloud).1, expected);
    let told = || gcloud.with(|cloud| cloud.resources["service/platen"]["env PUSH_SERVICE_ACCOUNT"].clone());
    let push = "platen-push@my-project.iam.gserviceaccount.com";
    assert_eq!(told(), format!("{push},{caller}"));
    gcloud.changes();
    // Neither the same again nor a setup takes it back.
    gcloud.script("grant-caller.sh", &[caller], &[]).good();
    gcloud.script("setup.sh", &[], &[]).good();
    assert_eq!(gcloud.changes(), [""; 0]);
    gcloud.script("setup.sh", &[], &[("SIZE", "small")]).good();
    assert_eq!(told(), format!("{push},{caller}"));
    // A person calls as an account that is there for it.
    gcloud.script("grant-caller.sh", &["ann@example.com"], &[]).good();
    let shared = "platen-caller@my-project.iam.gserviceaccount.com";
    expected.insert(invoker(shared));
    expected.insert((
        format!("account/{shared}"),
        "roles/iam.serviceAccountOpenIdTokenCreator".to_owned(),
        "user:ann@example.com".to_owned(),
    ));
    assert_eq!(left(&gcloud).1, expected);
    // What she has holds for an hour, and it is said; all who call as that account end with it.
    let revoked = gcloud
        .script("grant-caller.sh", &["ann@example.com", "--revoke"], &[])
        .good();
    assert!(revoked.err.contains("for up to an hour"), "{}", revoked.err);
    assert!(
        revoked.err.contains(&format!("grant-caller.sh {shared} --revoke")),
        "{}",
        revoked.err
    );
    assert_eq!(told(), format!("{push},{caller},{shared}"));
    let revoked = gcloud.script("grant-caller.sh", &[shared, "--revoke"], &[]).good();
    assert!(revoked.err.contains("refused from now on"), "{}", revoked.err);
    assert_eq!(told(), format!("{push},{caller}"));
    gcloud.script("grant-caller.sh", &["ann@example.com"], &[]).good();
    gcloud.script("grant-caller.sh", &[caller, "--revoke"], &[]).good();
    assert_eq!(told(), format!("{push},{shared}"));
    gcloud.script("cleanup.sh", &["--yes"], &[]).good();
    assert_eq!(left(&gcloud).1, BTreeSet::new());
    for wrong in [&["x"][..], &[], &["a@b.c", "d@e.f"], &["--nonsense"]] {
        assert_eq!(gcloud.script("grant-caller.sh", wrong, &[]).code, Some(64), "{wrong:?}");
    }
    assert_eq!(
        gcloud.script("grant-caller.sh", &[caller], &[]).code,
        Some(64),
        "no service any more"
    );
}

#[test]
fn a_cluster_takes_the_pushes_over_and_gives_them_back() {
    let gcloud = set_up(&[]);
    gcloud.changes();
    let host = "platen.example.com";
    gcloud.script("gke/setup.sh", &[host], &[]).good();
    let manifests = gcloud.manifests();
    for text in [
        "kind: Deployment",
        "kind: Gateway",
        "PUSH_AUDIENCE: 'https://platen.example.com'",
    ] {
        assert!(manifests.contains(text), "{text}: {manifests}");
    }
    let changes = gcloud.changes();
    let made = [
        "services enable",
        "iam service-accounts add",
        "compute addresses",
        "pubsub subscriptions update",
    ];
    for command in made {
        assert!(
            changes.iter().any(|change| change.starts_with(command)),
            "{command}: {changes:?}"
        );
    }
    assert_eq!(
        changes
            .iter()
            .filter(|change| change.starts_with("certificate-manager"))
            .count(),
        3
    );
    let mut expected = bindings(&[]);
    expected.insert((
        "account/platen@my-project.iam.gserviceaccount.com".to_owned(),
        "roles/iam.workloadIdentityUser".to_owned(),
        "serviceAccount:my-project.svc.id.goog[platen/platen]".to_owned(),
    ));
    assert_eq!(left(&gcloud).1, expected);
    let push = || gcloud.with(|cloud| cloud.resources["subscription/platen-push"].clone());
    assert_eq!(push()["push-endpoint"], "https://platen.example.com/");
    // A second run applies the same manifests, and changes nothing.
    gcloud.script("gke/setup.sh", &[host], &[]).good();
    assert_eq!((gcloud.manifests(), gcloud.changes()), (manifests, Vec::new()));
    // A setting of the subscription does not send the pushes back ...
    gcloud.script("setup.sh", &[], &[("MAX_DELIVERY_ATTEMPTS", "7")]).good();
    assert_eq!(push()["max-delivery-attempts"], "7");
    assert_eq!(push()["push-endpoint"], "https://platen.example.com/");
    // ... and asking for it does.
    gcloud
        .script("setup.sh", &["--only", "push"], &[("MAX_DELIVERY_ATTEMPTS", "7")])
        .good();
    assert!(
        push()["push-endpoint"].starts_with("https://platen-123456789012."),
        "{:?}",
        push()
    );
    gcloud.script("setup.sh", &[], &[("MAX_DELIVERY_ATTEMPTS", "8")]).good();
    assert!(
        push()["push-endpoint"].starts_with("https://platen-123456789012."),
        "{:?}",
        push()
    );
}

/// The manifests that differ from run to run, a line each.
fn applied(gcloud: &Gcloud, settings: &[(&str, &str)]) -> BTreeSet<String> {
    gcloud.script("gke/setup.sh", &["platen.example.com"], settings).good();
    let manifests = gcloud.manifests();
    manifests.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_new_image_is_a_rollout_and_the_same_image_is_none() {
    let gcloud = set_up(&[]);
    let image = "europe-west1-docker.pkg.dev/my-project/platen/platen";
    let first = applied(&gcloud, &[]);
    let digest = gcloud.with(|cloud| cloud.resources[&format!("image/{image}:latest")]["digest"].clone());
    assert!(digest.starts_with("sha256:"), "{digest}");
    let old = format!("image: {image}@{digest}");
    assert!(first.contains(&old), "{first:?}");
    assert_eq!(applied(&gcloud, &[]), first);
    // What a build does: the tag is another image's.
    let new = "sha256:5ac5";
    gcloud.with(|cloud| {
        let tag = cloud.resources.get_mut(&format!("image/{image}:latest")).unwrap();
        tag.insert("digest".to_owned(), new.to_owned());
    });
    let second = applied(&gcloud, &[]);
    let of = |all: &BTreeSet<String>, other: &BTreeSet<String>| all.difference(other).cloned().collect::<Vec<_>>();
    assert_eq!(of(&first, &second), [old]);
    assert_eq!(of(&second, &first), [format!("image: {image}@{new}")]);
    // And back, by the digest that was.
    let back = format!("{image}@{digest}");
    assert_eq!(applied(&gcloud, &[("IMAGE", &back)]), first);
    let missing = gcloud.script("gke/setup.sh", &["platen.example.com"], &[("TAG", "missing")]);
    assert_eq!(missing.code, Some(1), "{}", missing.err);
    assert!(
        missing.err.contains("there is no such image") && missing.err.contains("platen:missing"),
        "{}",
        missing.err
    );
    assert_eq!(gcloud.manifests(), "");
}

#[test]
fn who_may_call_on_cloud_run_may_call_on_a_cluster() {
    let gcloud = set_up(&[]);
    let caller = "batch@elsewhere.iam.gserviceaccount.com";
    let push = "platen-push@my-project.iam.gserviceaccount.com";
    let told = |accounts: &str| format!("PUSH_SERVICE_ACCOUNT: '{accounts}'");
    assert!(applied(&gcloud, &[]).contains(&told(push)));
    gcloud.script("grant-caller.sh", &[caller], &[]).good();
    assert!(applied(&gcloud, &[]).contains(&told(&format!("{push},{caller}"))));
    // With the service goes its policy.
    gcloud.with(|cloud| {
        cloud.resources.remove("service/platen").unwrap();
        cloud.bindings.retain(|(on, _, _)| on != "service/platen");
    });
    let host = ["platen.example.com"];
    let ended = gcloud.script("gke/setup.sh", &host, &[]).good();
    assert!(gcloud.manifests().contains(&told(push)));
    let both = format!("PUSH_SERVICE_ACCOUNT={push},{caller}");
    assert!(
        ended.err.contains("ENV_VARIABLES='PUSH_SERVICE_ACCOUNT="),
        "{}",
        ended.err
    );
    assert!(applied(&gcloud, &[("ENV_VARIABLES", &both)]).contains(&told(&format!("{push},{caller}"))));
}

#[test]
fn a_cluster_without_managed_collection_has_no_use_for_a_pod_monitoring() {
    let gcloud = set_up(&[]);
    let monitored = |settings: &[(&str, &str)]| applied(&gcloud, settings).contains("kind: PodMonitoring");
    assert!(monitored(&[]) && !monitored(&[("MONITORING", "no")]));
    // As many pods as instances were to be kept, and never fewer than two.
    for (least, replicas) in [("0", "2"), ("3", "3")] {
        let line = format!("minReplicas: {replicas}");
        assert!(applied(&gcloud, &[("MIN_INSTANCES", least)]).contains(&line), "{line}");
    }
}
