//! What else is in `deploy/`: the table of sizes, and that every command is one that gcloud has.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::gcloud::{Ended, Gcloud};
use crate::harness::{World, until};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// In MiB.
fn size(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap());
    let number: u64 = number.parse().unwrap();
    match unit {
        "Gi" | "GiB" => number * 1024,
        "Mi" | "MiB" => number,
        other => panic!("{other}"),
    }
}

/// A number of the line in which a worker says what fits, in MiB.
fn said(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field}: {line}"))
}

/// By the worker's own sum, which it says when it starts as on Cloud Run, where files are memory.
#[tokio::test(flavor = "multi_thread")]
async fn every_size_holds_what_it_runs_at_once() {
    let table = std::fs::read_to_string(root().join("deploy/sizing.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), 3);
    let each = rows[0][4];
    // Memory, as all files of an instance are.
    let shared = nix::sys::statfs::statfs("/dev/shm").map(|of| of.filesystem_type());
    if shared.ok() != Some(nix::sys::statfs::TMPFS_MAGIC) {
        println!("skipped: /dev/shm is no tmpfs");
        return;
    }
    let world = World::with(&[("TMPDIR", "/dev/shm"), ("LOG_FORMAT", "json"), ("CONVERT_MEMORY", each)]).await;
    let line = until("the start says what fits", || {
        let log = world.worker.log();
        let line = log.lines().find(|line| line.contains("jobs at once"))?;
        serde_json::from_str::<Value>(line).ok()
    })
    .await;
    assert_eq!(line["diskIsMemory"], true, "{line}");
    let (held, job) = (said(&line, "heldMiB"), said(&line, "jobMemoryMiB"));
    println!("held {held} MiB, a job {job} MiB");
    for row in &rows {
        let [name, cpu, memory, slots, row_each, timeout, least, most] = row[..] else {
            panic!("{row:?}")
        };
        let slots: u64 = slots.parse().unwrap();
        assert_eq!(row_each, each, "{name}: asked with that");
        assert_eq!(
            cpu.parse::<u64>().unwrap(),
            slots,
            "{name}: a conversion has a processor of its own"
        );
        let needed = held + slots * job;
        assert!(needed <= size(memory), "{name}: {needed} MiB in {memory}");
        // Cloud Run's most for so many processors.
        assert!(size(memory) <= slots * 4096, "{name}");
        assert!(
            timeout.strip_suffix('s').unwrap().parse::<u64>().unwrap() * 2 < 600,
            "{name}: two tries fit in a push"
        );
        assert!(least.parse::<u64>().unwrap() <= most.parse::<u64>().unwrap());
    }
    // What the scripts count with is no less, and not so much more that it would refuse what works.
    let gcloud = Gcloud::start();
    let slots = "2";
    for (memory, fits) in [(held + 2 * job - 1, false), (held + 2 * job + 150, true)] {
        let settings = [
            ("CONVERT_CONCURRENCY", slots),
            ("MEMORY", &format!("{memory}Mi")),
            ("CONVERT_MEMORY", each),
        ];
        let ended = gcloud.script("setup.sh", &["--dry-run"], &settings);
        assert_eq!(ended.code == Some(0), fits, "{memory}: {}", ended.err);
    }
}

/// gcloud's own parser, where gcloud is installed: every command and every flag exists.
#[test]
fn every_command_is_one_of_gclouds() {
    let gcloud = Gcloud::start();
    let everything = [
        ("DOCTOR", "yes"),
        ("DEPLOYER", super::DEPLOYER),
        ("CMEK_KEY", super::CMEK_KEY),
        ("FONTS", super::FONTS),
        ("BILLING", "instances"),
        ("NOTIFICATION_CHANNELS", "projects/my-project/notificationChannels/1"),
        (
            "REBUILD_REPOSITORY",
            "projects/my-project/locations/europe-west1/connections/c/repositories/r",
        ),
    ];
    gcloud.with(|cloud| {
        let channel = "channel/projects/my-project/notificationChannels/1";
        for own in ["key/own/data", "bucket/company-fonts", channel] {
            cloud
                .resources
                .insert(own.to_owned(), std::collections::BTreeMap::new());
        }
    });
    gcloud.script("setup.sh", &[], &everything).good();
    gcloud.script("setup.sh", &[], &[("MAX_DELIVERY_ATTEMPTS", "7")]).good();
    gcloud
        .script("grant-caller.sh", &["a@b.iam.gserviceaccount.com"], &[])
        .good();
    gcloud
        .script("grant-caller.sh", &["a@b.iam.gserviceaccount.com", "--revoke"], &[])
        .good();
    let given = [
        ("SERVICE_CHANGES", "given"),
        ("IMAGE", "r/i@sha256:0"),
        ("ENV_VARIABLES", "MAX_PAGES=7"),
    ];
    gcloud.script("setup.sh", &["--only", "service"], &given).good();
    gcloud.script("gke/setup.sh", &["platen.example.com"], &[]).good();
    gcloud.script("cleanup.sh", &["--yes"], &everything).good();
    if Command::new("gcloud").arg("--version").output().is_err() {
        println!("skipped: no gcloud here to ask whether it has these commands");
        return;
    }
    let commands: Vec<Value> = gcloud.with(|cloud| {
        cloud
            .commands
            .iter()
            // What the linter does not take: a word after a flag without a value, and quotes.
            .map(|words| words.iter().map(|word| word.replace('"', "")).collect::<Vec<_>>())
            .map(|words| json!({"command_string": format!("gcloud {}", quoted(&words))}))
            .collect()
    });
    assert!(commands.len() > 200);
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("commands.json");
    std::fs::write(&list, Value::from(commands).to_string()).unwrap();
    let output = Command::new("gcloud")
        .args(["meta", "lint-gcloud-commands"])
        .arg(format!("--commands-file={}", list.display()))
        .env("CLOUDSDK_CONFIG", directory.path())
        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        .output()
        .unwrap();
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(verdicts.len() > 100, "{}", String::from_utf8_lossy(&output.stderr));
    let wrong: Vec<String> = verdicts
        .iter()
        .filter(|verdict| verdict["success"] != true)
        .map(|verdict| format!("{}: {}", verdict["command_string"], verdict["error_message"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn quoted(words: &[String]) -> String {
    words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The documents of a YAML text, where a Python with a YAML parser is.
fn documents(text: &str) -> Option<Vec<Value>> {
    let program = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text.yaml");
    std::fs::write(&file, text).unwrap();
    let there = Command::new("python3").args(["-c", "import yaml"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("skipped: no python3 with yaml here to parse what was written");
        return None;
    }
    let output = Command::new("python3")
        .args(["-c", program])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_manifests_are_kubernetes_and_as_strict_as_cloud_run() {
    let gcloud = super::set_up(&[]);
    let output_name = "it's {stem}\\1&%.{ext}";
    let settings = [
        ("OUTPUT_NAME", output_name),
        (
            "ENV_VARIABLES",
            "FONTS=gs://fonts/a: #b|LOG_FORMAT=text|MAX_PAGES=7|METRICS_PORT=9464",
        ),
        ("CONFIG_OBJECT", "gs://config/worker.enc"),
    ];
    let dry = gcloud
        .script("gke/setup.sh", &["platen.example.com", "--dry-run"], &settings)
        .good();
    // What the text does is what the script does.
    gcloud.text(&dry.out, &[]).good();
    let text = gcloud.manifests();
    gcloud.script("gke/setup.sh", &["platen.example.com"], &settings).good();
    assert_eq!(text, gcloud.manifests());
    let mut code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    assert!(!code.any(|line| line.contains("${")), "{text}");
    let Some(mut all) = documents(&text) else { return };
    all.retain(|document| !document.is_null());
    let kinds: Vec<&str> = all.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ServiceAccount",
            "ConfigMap",
            "Deployment",
            "Service",
            "PodDisruptionBudget",
            "HorizontalPodAutoscaler",
            "NetworkPolicy",
            "PodMonitoring",
            "Gateway",
            "HTTPRoute",
            "GCPBackendPolicy",
            "HealthCheckPolicy"
        ]
    );
    let of = |kind: &str| &all[kinds.iter().position(|other| *other == kind).unwrap()];
    let account = &of("ServiceAccount")["metadata"]["annotations"]["iam.gke.io/gcp-service-account"];
    assert_eq!(account, "platen@my-project.iam.gserviceaccount.com");
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    assert_eq!(container["resources"]["limits"]["memory"], "6Gi");
    // The load balancer drains a pod that goes while it still works; then the worker has its 10 s.
    let (sleep, seconds) = (&container["lifecycle"]["preStop"]["sleep"]["seconds"], Value::as_u64);
    let drains = &of("GCPBackendPolicy")["spec"]["default"]["connectionDraining"]["drainingTimeoutSec"];
    assert!(drains.is_u64() && seconds(drains) <= seconds(sleep), "{container}");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= seconds(sleep).unwrap() + 10);
    // Who scrapes finds the port, and gets in there and nowhere else.
    let port = container["ports"][1].clone();
    assert_eq!(port, json!({"name": "metrics", "containerPort": 9464}));
    assert_eq!(of("ConfigMap")["data"]["METRICS_PORT"], "9464");
    let scraped = &of("PodMonitoring")["spec"];
    assert_eq!(scraped["selector"]["matchLabels"], json!({"app": "platen"}));
    assert_eq!(scraped["endpoints"][0]["port"], "metrics");
    let ingress = of("NetworkPolicy")["spec"]["ingress"].as_array().unwrap();
    let open: Vec<&Value> = ingress.iter().map(|rule| &rule["ports"]).collect();
    let tcp = |port: u16| json!([{"port": port, "protocol": "TCP"}]);
    assert_eq!(open, [&tcp(8080), &tcp(9464)]);
    let collectors = &ingress[1]["from"][0]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(collectors["values"], json!(["gmp-system", "gke-gmp-system"]));
    assert_eq!(ingress[1]["from"].as_array().unwrap().len(), 1);
    // Its lines are those that the log-based metrics count.
    let (_, metric) = &crate::monitoring::files("metrics")[0];
    let counted = format!(
        r#"resource.labels.namespace_name="{}" AND resource.labels.container_name="{}""#,
        of("Deployment")["metadata"]["namespace"].as_str().unwrap(),
        container["name"].as_str().unwrap()
    );
    assert!(metric["filter"].as_str().unwrap().contains(&counted), "{counted}");
    // What the worker is told is what it reads, and all of it is text.
    let variables = of("ConfigMap")["data"].as_object().unwrap();
    assert!(variables.values().all(Value::is_string), "{variables:?}");
    assert_eq!(variables["PUSH_AUTH"], "oidc");
    // No setting of env.sh is for Cloud Run alone, and none is read by sed, by the shell or by YAML.
    for (name, value) in [
        ("OUTPUT_NAME", output_name),
        ("FONTS", "gs://fonts/a: #b"),
        ("LOG_FORMAT", "text"),
        ("MAX_PAGES", "7"),
        ("CONFIG_OBJECT", "gs://config/worker.enc"),
        ("MAX_DELIVERY_ATTEMPTS", "20"),
        ("SANDBOX", "required"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
    let key = "projects/my-project/locations/europe-west1/keyRings/platen/cryptoKeys/config";
    assert_eq!(variables["CONFIG_KMS_KEY"], key);
    let annotation = |settings: &[(&str, &str)]| {
        let dry = gcloud
            .script("gke/setup.sh", &["platen.example.com", "--dry-run"], settings)
            .good();
        let (_, rest) = dry.out.split_once("s|${SETTINGS}|").unwrap();
        rest.split('|').next().unwrap().to_owned()
    };
    assert_ne!(
        annotation(&[]),
        annotation(&[("CONVERT_TIMEOUT", "60s")]),
        "pods are replaced"
    );
    assert_eq!(variables["PUSH_AUDIENCE"], "https://platen.example.com");
    assert!(
        dry.out
            .contains("--push-auth-token-audience=https://platen.example.com")
    );
    // The load balancer waits as long as Pub/Sub does.
    assert_eq!(of("GCPBackendPolicy")["spec"]["default"]["timeoutSec"], 600);
    for wrong in [&["x"][..], &[], &["a b.com"], &["a.com", "b.com"], &["--nonsense"]] {
        assert_eq!(gcloud.script("gke/setup.sh", wrong, &[]).code, Some(64), "{wrong:?}");
    }
    for (name, value) in [
        ("MAX_INSTANCES", "1"),
        ("ENV_VARIABLES", "METRICS_PORT="),
        ("IMAGE", "docker.io/platen/platen:1.2"),
    ] {
        let Ended { code, err, .. } = gcloud.script("gke/setup.sh", &["platen.example.com"], &[(name, value)]);
        assert_eq!(code, Some(64), "{name}={value}: {err}");
        assert!(err.contains(name) || err.contains("METRICS_PORT"), "{err}");
    }
    let replicas = &of("HorizontalPodAutoscaler")["spec"];
    assert_eq!(
        (&replicas["minReplicas"], &replicas["maxReplicas"]),
        (&json!(2), &json!(10))
    );
}

#[test]
fn cloud_build_knows_every_substitution_that_setup_gives_it() {
    let text = std::fs::read_to_string(root().join("cloudbuild.yaml")).unwrap();
    let gcloud = Gcloud::start();
    let repository = "projects/my-project/locations/europe-west1/connections/c/repositories/r";
    let dry = gcloud
        .script("setup.sh", &["--dry-run"], &[("REBUILD_REPOSITORY", repository)])
        .good();
    let mut seen = 0;
    for given in dry.out.split("--substitutions=^|^").skip(1) {
        let given = given.split('\'').next().unwrap();
        for pair in given.split('|') {
            let name = pair.split('=').next().unwrap();
            assert!(text.contains(&format!("\n  {name}: ")), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}: {}", dry.out);
    let Some(build) = documents(&text) else { return };
    let build = &build[0];
    let names: Vec<&str> = build["substitutions"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for name in [
        "_SERVICE_NAME",
        "_REGION",
        "_OUTPUT_BUCKET",
        "_RESULT_TOPIC",
        "_TAG",
        "_ENV_VARIABLES",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    // Every one is used: Cloud Build refuses a build with one that is not.
    for name in names {
        assert!(text.contains(&format!("${{{name}}}")), "{name} is not used");
    }
    let steps = build["steps"].as_array().unwrap();
    let ids: Vec<&str> = steps.iter().map(|step| step["id"].as_str().unwrap()).collect();
    for step in steps {
        for before in step["waitFor"].as_array().into_iter().flatten() {
            let before = before.as_str().unwrap();
            assert!(before == "-" || ids.contains(&before), "{step}");
        }
    }
    let deploy = &steps[ids.iter().position(|id| *id == "deploy").unwrap()];
    assert!(deploy["args"].to_string().contains("deploy/setup.sh --only service"));
}

/// shellcheck, where it is installed.
#[test]
fn the_scripts_are_clean() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        println!("skipped: no shellcheck here");
        return;
    }
    let output = Command::new("shellcheck")
        .arg("--external-sources")
        .args(
            [
                "setup.sh",
                "grant-caller.sh",
                "cleanup.sh",
                "lib.sh",
                "env.sh",
                "gke/setup.sh",
                "smoke-image.sh",
                "prove-image.sh",
                "slim-image.sh",
                "image-root.sh",
                "packages.sh",
                "test.sh",
                "demo.sh",
                "local.sh",
                "as-root.sh",
            ]
            .map(|name| format!("deploy/{name}")),
        )
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
