//! `deploy/`: the scripts against a stand-in for gcloud. What they leave behind is compared as data with
//! `deploy/policy.json`, which is also what the local cloud enforces.

mod afterwards;
mod commands;
mod files;
mod gcloud;
mod image;
mod interrupted;
mod policy;
mod smoke;

use std::collections::BTreeSet;

use crate::monitoring::files;

use self::gcloud::{Ended, Failure, Gcloud, NUMBER, PROJECT};
use self::policy::{CMEK_KEY, DEPLOYER, FONTS, bindings};

/// What is left of a project, to compare.
type Left = (BTreeSet<String>, BTreeSet<gcloud::Binding>);

fn left(gcloud: &Gcloud) -> Left {
    gcloud.with(|cloud| (cloud.resources.keys().cloned().collect(), cloud.bindings.clone()))
}

fn set_up(settings: &[(&str, &str)]) -> Gcloud {
    let gcloud = Gcloud::start();
    gcloud.script("setup.sh", &[], settings).good();
    gcloud
}

/// The names of all that setup.sh makes.
fn resources() -> BTreeSet<String> {
    let account = |name: &str| format!("account/{name}@{PROJECT}.iam.gserviceaccount.com");
    [
        "role/platen_object_reader",
        "role/platen_object_writer",
        "role/platen_url_signer",
        "repository/platen",
        "image/europe-west1-docker.pkg.dev/my-project/platen/platen:latest",
        "bucket/my-project-platen-in",
        "bucket/my-project-platen-out",
        "bucket/my-project-platen-config",
        "bucket/my-project-platen-build",
        "keyring/platen",
        "key/platen/config",
        "topic/platen-events",
        "topic/platen-results",
        "topic/platen-dead-letter",
        "subscription/platen-push",
        "subscription/platen-results",
        "subscription/platen-dead-letter",
        "service/platen",
        "object/my-project-platen-in/platen-setup/invoice.docx",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(monitored())
    .chain(["platen", "platen-push", "platen-signer", "platen-build"].map(account))
    .collect()
}

/// One of each file of deploy/monitoring.
fn monitored() -> Vec<String> {
    let mut all = vec!["dashboard/Platen--platen-".to_owned()];
    for (path, _) in files("metrics") {
        all.push(format!("metric/platen_{}", path.file_stem().unwrap().display()));
    }
    for (_, alert) in files("alerts") {
        all.push(format!(
            "alert/{}",
            commands::titled(alert["displayName"].as_str().unwrap())
        ));
    }
    all
}

#[test]
fn an_empty_project_becomes_a_deployment_with_exactly_the_rights_of_the_policy() {
    let gcloud = set_up(&[]);
    let (made, granted) = left(&gcloud);
    assert_eq!(made, resources());
    assert_eq!(granted, bindings(&[]));
    assert_eq!(gcloud.first_pdf().as_deref(), Some("%PDF-1.7 the first"));
    gcloud.with(|cloud| {
        assert!(cloud.messages.is_empty(), "its own result is acknowledged");
        let policy = policy::policy();
        for (name, permissions) in policy["roles"].as_object().unwrap() {
            let Some(role) = cloud.resources.get(&format!("role/platen_{name}")) else {
                continue;
            };
            let has: Vec<&str> = role["permissions"].split(',').collect();
            assert_eq!(serde_json::json!(has), *permissions, "{name}");
        }
    });
}

#[test]
fn nothing_on_the_project_but_what_google_grants_nowhere_else() {
    let all = bindings(&["DOCTOR", "REBUILD_REPOSITORY", "DEPLOYER", "CMEK_KEY", "FONTS"]);
    let on_project: Vec<&str> = all
        .iter()
        .filter(|(resource, _, _)| resource.starts_with("project/"))
        .map(|(_, role, _)| role.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(on_project, ["platen_build_starter", "logging.logWriter"]);
    for (_, role, member) in &all {
        assert!(
            !member.contains("allUsers") && !member.contains("allAuthenticatedUsers"),
            "{member}"
        );
        for wide in [
            "roles/owner",
            "roles/editor",
            "roles/viewer",
            "legacy",
            "Admin",
            "admin",
            "serviceAccountTokenCreator",
        ] {
            assert!(!role.contains(wide), "{role}");
        }
    }
}

#[test]
fn every_setting_brings_its_own_rights_and_no_more() {
    let settings = [
        ("DOCTOR", "yes", "DOCTOR"),
        ("DEPLOYER", DEPLOYER, "DEPLOYER"),
        ("CMEK_KEY", CMEK_KEY, "CMEK_KEY"),
        ("FONTS", FONTS, "FONTS"),
        (
            "REBUILD_REPOSITORY",
            "projects/my-project/locations/europe-west1/connections/c/repositories/r",
            "REBUILD_REPOSITORY",
        ),
    ];
    for (name, value, when) in settings {
        let gcloud = Gcloud::start();
        // The operator's own.
        gcloud.with(|cloud| {
            for own in ["key/own/data", "bucket/company-fonts"] {
                cloud
                    .resources
                    .insert(own.to_owned(), std::collections::BTreeMap::new());
            }
        });
        gcloud.script("setup.sh", &[], &[(name, value)]).good();
        assert_eq!(left(&gcloud).1, bindings(&[when]), "{name}");
        gcloud.changes();
        gcloud.script("setup.sh", &[], &[(name, value)]).good();
        assert_eq!(gcloud.changes(), [""; 0], "{name}: a second run");
        match name {
            // Taken back, it is gone.
            "DOCTOR" => {
                gcloud.script("setup.sh", &[], &[]).good();
                assert_eq!(left(&gcloud).1, bindings(&[]));
            }
            "REBUILD_REPOSITORY" => {
                let kept = ("REBUILD_REPOSITORY", value);
                for (setting, starts) in [
                    (
                        ("REBUILD_BRANCH", "release"),
                        vec!["builds triggers delete", "builds triggers create"],
                    ),
                    (
                        ("REBUILD_SCHEDULE", "0 5 * * 2"),
                        vec![
                            "builds triggers delete",
                            "builds triggers create",
                            "scheduler jobs update",
                        ],
                    ),
                ] {
                    gcloud.script("setup.sh", &[], &[kept, setting]).good();
                    let changes = gcloud.changes();
                    assert_eq!(changes.len(), starts.len(), "{changes:?}");
                    assert!(
                        changes
                            .iter()
                            .zip(&starts)
                            .all(|(change, start)| change.starts_with(start)),
                        "{changes:?}"
                    );
                    assert!(changes.last().unwrap().contains(setting.1), "{changes:?}");
                }
            }
            _ => {}
        }
        gcloud.script("cleanup.sh", &["--yes"], &[(name, value)]).good();
        let kept = left(&gcloud).1;
        assert!(kept.iter().all(|(on, _, _)| on == "key/own/data"), "{name}: {kept:?}");
    }
}

#[test]
fn the_service_is_private_pinned_and_told_what_the_subscription_is_told() {
    let gcloud = set_up(&[]);
    gcloud.with(|cloud| {
        let service = &cloud.resources["service/platen"];
        let image = "europe-west1-docker.pkg.dev/my-project/platen/platen";
        let digest = &cloud.resources[&format!("image/{image}:latest")]["digest"];
        assert_eq!(service["image"], format!("{image}@{digest}"), "a tag can be moved");
        let url = format!("https://platen-{NUMBER}.europe-west1.run.app");
        assert_eq!(service["service-account"], "platen@my-project.iam.gserviceaccount.com");
        assert_eq!(service["no-allow-unauthenticated"], "True");
        assert_eq!(service["ingress"], "internal");
        assert_eq!(service["execution-environment"], "gen2");
        for wanted in [
            "PUSH_AUTH=cloud-run-iam",
            &format!("PUSH_AUDIENCE={url}"),
            "PUSH_SERVICE_ACCOUNT=platen-push@my-project.iam.gserviceaccount.com",
            "SIGNER_SERVICE_ACCOUNT=platen-signer@my-project.iam.gserviceaccount.com",
            "INPUT_BUCKETS=my-project-platen-in",
            "OUTPUT_BUCKET=my-project-platen-out",
            "RESULT_TOPIC=projects/my-project/topics/platen-results",
            "ACK_DEADLINE=600s",
            "MAX_DELIVERY_ATTEMPTS=20",
            "SANDBOX=required",
        ] {
            let (name, value) = wanted.split_once('=').unwrap();
            assert_eq!(service[&format!("env {name}")], value);
        }
        let push = &cloud.resources["subscription/platen-push"];
        assert_eq!(push["push-endpoint"], url);
        assert_eq!(push["push-auth-token-audience"], url);
        assert_eq!(
            push["push-auth-service-account"],
            "platen-push@my-project.iam.gserviceaccount.com"
        );
        assert_eq!(push["ack-deadline"], "600");
        assert_eq!(push["max-delivery-attempts"], "20");
        assert_eq!(
            push["dead-letter-topic"],
            "projects/my-project/topics/platen-dead-letter"
        );
        for subscription in ["push", "results", "dead-letter"] {
            let subscription = &cloud.resources[&format!("subscription/platen-{subscription}")];
            assert_eq!(subscription["expiration-period"], "never");
        }
        for bucket in ["in", "out", "config", "build"] {
            let bucket = &cloud.resources[&format!("bucket/my-project-platen-{bucket}")];
            assert_eq!(bucket["uniform-bucket-level-access"], "True");
            assert_eq!(bucket["public-access-prevention"], "True");
        }
        assert_eq!(cloud.resources["bucket/my-project-platen-config"]["versioning"], "True");
    });
}

#[test]
fn a_second_run_changes_nothing() {
    let gcloud = set_up(&[]);
    let before = left(&gcloud);
    gcloud.changes();
    gcloud.script("setup.sh", &[], &[]).good();
    assert_eq!(gcloud.changes(), [""; 0]);
    assert_eq!(left(&gcloud), before);
}

#[test]
fn a_changed_setting_is_carried_out_and_nothing_else() {
    let gcloud = set_up(&[]);
    gcloud.changes();
    gcloud.script("setup.sh", &[], &[("SIZE", "large")]).good();
    let changes = gcloud.changes();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(
        changes[0].starts_with("run deploy platen") && changes[0].contains("--memory=11Gi"),
        "{changes:?}"
    );
    gcloud
        .script("setup.sh", &[], &[("SIZE", "large"), ("MAX_DELIVERY_ATTEMPTS", "7")])
        .good();
    let changes = gcloud.changes();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].contains("MAX_DELIVERY_ATTEMPTS=7"), "{changes:?}");
    assert!(changes[1].contains("--max-delivery-attempts=7"), "{changes:?}");
    // Where nothing is ever replaced, nothing may be deleted.
    gcloud
        .script(
            "setup.sh",
            &["--only", "roles"],
            &[("OUTPUT_NAME", "{generation}.{ext}")],
        )
        .good();
    let changes = gcloud.changes();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(
        changes[0].contains("--permissions=storage.objects.create,storage.objects.get"),
        "{changes:?}"
    );
}

#[test]
fn an_image_that_cloud_build_deploys_stays_until_another_is_named() {
    let gcloud = set_up(&[]);
    gcloud.changes();
    // What cloudbuild.yaml's last step does.
    let built = (
        "IMAGE",
        "europe-west1-docker.pkg.dev/my-project/platen/platen@sha256:0123",
    );
    let settings = [built, ("SERVICE_CHANGES", "given")];
    gcloud.script("setup.sh", &["--only", "service"], &settings).good();
    let changes = gcloud.changes();
    let update = format!(
        "run services update platen --image={} --project=my-project --region=europe-west1",
        built.1
    );
    assert_eq!(changes, [update]);
    gcloud.script("setup.sh", &[], &[]).good();
    assert_eq!(gcloud.changes(), [""; 0]);
    gcloud.with(|cloud| {
        assert_eq!(cloud.resources["service/platen"]["image"], built.1);
    });
}

/// A build knows nothing of what its operator gave setup.sh in the environment.
#[test]
fn a_build_changes_what_it_names_and_leaves_the_rest() {
    let given = [
        ("INPUT_BUCKET", "contracts"),
        ("INGRESS", "all"),
        ("SIZE", "large"),
        ("OUTPUT_BUCKET", "pdfs-of-contracts"),
    ];
    let gcloud = set_up(&given);
    let service = || gcloud.with(|cloud| cloud.resources["service/platen"].clone());
    let before = service();
    // What cloudbuild.yaml's last step gives without substitutions of a person's own, and with one.
    let mut settings = vec![
        ("SERVICE_CHANGES", "given"),
        ("IMAGE", "registry/platen@sha256:0123"),
        ("OUTPUT_BUCKET", "my-project-platen-out"),
        ("RESULT_TOPIC", "platen-results"),
    ];
    gcloud.script("setup.sh", &["--only", "service"], &settings).good();
    let mut expected = before.clone();
    expected.insert("image".to_owned(), "registry/platen@sha256:0123".to_owned());
    assert_eq!(service(), expected);
    settings[3].1 = "pdf-results";
    settings.push(("ENV_VARIABLES", "MAX_PAGES=7|CONVERT_TIMEOUT=60s"));
    gcloud.script("setup.sh", &["--only", "service"], &settings).good();
    for (name, value) in [
        ("env RESULT_TOPIC", "projects/my-project/topics/pdf-results"),
        ("env MAX_PAGES", "7"),
        ("env CONVERT_TIMEOUT", "60s"),
    ] {
        expected.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(service(), expected);
    // Asked for by itself, the service is as the settings say again.
    gcloud.script("setup.sh", &["--only", "service"], &given).good();
    expected = before;
    expected.insert("image".to_owned(), "registry/platen@sha256:0123".to_owned());
    assert_eq!(service(), expected);
}

#[test]
fn a_variable_that_is_taken_back_is_gone_and_who_may_call_stays() {
    let gcloud = set_up(&[("ENV_VARIABLES", "MAX_PAGES=7")]);
    let caller = "batch@elsewhere.iam.gserviceaccount.com";
    gcloud.script("grant-caller.sh", &[caller], &[]).good();
    gcloud.script("setup.sh", &[], &[]).good();
    gcloud.with(|cloud| {
        let service = &cloud.resources["service/platen"];
        assert!(!service.contains_key("env MAX_PAGES"), "{service:?}");
        assert!(service["env PUSH_SERVICE_ACCOUNT"].ends_with(caller), "{service:?}");
        assert_eq!(service["cpu-throttling"], "True");
    });
    gcloud.script("setup.sh", &[], &[("BILLING", "instances")]).good();
    gcloud.with(|cloud| assert_eq!(cloud.resources["service/platen"]["no-cpu-throttling"], "True"));
}

/// Google's words for a metric that was made a moment ago: ten minutes may pass, which is longer than it takes for anything else.
#[test]
fn alerts_wait_for_their_metrics_and_for_nothing_else() {
    let gcloud = Gcloud::start();
    // More tries than an account or a right is given.
    gcloud.with(|cloud| cloud.metrics_are_known_after = 5);
    gcloud.script("setup.sh", &[], &[]).good();
    assert_eq!(left(&gcloud).0, resources());
    let unknown = ("NOTIFICATION_CHANNELS", "projects/my-project/notificationChannels/7");
    let ended = gcloud.script("setup.sh", &[], &[unknown]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("step 'alerts' failed") && ended.err.contains(unknown.1),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("trying again"), "{}", ended.err);
}

/// Runs until nothing fails any more, each run ending at the next change.
fn with_failures(failure: Failure) -> Gcloud {
    let gcloud = Gcloud::start();
    gcloud.with(|cloud| cloud.failure = failure);
    let mut runs = 0;
    loop {
        let run = gcloud.script("setup.sh", &[], &[]);
        runs += 1;
        if run.code == Some(0) {
            break;
        }
        assert_eq!(run.code, Some(1), "{}", run.err);
        assert!(
            run.err.contains("step '") && run.err.contains("the command was: gcloud "),
            "{}",
            run.err
        );
        assert!(run.err.contains("run setup.sh again"), "{}", run.err);
        assert!(runs < 200, "{}", run.err);
    }
    assert!(runs > 40, "{runs}");
    gcloud
}

#[test]
fn a_failure_at_any_command_is_gone_on_from() {
    let gcloud = with_failures(Failure::EachChangeOnce);
    assert_eq!(left(&gcloud), (resources(), bindings(&[])));
    assert!(gcloud.first_pdf().is_some());
    goes_without_a_rest(&gcloud);
}

#[test]
fn an_answer_lost_at_any_command_is_gone_on_from() {
    let gcloud = with_failures(Failure::EachAnswerOnce);
    assert_eq!(left(&gcloud), (resources(), bindings(&[])));
    goes_without_a_rest(&gcloud);
}

/// What came about through failures is known as setup.sh's own all the same, and cleaned up through as many.
fn goes_without_a_rest(gcloud: &Gcloud) {
    gcloud.with(|cloud| cloud.failed.clear());
    let mut runs = 0;
    while gcloud.script("cleanup.sh", &["--yes"], &[]).code != Some(0) {
        runs += 1;
        assert!(runs < 100);
    }
    assert!(runs > 15, "{runs}");
    let (kept, granted) = left(gcloud);
    assert_eq!(granted, BTreeSet::new());
    let kept: Vec<&str> = kept
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("role/") && !name.starts_with("image/"))
        .collect();
    assert_eq!(kept, ["key/platen/config", "keyring/platen"]);
}

#[test]
fn what_google_does_not_know_everywhere_yet_is_tried_again() {
    for failure in [Failure::AccountsAreSlow, Failure::ApisAreSlow] {
        let gcloud = Gcloud::start();
        gcloud.with(|cloud| cloud.failure = failure);
        gcloud.script("setup.sh", &[], &[]).good();
        assert_eq!(left(&gcloud).1, bindings(&[]));
    }
}

#[test]
fn a_dry_run_needs_no_gcloud_and_its_text_does_what_the_script_does() {
    let gcloud = Gcloud::start();
    // A machine with nothing but the tools of POSIX.
    let tools = tempfile::tempdir().unwrap();
    for tool in [
        "awk", "basename", "cat", "cksum", "cut", "dirname", "grep", "head", "paste", "sed", "sh", "sort", "tr", "wc",
    ] {
        let found = ["/usr/bin", "/bin"].map(|place| std::path::Path::new(place).join(tool));
        let found = found.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, tools.path().join(tool)).unwrap();
    }
    let path = tools.path().display().to_string();
    let dry = gcloud.script("setup.sh", &["--dry-run"], &[("PATH", &path)]).good();
    assert!(gcloud.with(|cloud| cloud.commands.is_empty()));
    gcloud.text(&dry.out, &[]).good();
    let (mut made, granted) = left(&gcloud);
    assert_eq!(granted, bindings(&[]));
    made.retain(|name| !name.starts_with("none"));
    assert_eq!(made, resources());
    assert!(gcloud.first_pdf().is_some());
    // And the text without a project's name is for any.
    let any = gcloud.script("setup.sh", &["--dry-run"], &[("PROJECT_ID", "")]).good();
    assert!(
        any.out.contains(r#"--project="$PROJECT_ID""#) && !any.out.contains("%PROJECT"),
        "{}",
        any.out
    );
    let other = Gcloud::start();
    other.text(&any.out, &[]).good();
    assert_eq!(left(&other).1, bindings(&[]));
    let dry = gcloud.script("cleanup.sh", &["--dry-run"], &[]).good();
    // A bucket that was there before stays, without what setup.sh added to it.
    let input = |cloud: &mut gcloud::Cloud| cloud.resources["bucket/my-project-platen-in"].clone();
    let notified =
        |bucket: &std::collections::BTreeMap<String, String>| bucket.keys().any(|key| key.starts_with("notification-"));
    assert!(other.with(|cloud| notified(&input(cloud))));
    other.with(|cloud| {
        let bucket = cloud.resources.get_mut("bucket/my-project-platen-in").unwrap();
        bucket.remove("label platen").unwrap();
        bucket.insert(
            "notification-of-others".to_owned(),
            "projects/my-project/topics/platen-events-2".to_owned(),
        );
    });
    other.text(&dry.out, &[]).good();
    assert_eq!(left(&other).1, BTreeSet::new());
    let output = "bucket/my-project-platen-out";
    assert!(left(&other).0.contains(output), "nobody has said that documents may go");
    other
        .text(&format!("{}\n{}", any.out, dry.out), &[("DELETE_DOCUMENTS", "yes")])
        .good();
    assert_eq!(left(&other).1, BTreeSet::new());
    assert!(!left(&other).0.contains(output));
    other.with(|cloud| {
        let left: Vec<String> = input(cloud)
            .into_keys()
            .filter(|key| key.starts_with("notification-"))
            .collect();
        assert_eq!(left, ["notification-of-others"]);
    });
}

#[test]
fn hostile_settings_are_refused_before_anything_is_done() {
    let gcloud = Gcloud::start();
    let hostile = [
        ("PROJECT_ID", "my project"),
        ("PROJECT_ID", "x'; rm -rf /; '"),
        ("PROJECT_ID", "\"$(id)\""),
        ("SERVICE", "a-name-that-is-too-long-for-an-account"),
        ("SERVICE", "Platen"),
        ("SERVICE", "pdf"),
        ("REGION", "europe west1"),
        ("INPUT_BUCKET", "gs://bucket"),
        ("INPUT_BUCKET", "my-project-platen-out"),
        ("RESULT_TOPIC", "projects/p/topics/t"),
        ("ENV_VARIABLES", "novalue"),
        ("ENV_VARIABLES", "A=b\nC=d"),
        ("SIZE", "huge"),
        ("ACK_DEADLINE", "900"),
        ("REQUEST_TIMEOUT", "300"),
        ("MAX_DELIVERY_ATTEMPTS", "3"),
        ("CMEK_KEY", "key"),
        ("ACK_DEADLINE", "05"),
        ("REQUEST_TIMEOUT", "9999"),
        ("RETRY_MOST", "1h"),
        ("CPU", "2|g;1e id;s|a|b"),
        ("MEMORY", "4GiB"),
        ("CONVERT_CONCURRENCY", "0"),
        ("CONVERT_MEMORY", "much"),
        ("CONVERT_TIMEOUT", "soon"),
        ("MIN_INSTANCES", "-1"),
        ("MAX_INSTANCES", "0"),
        ("RETRY_TIMES", "x"),
        ("IMAGE", "--help"),
        ("IMAGE", "a b"),
        ("REBUILD_REPOSITORY", "repository"),
        ("FONTS", "/usr/share/fonts"),
        ("BILLING", "free"),
        ("SERVICE_CHANGES", "some"),
        // Each is right by itself.
        ("CONVERT_MEMORY", "4GiB"),
        ("CONVERT_CONCURRENCY", "4"),
        ("MEMORY", "1Gi"),
        ("CONVERT_TIMEOUT", "556s"),
        ("CONVERT_TIMEOUT", "10m"),
        ("ACK_DEADLINE", "100"),
        ("MIN_INSTANCES", "11"),
    ];
    for (name, value) in hostile {
        for script in ["setup.sh", "cleanup.sh"] {
            let Ended { code, err, .. } = gcloud.script(script, &["--dry-run"], &[(name, value)]);
            assert_eq!(code, Some(64), "{script} {name}={value}: {err}");
            assert!(err.contains(name), "{script} {name}={value}: {err}");
        }
    }
    assert!(gcloud.with(|cloud| cloud.commands.is_empty()));
    // All at once.
    let ended = gcloud.script("setup.sh", &[], &[("SIZE", "x"), ("TAG", "a b")]);
    assert!(ended.err.contains("SIZE") && ended.err.contains("TAG"), "{}", ended.err);
}

#[test]
fn values_that_a_shell_would_read_stay_words() {
    let gcloud = Gcloud::start();
    let settings = [("OUTPUT_NAME", "it's \"{stem}\" $(touch x) `y` %PROJECT_ID.{ext}")];
    let dry = gcloud
        .script("setup.sh", &["--dry-run", "--only", "service"], &settings)
        .good();
    gcloud.with(|cloud| {
        let account = "account/platen@my-project.iam.gserviceaccount.com".to_owned();
        cloud.resources.insert(account, std::collections::BTreeMap::new());
    });
    gcloud.text(&dry.out, &[]).good();
    gcloud.with(|cloud| {
        assert_eq!(cloud.resources["service/platen"]["env OUTPUT_NAME"], settings[0].1);
    });
}

#[test]
fn a_bucket_of_somebody_else_is_named() {
    for (bucket, number) in [("forbidden-bucket", None), ("their-bucket", Some("999"))] {
        let gcloud = Gcloud::start();
        if let Some(number) = number {
            let attributes = [("number".to_owned(), number.to_owned())].into();
            gcloud.with(|cloud| cloud.resources.insert(format!("bucket/{bucket}"), attributes));
        }
        let ended = gcloud.script("setup.sh", &[], &[("INPUT_BUCKET", bucket)]);
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.err.contains(bucket) && ended.err.contains("step 'buckets'"),
            "{}",
            ended.err
        );
        assert!(
            left(&gcloud)
                .1
                .iter()
                .all(|(on, _, _)| on != &format!("bucket/{bucket}"))
        );
    }
    let gcloud = Gcloud::start();
    let ended = gcloud.script("setup.sh", &[], &[("PROJECT_ID", "not-my-project")]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("not-my-project"), "{}", ended.err);
    assert!(gcloud.changes().is_empty());
}

#[test]
fn results_of_others_stay_on_the_subscription() {
    let gcloud = Gcloud::start();
    gcloud.with(|cloud| {
        let line = r#"theirs|reports/q3.docx|7|succeeded|{"outputs":[{"signedUrl":"http://127.0.0.1:1/no"}]}"#;
        cloud.messages.push(("theirs".to_owned(), line.to_owned()));
    });
    gcloud.script("setup.sh", &[], &[]).good();
    gcloud.with(|cloud| assert_eq!(cloud.messages.len(), 1));
    let given_back = |word: &String| word.contains("modify-message-ack-deadline") && word.contains("theirs");
    assert!(gcloud.changes().iter().any(given_back));
}

#[test]
fn help_is_help_and_wrong_usage_is_wrong() {
    let gcloud = Gcloud::start();
    for script in ["setup.sh", "grant-caller.sh", "cleanup.sh"] {
        let help = gcloud.script(script, &["--help"], &[]).good();
        assert!(
            help.out.starts_with(&format!("Usage: deploy/{script}")) && help.out.contains("--dry-run"),
            "{}",
            help.out
        );
        assert_eq!(gcloud.script(script, &["--nonsense"], &[]).code, Some(64));
    }
    assert_eq!(gcloud.script("setup.sh", &["--only", "nonsense"], &[]).code, Some(64));
    assert!(gcloud.with(|cloud| cloud.commands.is_empty()));
}

#[test]
fn a_changed_channel_reaches_the_alerts_and_nothing_else() {
    let gcloud = set_up(&[]);
    gcloud.changes();
    let channel = ("NOTIFICATION_CHANNELS", "projects/my-project/notificationChannels/1");
    gcloud.with(|cloud| {
        let name = format!("channel/{}", channel.1);
        cloud.resources.insert(name, std::collections::BTreeMap::new())
    });
    gcloud.script("setup.sh", &[], &[channel]).good();
    let changes = gcloud.changes();
    assert_eq!(changes.len(), files("alerts").len(), "{changes:?}");
    assert!(
        changes
            .iter()
            .all(|change| change.starts_with("alpha monitoring policies update") && change.contains(channel.1)),
        "{changes:?}"
    );
    gcloud.script("setup.sh", &[], &[channel]).good();
    assert_eq!(gcloud.changes(), [""; 0]);
}

#[test]
fn who_does_not_want_monitoring_has_none() {
    let gcloud = set_up(&[("MONITORING", "no")]);
    let (made, granted) = left(&gcloud);
    let monitored: BTreeSet<String> = monitored().into_iter().collect();
    assert_eq!(made, resources().difference(&monitored).cloned().collect());
    assert_eq!(granted, bindings(&[]));
    gcloud.with(|cloud| assert!(!cloud.apis.contains("monitoring.googleapis.com")));
}

/// The label is what a whole run compares; a hand that took the token off has left it.
#[test]
fn a_push_subscription_that_was_changed_by_hand_is_set_right_when_it_is_asked_for() {
    let gcloud = set_up(&[]);
    gcloud.with(|cloud| {
        let push = cloud.resources.get_mut("subscription/platen-push").unwrap();
        push.remove("push-auth-service-account").unwrap();
        push.insert("push-endpoint".to_owned(), String::new());
    });
    gcloud.script("setup.sh", &["--only", "push"], &[]).good();
    gcloud.with(|cloud| {
        let push = &cloud.resources["subscription/platen-push"];
        assert!(
            push["push-auth-service-account"].starts_with("platen-push@"),
            "{push:?}"
        );
        assert!(push["push-endpoint"].starts_with("https://platen-"), "{push:?}");
    });
}
